"""What the server signs: in time, after a crash too, and only with keys that are here."""

from __future__ import annotations

import sys
from datetime import datetime, timezone
from itertools import count
from pathlib import Path

import pytest

from broker_server.config import TrustConfig
from broker_server.key_setup import refusals
from broker_server.keys import KeyFolder, Keys
from broker_server.signed_roles import MAX_LISTED, SignedRoles
from edge_protocol.errors import NotReadyError, StoreError
from edge_protocol.ids import TaskId
from edge_protocol.manifest import encode_manifest
from edge_protocol.trust import commissioned, proven, refreshed, rotated
from tests.edge_client.test_trust_store import NOW, manifest
from tests.fakes.signed_fleet import SignedFleet

DAY = 86_400.0
VEHICLE = TaskId("vehicle")


@pytest.fixture
def fleet() -> SignedFleet:
    """A fleet with one release."""
    made = SignedFleet(NOW, ["vehicle"])
    made.release(manifest(1))
    return made


def accepted(fleet: SignedFleet, counter: int, now: float = NOW) -> bool:
    """Whether a newcomer takes a release."""
    files, at = fleet.files(), datetime.fromtimestamp(now, timezone.utc)
    trusted = refreshed(rotated(commissioned(fleet.root), files), files, VEHICLE, at)
    return proven(trusted, VEHICLE, encode_manifest(manifest(counter)), at)[0].counter == counter


def versions(fleet: SignedFleet) -> dict[str, int]:
    """Version by role."""
    return {row["role"]: row["version"] for row in fleet.roles.status()}


def test_a_server_that_runs_for_a_year_is_never_refused(fleet: SignedFleet) -> None:
    """Renewed every half day, what needs it is signed again in time, and not before half of its life."""
    for half_days in range(700):
        now = NOW + half_days * DAY / 2
        fleet.roles.renew(now)
        if half_days % 50 == 0:
            assert accepted(fleet, 1, now)
    assert versions(fleet)["timestamp"] < 350 / 1.5 + 350 / 7 + 10
    assert versions(fleet)["snapshot"] < 350 / 7 + 10
    assert versions(fleet)["root"] == 1
    assert fleet.roles.renew(NOW + 300 * DAY) == ["root"], "root is signed by people, and its end is told"


def test_what_a_clock_far_ahead_has_signed_is_signed_again(fleet: SignedFleet) -> None:
    """A server that was at 2038 for a while: devices refuse that timestamp, and the next one is good."""
    fleet.now = 2_147_483_648.0
    fleet.release(manifest(2))
    fleet.roles.renew(NOW)
    assert accepted(fleet, 2)


def test_nothing_is_signed_that_is_still_good(fleet: SignedFleet) -> None:
    """Asking again changes no byte."""
    before = fleet.files()
    assert fleet.roles.renew(NOW + 60) == []
    assert fleet.files() == before


@pytest.mark.parametrize("lost", [("timestamp",), ("snapshot", "timestamp"), ("task-vehicle", "snapshot", "timestamp")])
def test_what_a_crash_cut_short_is_made_good(fleet: SignedFleet, lost: tuple[str, ...]) -> None:
    """Files are written one by one, the timestamp last: wherever it stopped, the next renewal ends it."""
    before = fleet.files()
    fleet.release(manifest(2))
    for name in lost:
        (fleet.folder / "tuf" / f"{name}.json").write_bytes(before[name])
    fleet.roles.renew(NOW)
    assert accepted(fleet, 1 if "task-vehicle" in lost else 2)


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_rotated_role_signs_anew_also_after_a_crash(fleet: SignedFleet, role: str) -> None:
    """The root with other keys is out and the role's file is still the old one: the next renewal signs it."""
    before = fleet.files()[role]
    fleet.roles.rotate(role, fleet.draw(role), 1, NOW)
    assert accepted(fleet, 1)
    (fleet.folder / "tuf" / f"{role}.json").write_bytes(before)
    fleet.roles.renew(NOW)
    assert accepted(fleet, 1)


class Killed(BaseException):
    """The process died just before it gave a file its name."""


_renames_left: list[int] = []


def _count(event: str, _arguments: object) -> None:
    if event == "os.rename" and _renames_left:
        _renames_left[0] -= 1
        if _renames_left[0] < 0:
            raise Killed


sys.addaudithook(_count)


def lose(fleet: SignedFleet, *roles: str) -> None:
    """Take private keys away."""
    for pem in [pem for role in roles for pem in (fleet.folder / "keys").glob(f"{role}-*.pem")]:
        pem.unlink()


def rotate_until(fleet: SignedFleet, role: str, renames: int) -> bool:
    """Rotate a role, and die after so many files got their name; return whether it came to its end."""
    keys = fleet.draw(role)
    _renames_left[:] = [renames]
    try:
        fleet.roles.rotate(role, keys, 1, NOW)
    except Killed:
        return False
    finally:
        _renames_left.clear()
    return True


@pytest.mark.parametrize("role", ["targets", "snapshot", "timestamp"])
def test_a_rotation_that_is_killed_anywhere_needs_no_key_of_the_safe(role: str) -> None:
    """After any of its writes, what a server signs again by its own keys is taken by newcomers and by old devices."""
    for renames in count():
        fleet = SignedFleet(NOW, ["vehicle"])
        fleet.release(manifest(1))
        old, at = fleet.files(), datetime.fromtimestamp(NOW, timezone.utc)
        device = refreshed(rotated(commissioned(fleet.root), old), old, VEHICLE, at)
        ended = rotate_until(fleet, role, renames)
        lose(fleet, "root", "targets")
        assert fleet.roles.renew(NOW) == []
        assert refusals(fleet.roles, NOW) == []
        assert accepted(fleet, 1)
        refreshed(rotated(device, fleet.files()), fleet.files(), VEHICLE, at)
        if ended:
            break
    assert renames >= 2


def test_a_role_whose_key_was_lost_gets_another(fleet: SignedFleet) -> None:
    """The keys of root are enough; should that be cut short, the refusal of devices is known here."""
    before = fleet.files()["targets"]
    lose(fleet, "targets")
    fleet.roles.rotate("targets", fleet.draw("targets"), 1, NOW)
    assert accepted(fleet, 1)
    (fleet.folder / "tuf" / "targets.json").write_bytes(before)
    lose(fleet, "targets")
    assert fleet.roles.renew(NOW) == ["targets"]
    (said,) = refusals(fleet.roles, NOW)
    assert said.startswith("targets: not signed by")


def test_what_a_clock_far_ahead_has_signed_is_known_as_refused(fleet: SignedFleet) -> None:
    """What the timestamp says of its time is a day ahead: devices refuse it until the next renewal."""
    fleet.now = NOW + DAY
    fleet.release(manifest(2))
    (said,) = refusals(fleet.roles, NOW)
    assert "timestamp was signed later" in said
    assert refusals(fleet.roles, NOW + DAY) == []


@pytest.mark.parametrize("written", [1, 2, 3, 4])
def test_a_delegation_that_was_cut_short_is_done_again(fleet: SignedFleet, tmp_path: Path, written: int) -> None:
    """After any of its writes a renewal leaves a whole, old or new; asking again ends it."""
    entry = fleet.draw("task-vehicle")
    before = fleet.files()
    fleet.roles.delegate(VEHICLE, entry, 1, NOW)
    order = ["task-vehicle", "targets", "snapshot", "timestamp"]
    for name in order[written:]:
        (fleet.folder / "tuf" / f"{name}.json").write_bytes(before[name])
    assert fleet.roles.renew(NOW) == []
    assert accepted(fleet, 1)
    fleet.roles.delegate(VEHICLE, entry, 1, NOW)
    assert accepted(fleet, 1)


def test_a_first_root_comes_last(fleet: SignedFleet, tmp_path: Path) -> None:
    """A first signing that was cut short before its root is begun again."""
    roles = SignedRoles(tmp_path / "tuf", Keys([fleet.private]), TrustConfig())
    (tmp_path / "tuf").mkdir()
    (tmp_path / "tuf" / "targets.json").write_bytes(SignedFleet(NOW).files()["targets"])
    assert not roles.begun
    roles.begin(fleet.keys, 1, NOW)
    roles.delegate(VEHICLE, fleet.keys["task-vehicle"], 1, NOW)
    assert set(roles.files()) == {"1.root", "task-vehicle", "targets", "snapshot", "timestamp"}


def test_without_a_key_it_says_which_is_missing(fleet: SignedFleet) -> None:
    """A server without root and targets runs on; what needs them is refused, and nothing is changed."""
    entries = KeyFolder(fleet.folder / "keys")._entries()
    for name, role in ((entry.uri.removeprefix("pem:"), entry.name) for entry in entries.values()):
        if role in {"root", "targets"}:
            (fleet.folder / "keys" / name).unlink()
    fleet.release(manifest(2))
    assert accepted(fleet, 2)
    before = fleet.files()
    for act in (
        lambda: fleet.roles.rotate("timestamp", fleet.draw("timestamp"), 1, NOW),
        lambda: fleet.roles.delegate(VEHICLE, fleet.draw("task-vehicle"), 1, NOW),
        lambda: fleet.roles.begin(fleet.keys, 1, NOW),
    ):
        with pytest.raises(NotReadyError, match=r"root|targets"):
            act()
    assert fleet.files() == before
    assert fleet.roles.renew(NOW + 200 * DAY) == ["root", "targets"]


def test_only_the_newest_releases_stay_listed(fleet: SignedFleet) -> None:
    """The list is bounded, and what was taken back is listed no more."""
    data = [encode_manifest(manifest(counter)) for counter in range(MAX_LISTED + 10)]
    for counter in (2, 3, MAX_LISTED + 5):
        fleet.roles.list_release(VEHICLE, counter, data[counter], NOW)
    fleet.roles.list_release(VEHICLE, 4, data[4], NOW, gone=[2, 3])
    listed = [counter for counter in range(1, len(data)) if fleet.roles.lists(VEHICLE, counter, data[counter])]
    assert listed == [1, 4, MAX_LISTED + 5]
    for counter in range(5, MAX_LISTED + 10):
        fleet.roles.list_release(VEHICLE, counter, data[counter], NOW)
    fleet.roles.list_release(VEHICLE, 3, data[3], NOW)
    listed = [counter for counter in range(1, len(data)) if fleet.roles.lists(VEHICLE, counter, data[counter])]
    assert listed == [3, *range(10, MAX_LISTED + 10)], "what is asked for is listed, however old"
    assert not fleet.roles.lists(VEHICLE, 4, data[5])


def test_a_damaged_file_is_named(fleet: SignedFleet, tmp_path: Path) -> None:
    """Torn, or of another role: a StoreError; without a root: how to make one."""
    path = fleet.folder / "tuf" / "targets.json"
    whole = path.read_bytes()
    for data in (whole[:40], fleet.files()["timestamp"]):
        path.write_bytes(data)
        with pytest.raises(StoreError, match=r"targets\.json"):
            fleet.roles.renew(NOW)
    with pytest.raises(NotReadyError, match="roadcast keys init"):
        SignedRoles(tmp_path / "none", Keys([]), TrustConfig()).renew(NOW)
