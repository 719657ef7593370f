"""Files written whole or not at all."""

from __future__ import annotations

import resource
import signal
import stat
from pathlib import Path

import pytest

from edge_protocol.errors import StoreError
from edge_protocol.files import write_atomic


def test_a_disk_that_refuses_leaves_nothing_behind(tmp_path: Path) -> None:
    """A write that the system cuts off raises StoreError, keeps the old file, and removes its own."""
    path = tmp_path / "file"
    write_atomic(path, b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StoreError, match="file"):
            write_atomic(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert (path.read_bytes(), [p.name for p in tmp_path.iterdir()]) == (b"old", ["file"])


def test_a_secret_is_never_open_to_others(tmp_path: Path) -> None:
    """The mode is the file's from its first byte, and replaces that of the old file."""
    path = tmp_path / "key"
    write_atomic(path, b"old")
    write_atomic(path, b"new", 0o600)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
