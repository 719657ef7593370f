"""Rules that fuse what devices say about the proxies into one teacher, one file each behind `base.Strategy`."""
