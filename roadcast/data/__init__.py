"""Finding, listing and making data packs."""
