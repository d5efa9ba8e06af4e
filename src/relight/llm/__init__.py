"""What a language model says: llama.cpp in a process of its own, several conversations at once, and its client."""
