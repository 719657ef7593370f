"""Latency: how queries are issued, what may be said of the times, and their files; owns no model and no command."""
