"""Benchmarks of latency: what runners, precisions and the measuring itself cost."""
