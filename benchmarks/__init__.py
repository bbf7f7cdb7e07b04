"""Benchmarks: kshell beside drgn, on the same dump in the same run. ``python -m benchmarks --help``."""
