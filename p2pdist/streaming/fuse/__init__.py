"""A tree of files as a read-only mount: the kernel's FUSE protocol, its worker and its holder."""
