"""Benchmarks of what a fleet learns: same partition, models, local budget and seeds for every method."""
