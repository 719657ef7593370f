"""What decides which releases are trusted: signed metadata of a stranger, a gate, and a disk that lies."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime, timezone
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO

import msgspec
from tuf.api.metadata import Metadata

from edge_client.disk import Disk
from edge_client.gate import Gate
from edge_client.installed import DAMAGED, Pointer
from edge_client.offers import Offered
from edge_client.trust_store import TrustStore
from edge_protocol.errors import TrustError
from edge_protocol.ids import DeviceId
from edge_protocol.topics import ReleaseTopic, Topics
from edge_protocol.trust import (
    Proof,
    TrustedMetadata,
    check_again,
    commissioned,
    proven,
    refreshed,
    role_of,
    rotated,
)
from tests.edge_client.core_driver import SPEC, signed
from tests.fakes.signed_fleet import SignedFleet
from tests.fakes.small_centre import FLEET
from tests.fuzz.mutate import in_json, in_message
from tests.fuzz.target import Target

NOW = datetime(2026, 11, 26, tzinfo=timezone.utc)
TASK, DEVICE = SPEC.task_id, DeviceId("cam-1")


@lru_cache(maxsize=1)
def _folder() -> TemporaryDirectory[str]:
    """For as long as this process."""
    return TemporaryDirectory(prefix="fuzz-")


def trust_targets() -> Iterator[tuple[str, Target]]:
    """Signed metadata: of a stranger, through the pure functions and the gate; of a disk that lies, at a boot."""
    folder = Path(_folder().name)
    fleet = SignedFleet(NOW.timestamp(), [TASK])
    before = refreshed(commissioned(fleet.root), fleet.files(), TASK, NOW)
    data, proof = fleet.prove(signed(1).manifest)
    second = fleet.draw("root")
    fleet.roles.rotate("root", second, 1, NOW.timestamp())
    files = fleet.files()
    after, root, legal = refreshed(rotated(before, files), files, TASK, NOW), fleet.root, set(files.values())

    def rotate(spoilt: bytes) -> object:
        made = rotated(before, {"2.root": spoilt})
        assert set(made.roots) <= legal or alike(made.roots[-1], files["2.root"]), (
            "a root that nobody signed is trusted"
        )
        return made

    yield "trust/root", Target(rotate, [files["2.root"]], TrustError, 3, in_json)
    for name in ("timestamp", "snapshot", "targets", role_of(TASK)):

        def refresh(spoilt: bytes, name: str = name) -> object:
            made = refreshed(rotated(before, files), {**files, name: spoilt}, TASK, NOW)
            assert made == after or alike(made.timestamp, after.timestamp), "metadata that nobody signed are trusted"
            return made

        yield f"trust/{name}", Target(refresh, [files[name]], TrustError, 3, in_json)

    def prove(spoilt: bytes) -> object:
        return proven(after, TASK, spoilt, NOW)

    yield "trust/manifest", Target(prove, [data], TrustError, 4, in_message(0))

    def check(spoilt: bytes) -> object:
        manifest = check_again(root, msgspec.json.decode(spoilt, type=Pointer).proof, TASK, data)
        assert manifest.counter == 1
        return manifest

    yield "pointer/proof", Target(check, [msgspec.json.encode(pointer(data, proof))], DAMAGED, 3, in_json)
    yield "gate", Target(_gate(folder / "gate", fleet, data), _letters(files, data), (), 3)
    yield "trust-store", _trust_store(folder / "store", root, after)


def alike(one: bytes, other: bytes) -> bool:
    """Whether two files of metadata are read alike: white space, what is unsigned, null for a default may differ."""
    return bool(Metadata.from_bytes(one).signed == Metadata.from_bytes(other).signed)


def _letters(files: Mapping[str, bytes], data: bytes) -> list[bytes]:
    """What comes to a gate, each behind its name and a line's end; an offer's name is empty."""
    return [name.encode() + b"\n" + each for name, each in (*files.items(), ("", data))]


def _gate(folder: Path, fleet: SignedFleet, data: bytes) -> Callable[[bytes], object]:
    """A device's gate, offered everything else that is needed: it raises nothing, and lets what is listed through."""
    files = fleet.files()

    def feed(spoilt: bytes) -> object:
        shutil.rmtree(folder, ignore_errors=True)
        store = TrustStore(folder, fleet.root, _Unsynced())
        gate = Gate(TASK, DEVICE, Topics(FLEET), store, lambda _: None, NOW.timestamp)
        name, _, rest = spoilt.partition(b"\n")
        told = gate.offer(ReleaseTopic(TASK), data if name else rest, 0.0)
        for each, right in files.items():
            told += gate.metadata(each, rest if each.encode() == name else right, 0.0)
        assert all(each.data == data for each in told if isinstance(each, Offered)), "what nobody listed went through"
        return told

    return feed


def _trust_store(folder: Path, root: bytes, trusted: TrustedMetadata) -> Target:
    """One of two copies is spoilt: the other counts, and no floor falls."""
    store = TrustStore(folder, root, _Unsynced())
    store.keep(trusted)
    store.raise_floor(7)
    path = folder / "trust-a.bin"
    right = path.read_bytes()

    def feed(spoilt: bytes) -> object:
        path.write_bytes(spoilt)
        found = TrustStore(folder, root)
        assert (found.trusted, found.release_floor) == (trusted, 7), "a spoilt copy counts"
        return found

    return Target(feed, [right], (), 5)


class _Unsynced(Disk):
    """A disk that need not outlive this process."""

    def sync(self, file: BinaryIO) -> None:
        """Leave it to the system."""

    def sync_folder(self, folder: Path) -> None:
        """Leave it to the system."""


def pointer(data: bytes, proof: Proof) -> Pointer:
    """A pointer to a release."""
    return Pointer(release=1, template="a" * 64, weights="b" * 64, golden="c" * 64, manifest=data, proof=proof)
