"""The parts of `p2pdist prewarm` and `p2pdist replicas`: wishes, trackers, plan, progress, end."""
