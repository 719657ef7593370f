"""Delivery benchmarks: what it costs to bring a release to devices."""
