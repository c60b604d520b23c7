"""Benchmarks: ratios against a rival or the physical limit, measured in the same run."""
