"""Benchmarks: ratios against peers and against ourselves with a feature off. Run by `make bench`."""
