"""Transports: how bytes get to the broker and back. The only I/O of this package."""
