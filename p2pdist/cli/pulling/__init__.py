"""The parts of `p2pdist pull`: client, progress, outputs."""
