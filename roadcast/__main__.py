"""``python -m roadcast``."""

from roadcast.cli import main

main()
