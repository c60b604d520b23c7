"""Hosts on limited links pull one image at the same moment: p2pdist beside aria2."""
