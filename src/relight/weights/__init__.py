"""Checkpoints on disk: what is in a file, under which names, and where its bytes lie in the memory map."""
