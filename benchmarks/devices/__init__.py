"""Benchmarks of what runs on a board beside the agent."""
