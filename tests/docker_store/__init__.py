"""Docker with containerd's image store, of a newer Debian than this machine's may be."""
