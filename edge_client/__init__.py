"""Everything that runs only on a device."""
