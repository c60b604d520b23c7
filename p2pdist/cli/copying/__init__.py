"""`p2pdist cp`: single files out of an image, without pulling it."""
