"""What the centre keeps on disk: a database (SQLAlchemy) and a folder of blobs. The only users of SQLAlchemy and Alembic."""
