"""Real images laid out by all unpackers; their making takes minutes and Debian's packages."""
