"""One process at a time on a folder; owns nothing that lies in it."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from broker_server.store.engine import translated


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Let one process at a time change a folder, which is made when it is missing; a killed one lets go.

    Raises:
        StoreError: the disk refused.
    """
    with translated(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / ".lock", os.O_RDONLY | os.O_CREAT, 0o644)  # whoever may only look can wait, too
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
