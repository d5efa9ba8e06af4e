"""Pictures that go in and come out: read, fitted, masked, edges found, judged. Plain NumPy and Pillow, no device."""
