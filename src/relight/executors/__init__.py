"""Where it is computed: each executor turns a recorded graph into a program for one device."""
