"""What the centre keeps on disk: a database and a folder of blobs. The only user of SQLAlchemy and Alembic."""
