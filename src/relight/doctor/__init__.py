"""What is wrong with this machine for relight, and what would help? It looks and measures; it changes nothing."""
