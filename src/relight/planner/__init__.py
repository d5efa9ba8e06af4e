"""What fits where, decided from measured bytes before anything is allocated."""
