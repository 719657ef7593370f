"""Is this board ready to serve? Pure checks over a probe, and shells that try things out. Owns no configuration."""
