"""Hosts, registries, Docker and p2pdist as real processes, for tests that read like scripts."""
