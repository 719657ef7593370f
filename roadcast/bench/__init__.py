"""Latency: what is measured, one run of it, and the page of results; owns no statistics (`devices.latency`)."""
