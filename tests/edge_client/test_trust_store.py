"""Trust on the disk: kept twice, never older than it was, and never more than the disk has taken."""

from __future__ import annotations

from datetime import datetime, timezone
from pathlib import Path

import pytest

from edge_client.trust_store import CLOCK_FLOOR_S, TrustStore
from edge_models.tasks import load_task
from edge_protocol.blobs import cut
from edge_protocol.errors import StoreError, TrustError
from edge_protocol.ids import TaskId
from edge_protocol.manifest import Artifact, ReleaseManifest
from edge_protocol.trust import SKEW_S, TrustedMetadata, commissioned, refreshed, rotated
from tests.fakes.signed_fleet import SignedFleet

NOW = 1_800_000_000.0
VEHICLE = TaskId("vehicle")
BLOB, _ = cut(b"x")


def manifest(counter: int) -> ReleaseManifest:
    """A release of small files."""
    return ReleaseManifest("sim", counter, load_task("vehicle"), 1.0, (Artifact("nano", "s", BLOB, BLOB, BLOB, 1),), {})


def current(fleet: SignedFleet) -> TrustedMetadata:
    """What a device trusts that has seen everything."""
    files = fleet.files()
    now = datetime.fromtimestamp(NOW, timezone.utc)
    return refreshed(rotated(commissioned(fleet.root), files), files, VEHICLE, now)


@pytest.fixture
def fleet() -> SignedFleet:
    """A fleet."""
    return SignedFleet(NOW, ["vehicle"])


def test_what_was_trusted_is_trusted_after_a_restart(tmp_path: Path, fleet: SignedFleet) -> None:
    """Metadata, release floor and clock floor come back; without a file there is the commissioned root alone."""
    store = TrustStore(tmp_path, fleet.root)
    assert (store.trusted, store.release_floor, store.clock_floor_s) == (commissioned(fleet.root), 0, CLOCK_FLOOR_S)
    store.keep(current(fleet))
    store.raise_floor(4)
    store.raise_floor(3)
    again = TrustStore(tmp_path, fleet.root)
    assert (again.trusted, again.release_floor, again.clock_floor_s) == (current(fleet), 4, NOW - SKEW_S)


@pytest.mark.parametrize("name", ["trust-a.bin", "trust-b.bin"])
@pytest.mark.parametrize("damage", ["torn", "zeros", "gone", "older"])
def test_a_damaged_copy_brings_nothing_older_back(tmp_path: Path, fleet: SignedFleet, name: str, damage: str) -> None:
    """Whichever copy is torn, zeroed, lost or from a backup: the other one counts."""
    store = TrustStore(tmp_path, fleet.root)
    store.raise_floor(1)
    before = (tmp_path / name).read_bytes()
    store.keep(current(fleet))
    store.raise_floor(2)
    path = tmp_path / name
    whole = path.read_bytes()
    match damage:
        case "torn":
            path.write_bytes(whole[:-5])
        case "zeros":
            path.write_bytes(bytes(len(whole)))
        case "gone":
            path.unlink()
        case _:
            path.write_bytes(before)
    found = TrustStore(tmp_path, fleet.root)
    assert (found.trusted, found.release_floor) == (current(fleet), 2)


def test_nothing_is_trusted_that_the_disk_refuses(tmp_path: Path, fleet: SignedFleet) -> None:
    """A full disk leaves trust and floor as they were, here and after a restart."""
    store = TrustStore(tmp_path, fleet.root)
    (tmp_path / "trust-a.bin.tmp").mkdir(parents=True)
    with pytest.raises(StoreError, match=r"trust-a\.bin"):
        store.keep(current(fleet))
    with pytest.raises(StoreError):
        store.raise_floor(7)
    for each in (store, TrustStore(tmp_path, fleet.root)):
        assert (each.trusted, each.release_floor) == (commissioned(fleet.root), 0)


def test_another_root_begins_anew_and_keeps_the_floor(tmp_path: Path, fleet: SignedFleet) -> None:
    """A device that is commissioned again trusts the new root alone; one with a later root of the chain goes on."""
    fleet.roles.rotate("root", fleet.draw("root"), 1, NOW)
    store = TrustStore(tmp_path, fleet.root)
    store.keep(current(fleet))
    store.raise_floor(2)
    later = TrustStore(tmp_path, fleet.files()["2.root"])
    assert (later.trusted.roots, later.trusted.timestamp) == ((fleet.files()["2.root"],), current(fleet).timestamp)
    other = SignedFleet(NOW)
    found = TrustStore(tmp_path, other.root)
    assert (found.trusted, found.release_floor) == (commissioned(other.root), 2)
    with pytest.raises(TrustError, match="root"):
        TrustStore(tmp_path / "new", b"{}")
