"""What a machine has, read from files, drivers and short measurements; no opinion on it."""
