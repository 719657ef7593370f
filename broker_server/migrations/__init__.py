"""Alembic migrations of the server's database; run by `broker_server.store`, never by hand."""
