"""Points the container engines of a host at the peer's mirror, and takes that back."""
