"""What makes one installation out of a folder: its layout, lock, keys, listeners, and the first start."""
