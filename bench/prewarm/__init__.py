"""A tracker and a fleet of simulated hosts: prewarm jobs at the scale they are made for."""
