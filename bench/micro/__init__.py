"""One part at a time, in one process."""
