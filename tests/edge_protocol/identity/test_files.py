"""An identity on disk: whatever step a crash follows, there is a pair that belongs together."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

import pytest

from edge_protocol.errors import CheckFailedError, ConfigError, StoreError
from edge_protocol.identity.certificates import belongs, key_hash, make_key, read_request
from edge_protocol.identity.files import IdentityFiles
from tests.fakes.authority import NOW, certified, identity_in, make_authority


def test_the_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    """Asking again asks for the same key, which nobody else may read; the request holds no key."""
    files = identity_in(tmp_path)
    first, again = files.request("cam-1"), files.request("cam-1")
    assert key_hash(read_request(first)) == key_hash(read_request(again))
    assert stat.S_IMODE(files.next_key.stat().st_mode) == 0o600
    assert b"PRIVATE" not in first
    assert files.held() is None


@pytest.mark.parametrize("renewal", [False, True])
@pytest.mark.parametrize("done", range(5))
def test_a_crash_after_any_step_leaves_a_pair(tmp_path: Path, done: int, *, renewal: bool) -> None:
    """After so many steps of an installation, and then `settle`, there is the old pair or the new one."""
    authority = make_authority(tmp_path / "ca")
    files = certified(authority, tmp_path / "cam", "cam-1") if renewal else identity_in(tmp_path)
    before = files.held()
    chain = authority.sign(files.request("cam-1"), "cam-1", (), NOW)
    steps = files.steps(chain, authority.anchors, "cam-1")
    assert len(steps) == 4
    for step in steps[:done]:
        step()
    files.settle()
    held = files.held()
    assert (held == before) == (done < 2)
    assert held is None or belongs(files.key.read_bytes(), held)
    files.install(chain, authority.anchors, "cam-1")
    held = files.held()
    assert held is not None
    assert belongs(files.key.read_bytes(), held)
    assert not files.next_key.exists()
    assert not files.next_certificate.exists()
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600


def test_a_certificate_of_another_is_not_installed(tmp_path: Path) -> None:
    """Another name, another key and junk are refused, and what was there stays."""
    authority = make_authority(tmp_path / "ca")
    files, other = certified(authority, tmp_path / "a", "cam-1"), identity_in(tmp_path)
    held, ca = files.held(), authority.anchors
    named = authority.sign(other.request("cam-2"), "cam-2", (), NOW)
    keyed = authority.sign(other.request("cam-1"), "cam-1", (), NOW)
    with pytest.raises(CheckFailedError, match="for 'cam-2'"):
        files.install(named, ca, "cam-1")
    with pytest.raises(CheckFailedError, match="key that is not here"):
        files.install(keyed, ca, "cam-1")
    with pytest.raises(ConfigError):
        files.install(b"junk", ca, "cam-1")
    mine = authority.sign(files.request("cam-1"), "cam-1", (), NOW)
    with pytest.raises(CheckFailedError, match="not by that authority"):
        files.install(mine, make_authority(tmp_path / "other").anchors, "cam-1")
    assert files.held() == held


def test_a_certificate_without_its_key_is_forgotten(tmp_path: Path) -> None:
    """A waiting certificate whose key was lost does not take the place of a good one."""
    authority = make_authority(tmp_path / "ca")
    files = certified(authority, tmp_path / "cam", "cam-1")
    held = files.held()
    for step in files.steps(authority.sign(files.request("cam-1"), "cam-1", (), NOW), authority.anchors, "cam-1")[:2]:
        step()
    files.next_key.write_bytes(make_key())
    assert files.held() == held
    assert not files.next_certificate.exists()


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """Where a file is in the way of the folder, the error names it."""
    (tmp_path / "file").write_text("")
    files = IdentityFiles(tmp_path / "ca.pem", tmp_path / "file" / "own.pem", tmp_path / "own.key")
    with pytest.raises(StoreError, match="file"), files.alone():
        pass


def test_one_asks_at_a_time(tmp_path: Path) -> None:
    """A second holder of the lock waits until the first has done."""
    files, order = identity_in(tmp_path), []
    inside = threading.Event()

    def second() -> None:
        inside.wait(20)
        with files.alone():
            order.append("second")

    thread = threading.Thread(target=second)
    with files.alone():
        thread.start()
        inside.set()
        os.sched_yield()
        order.append("first")
    thread.join(20)
    assert order == ["first", "second"]
