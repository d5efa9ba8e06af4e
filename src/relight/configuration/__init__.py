"""What the user has set: one YAML file, the environment over it, flags over both, and where each value came from."""
