"""Whole fleets in one process: the daemons' own cores, driven by an event heap (`__main__`)."""
