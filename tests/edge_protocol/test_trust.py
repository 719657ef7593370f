"""The attacks that signed metadata answers, one test each: what is refused, and under which name."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_models.tasks import load_task
from edge_protocol.blobs import cut
from edge_protocol.errors import TrustError
from edge_protocol.ids import TaskId
from edge_protocol.manifest import Artifact, ReleaseManifest, encode_manifest
from edge_protocol.trust import (
    MAX_METADATA,
    Proof,
    TrustedMetadata,
    check_again,
    clock_floor_s,
    commissioned,
    proven,
    refreshed,
    root_version,
    rotated,
)
from tests.fakes.signed_fleet import SignedFleet, mixed

NOW = 1_800_000_000.0
DAY = 86_400.0
VEHICLE = TaskId("vehicle")
BLOB, _ = cut(b"x")


def manifest(counter: int, task: str = "vehicle", notes: str = "") -> ReleaseManifest:
    """A release of small files."""
    files = (Artifact("nano", "depthwise", BLOB, BLOB, BLOB, 1),)
    return ReleaseManifest("sim", counter, load_task(task), 1.0, files, {}, notes=notes)


def at(seconds: float) -> datetime:
    """A time of day."""
    return datetime.fromtimestamp(seconds, timezone.utc)


def follow(trusted: TrustedMetadata, files: dict[str, bytes], now: float = NOW) -> TrustedMetadata:
    """Take everything, as a device does."""
    return refreshed(rotated(trusted, files), files, VEHICLE, at(now))


def refused(reason: str, trusted: TrustedMetadata, files: dict[str, bytes], now: float = NOW, match: str = ".") -> None:
    """It raises, and says which attack it looks like."""
    with pytest.raises(TrustError, match=match) as caught:
        follow(trusted, files, now)
    assert caught.value.reason == reason


@pytest.fixture
def fleet() -> SignedFleet:
    """A fleet with one release."""
    found = SignedFleet(NOW, ["vehicle", "speed"], roots=3, threshold=2)
    found.release(manifest(1))
    return found


@pytest.fixture
def trusted(fleet: SignedFleet) -> TrustedMetadata:
    """A device that has seen it."""
    return follow(commissioned(fleet.root), fleet.files())


def test_a_listed_release_is_proven_and_again_at_boot_without_a_clock(
    fleet: SignedFleet, trusted: TrustedMetadata
) -> None:
    """The manifest, its proof, and the same answer from disk alone, long after everything expired."""
    data = encode_manifest(manifest(1))
    found, proof = proven(trusted, VEHICLE, data, at(NOW))
    kept = msgspec.json.decode(msgspec.json.encode(proof), type=Proof)
    assert (found, check_again(fleet.root, kept, VEHICLE, data)) == (manifest(1), manifest(1))


def test_arbitrary_software(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """A manifest that nobody listed, or other bytes under a listed number, are no release."""
    for other in (manifest(2), manifest(1, notes="evil")):
        with pytest.raises(TrustError, match=r"release vehicle/\d is not") as caught:
            proven(trusted, VEHICLE, encode_manifest(other), at(NOW))
        assert caught.value.reason == "release-unlisted"
    with pytest.raises(TrustError, match="manifest"):
        proven(trusted, VEHICLE, b"junk", at(NOW))


def test_arbitrary_software_signed_by_a_stranger(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """Every role, signed by a key that nobody delegated to."""
    stranger = SignedFleet(NOW, ["vehicle"])
    refused("metadata-unsigned", trusted, {**stranger.files(), "1.root": fleet.root})


def test_rollback_of_the_timestamp(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """Yesterday's files, all of them genuine, are refused after today's."""
    before = fleet.files()
    fleet.release(manifest(2))
    refused("metadata-rollback", follow(trusted, fleet.files()), before, match="timestamp version")


def test_rollback_of_a_role_by_the_thief_of_the_online_keys(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """Who has snapshot and timestamp key can sign new ones, but not make them name older releases."""
    before = fleet.files()
    fleet.release(manifest(2))
    newest = follow(trusted, fleet.files())
    for name in ("task-vehicle.json", "targets.json"):
        (fleet.folder / "tuf" / name).write_bytes(before[name.removesuffix(".json")])
    fleet.roles.renew(fleet.now)
    refused("metadata-rollback", newest, fleet.files(), match=r"task-vehicle\.json: version")


def test_freeze(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """A broker that keeps new timestamps back holds nobody longer than the last one is good for."""
    late = NOW + 3 * DAY
    refused("metadata-expired", trusted, fleet.files(), late, match="timestamp: version .* expired at 2027-01")
    with pytest.raises(TrustError, match="expired"):
        proven(trusted, VEHICLE, encode_manifest(manifest(1)), at(late))
    fleet.roles.renew(late)
    assert proven(follow(trusted, fleet.files(), late), VEHICLE, encode_manifest(manifest(1)), at(late))


def test_fast_forward_is_undone_by_new_keys(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """A thief of both online keys drives versions to the end of time; a root with other keys lets them begin anew."""

    def far(signed: Any) -> None:
        signed.version = 2**40

    ahead: dict[str, bytes] = mixed(fleet.files(), timestamp=fleet.signed_by(fleet.keys["timestamp"], "timestamp", far))
    stuck = follow(trusted, ahead)
    fleet.release(manifest(2))
    refused("metadata-rollback", stuck, fleet.files())
    for role in ("timestamp", "snapshot"):
        fleet.roles.rotate(role, fleet.draw(role), 1, NOW)
    assert proven(follow(stuck, fleet.files()), VEHICLE, encode_manifest(manifest(2)), at(NOW))


def test_mix_and_match(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """Genuine files of different days do not go together."""
    before = fleet.files()
    fleet.release(manifest(2))
    for name in ("snapshot", "task_vehicle"):
        old: dict[str, bytes] = {name: before[name.replace("_", "-")]}
        refused("metadata-mixed", trusted, mixed(fleet.files(), **old))


def test_wrong_role_key(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """The key of one role is worth nothing for another, and that of one task nothing for another."""
    fleet.release(manifest(2))
    for role, thief in (("timestamp", "snapshot"), ("timestamp", "targets"), ("timestamp", "task-vehicle")):
        forged = mixed(fleet.files(), **{role: fleet.signed_by(fleet.keys[thief], role)})
        refused("metadata-unsigned", trusted, forged)
    evil = encode_manifest(manifest(7))
    fleet.roles.list_release(TaskId("speed"), 7, evil, NOW)
    with pytest.raises(TrustError, match="release vehicle/7 is not listed"):
        proven(follow(trusted, fleet.files()), VEHICLE, evil, at(NOW))


def test_below_threshold(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """One of three root keys, where two must sign, does not make a root; nor does one that signs twice."""
    fleet.roles.rotate("timestamp", fleet.draw("timestamp"), 1, NOW)
    one = fleet.keys["root"][:1]
    for keys in (one, one * 2):
        refused("metadata-unsigned", trusted, {"2.root": fleet.signed_by(keys, "2.root")}, match="1/2 keys")


def test_endless_data(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """What is larger than it may be is refused by its size alone."""
    huge = b'{"signed": ' + b" " * MAX_METADATA
    refused("metadata-oversized", trusted, {"timestamp": huge})
    refused("metadata-oversized", trusted, {"2.root": huge})


def test_root_rotation_takes_the_old_and_the_new_threshold(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """A new root needs two of the old keys and two of the new ones; with either half missing it is none."""
    old = fleet.keys["root"]
    new = fleet.draw("root", 2)
    assert fleet.roles.rotate("root", new, 2, NOW) == 2
    for keys in (old, new, [*old[:1], *new], [*old, *new[:1]]):
        refused("metadata-unsigned", trusted, {"2.root": fleet.signed_by(keys, "2.root")})
    assert root_version(follow(trusted, fleet.files())) == 2


def test_a_device_that_was_away_follows_every_root(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """Three rotations, each of all root keys, in one step; a root in another's place breaks the chain."""
    for _ in range(3):
        fleet.roles.rotate("root", fleet.draw("root", 3), 2, NOW)
    files = fleet.files()
    assert root_version(follow(trusted, files)) == 4
    refused("metadata-unsigned", trusted, {**files, "2.root": files["3.root"]})
    refused("metadata-rollback", trusted, {**files, "2.root": files["1.root"]}, match="root version 1 came where 2")


def test_an_accepted_release_outlives_the_keys_that_signed_it(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """After every key was rotated the proof still holds at boot, also for a device commissioned with a later root."""
    data = encode_manifest(manifest(1))
    fleet.roles.delegate(VEHICLE, fleet.draw("task-vehicle"), 1, NOW)
    fleet.roles.rotate("root", fleet.draw("root", 3), 2, NOW)
    _, proof = proven(follow(trusted, fleet.files()), VEHICLE, data, at(NOW))
    for root in ("1.root", "2.root"):
        assert check_again(fleet.files()[root], proof, VEHICLE, data) == manifest(1)
    with pytest.raises(TrustError):
        check_again(SignedFleet(NOW).root, proof, VEHICLE, data)


def test_replayed_metadata_changes_nothing(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """The same retained files again, in any number, are the same trust."""
    assert follow(follow(trusted, fleet.files()), fleet.files()) == trusted


def test_clock_at_2038_and_before_the_floor(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """Far ahead everything has expired; the floor is when the timestamp was signed, and no clock may be below it."""
    refused("metadata-expired", trusted, fleet.files(), 2_147_483_648.0, match="root: version 1 expired")
    assert clock_floor_s(commissioned(fleet.root)) == 0
    assert NOW - DAY < clock_floor_s(trusted) <= NOW


def test_a_timestamp_from_the_future_does_not_raise_the_floor(fleet: SignedFleet, trusted: TrustedMetadata) -> None:
    """Who has the timestamp key cannot make a device distrust its right clock."""

    def ahead(signed: Any) -> None:
        signed.version += 1
        signed.unrecognized_fields["created"] = int(NOW + DAY)

    forged = fleet.signed_by(fleet.keys["timestamp"], "timestamp", ahead)
    refused("metadata-future", trusted, mixed(fleet.files(), timestamp=forged))


@pytest.mark.parametrize("lost", ["timestamp", "snapshot", "targets", "task-vehicle"])
def test_what_has_not_come_yet_is_no_attack(fleet: SignedFleet, lost: str) -> None:
    """Retained files come in any order: while one lacks, nothing is trusted and nobody is accused."""
    files = fleet.files()
    del files[lost]
    refused("metadata-missing", commissioned(fleet.root), files)


@given(st.sampled_from(["2.root", "timestamp", "snapshot", "targets", "task-vehicle"]), st.data())
def test_damaged_files_are_refused_and_never_crash(name: str, draw: st.DataObject) -> None:
    """A byte changed anywhere, or junk, in any role: a `TrustError`, unless nothing signed was changed."""
    files = _files()
    data = bytearray(files[name])
    if draw.draw(st.booleans()):
        data[draw.draw(st.integers(0, len(data) - 1))] ^= draw.draw(st.integers(1, 255))
    else:
        data = bytearray(draw.draw(st.binary(max_size=200)))
    with suppress(TrustError):
        found = follow(commissioned(files["1.root"]), {**files, name: bytes(data)})
        assert proven(found, VEHICLE, encode_manifest(manifest(1)), at(NOW))[0] == manifest(1)


_KEPT: dict[str, bytes] = {}


def _files() -> dict[str, bytes]:
    if not _KEPT:
        fleet = SignedFleet(NOW, ["vehicle"])
        fleet.roles.rotate("root", fleet.draw("root"), 1, NOW)
        fleet.release(manifest(1))
        _KEPT.update(fleet.files())
    return _KEPT
