"""Snapshots of images whose layers are still at the registry, for containerd."""
