"""Files written whole or not at all."""

from __future__ import annotations

import resource
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from edge_protocol.errors import NotReadyError, StoreError
from edge_protocol.files import alone, write_atomic


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


def test_a_folder_is_kept_to_one_and_free_again_afterwards(tmp_path: Path) -> None:
    """The second hears who is in its way; nothing is written, and errors of the one that keeps it go their own way."""
    folder = tmp_path / "new" / "state"
    with alone(folder, "server"), pytest.raises(NotReadyError, match="state: another server"), alone(folder, "server"):
        raise AssertionError("two servers at once")
    with pytest.raises(BlockingIOError), alone(folder, "server"):
        raise BlockingIOError
    with alone(folder, "server"):
        assert list(folder.iterdir()) == []
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="file"), alone(tmp_path / "file", "server"):
        raise AssertionError("kept what is no folder")


def test_a_killed_process_lets_a_folder_go(tmp_path: Path) -> None:
    """SIGKILL leaves no lock behind, and a program that the holder started holds none of its own."""
    code = (
        "import subprocess, sys\nfrom pathlib import Path\nfrom edge_protocol.files import alone\n"
        "with alone(Path(sys.argv[1]), 'agent'):\n"
        "    child = subprocess.Popen(['cat'], stdin=subprocess.PIPE)\n"
        "    print('kept', flush=True)\n    child.wait()\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"kept\n"
        with pytest.raises(NotReadyError, match="another agent"), alone(tmp_path, "agent"):
            raise AssertionError("two agents at once")
        other.kill()
    with alone(tmp_path, "agent"):
        pass
