"""Component processes: each owns a device, so that what ends it ends neither the program nor its other parts."""
