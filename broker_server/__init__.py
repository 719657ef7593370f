"""Everything that runs only in the centre."""
