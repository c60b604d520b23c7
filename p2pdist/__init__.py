"""p2pdist: container images from peer to peer, verified, in front of any registry."""

__version__ = "0.1.0"
