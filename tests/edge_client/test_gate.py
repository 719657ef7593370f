"""The gate between link and brain: what is let through, what waits, what is refused, whatever clock and disk do."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from edge_client.effects import Offered, Unproven
from edge_client.gate import AGAIN_S, PATIENCE_S, Admission, Gate
from edge_client.trust_store import TrustStore
from edge_protocol.effects import Drop
from edge_protocol.ids import DeviceId, FleetId, TaskId
from edge_protocol.manifest import encode_manifest
from edge_protocol.topics import ReleaseTopic, Topics
from edge_protocol.trust import MAX_METADATA, root_version
from tests.edge_client.test_trust_store import NOW, manifest
from tests.fakes.clock import FakeClock
from tests.fakes.signed_fleet import SignedFleet

VEHICLE = TaskId("vehicle")
FLEETS = ReleaseTopic(VEHICLE)
OWN = ReleaseTopic(VEHICLE, DeviceId("cam-1"))
DAY = 86_400.0


class Bench:
    """A gate with a fleet that signs, a clock that is told, and what was subscribed to."""

    def __init__(self, folder: Path) -> None:
        self.fleet, self.clock, self.asked = SignedFleet(NOW, ["vehicle", "speed"]), FakeClock(NOW), list[str]()
        self.folder, self.now = folder, 100.0
        self.boot()

    def boot(self) -> None:
        """Start (again) from what is on the disk."""
        self.store = TrustStore(self.folder, self.fleet.root)
        self.gate = Gate(VEHICLE, DeviceId("cam-1"), Topics(FleetId("sim")), self.store, self.asked.extend, self.clock)

    def send(self, files: dict[str, bytes]) -> list[Admission]:
        """Metadata come."""
        return [told for name, data in files.items() for told in self.gate.metadata(name, data, self.now)]

    def offer(self, counter: int, topic: ReleaseTopic = FLEETS) -> list[Admission]:
        """An offer comes."""
        return self.gate.offer(topic, encode_manifest(manifest(counter)), self.now)

    def wait(self, seconds: float) -> list[Admission]:
        """Let time pass, by both clocks, and tick."""
        self.now += seconds
        self.clock.advance(seconds)
        return self.gate.tick(self.now)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A device that has heard nothing yet, of a fleet with one release."""
    made = Bench(tmp_path)
    made.fleet.release(manifest(1))
    return made


def let_through(told: Iterable[Admission]) -> list[int]:
    """Counters of releases that were let through."""
    return [each.manifest.counter for each in told if isinstance(each, Offered)]


def reasons(told: Iterable[Admission]) -> list[str]:
    """Why something was refused."""
    return [each.reason for each in told if isinstance(each, Drop)]


def test_order_does_not_matter(bench: Bench) -> None:
    """Metadata and offer in any order: the release is let through once, with its proof, and nobody is accused."""
    for seed in range(20):
        bench.folder = bench.folder / str(seed)
        bench.boot()
        steps: list[Callable[[], list[Admission]]] = [
            *(lambda name=name, data=data: bench.gate.metadata(name, data, bench.now)
              for name, data in bench.fleet.files().items()),
            lambda: bench.offer(1),
        ]  # fmt: skip
        Random(seed).shuffle(steps)
        told = [each for step in steps for each in step()]
        assert (let_through(told), reasons(told)) == ([1], [])


def test_an_offer_that_nothing_proves_is_told_once_and_goes_on_waiting(bench: Bench) -> None:
    """Arbitrary software is never let through; a release whose metadata were late is."""
    assert bench.offer(2) == []
    bench.send(bench.fleet.files())
    (told,) = bench.wait(PATIENCE_S)
    assert isinstance(told, Unproven)
    assert "vehicle/2 is not listed" in told.reason
    assert bench.wait(PATIENCE_S) == []
    bench.fleet.release(manifest(2))
    assert let_through(bench.send(bench.fleet.files())) == [2]


def test_only_what_was_asked_for_is_kept(bench: Bench) -> None:
    """Endless data: roots far ahead, other tasks' roles and files beyond the bound take no memory and no time."""
    huge = b" " * (MAX_METADATA + 1)
    assert reasons(bench.send({"timestamp": huge})) == ["metadata-oversized"]
    assert bench.send({"9.root": b"{}", "task-speed": b"{}", "1.root": b"{}"}) == []
    assert bench.gate._received == {}
    for topic in (ReleaseTopic(VEHICLE, DeviceId("cam-2")), ReleaseTopic(TaskId("speed"))):
        assert reasons(bench.offer(1, topic)) == ["wrong-topic"]
    assert bench.gate._offers == {}


def test_a_device_asks_for_one_root_after_the_other(bench: Bench, tmp_path: Path) -> None:
    """It subscribes to the root after its newest, and to the next when that has come."""
    topics = Topics(FleetId("sim"))
    names = ("2.root", "timestamp", "snapshot", "targets", "task-vehicle")
    assert bench.gate.topics() == [topics.metadata(name) for name in names]
    for _ in range(2):
        bench.fleet.roles.rotate("root", bench.fleet.draw("root"), 1, NOW)
    files = bench.fleet.files()
    bench.send({"2.root": files["2.root"]})
    assert bench.asked == [topics.metadata("3.root")]
    bench.send({"3.root": files["3.root"]})
    bench.boot()
    assert root_version(bench.store.trusted) == 3, "roots are kept, whatever becomes of the rest"


@pytest.mark.parametrize("shown", [0.0, 1_000_000_000.0, NOW - DAY])
def test_a_clock_that_cannot_be_right_extends_no_trust(bench: Bench, shown: float) -> None:
    """At 1970, or before what was signed last: nothing new is taken, the device says why until it is set."""
    bench.send(bench.fleet.files())
    before = bench.store.trusted
    bench.fleet.release(manifest(2))
    bench.clock.now = shown
    assert reasons(bench.send(bench.fleet.files())) == ["clock-untrusted"]
    bench.offer(2)
    (told,) = bench.wait(PATIENCE_S)
    assert isinstance(told, Unproven)
    assert "this clock shows" in told.reason
    assert bench.store.trusted == before
    bench.clock.now = NOW + 60
    assert let_through(bench.wait(AGAIN_S)) == [2]


def test_new_keys_end_what_a_wrong_clock_of_the_whole_site_began(bench: Bench) -> None:
    """Server and device were 200 days ahead: the device waits that long, unless root names another timestamp key.

    So it does after a restart, and rotating root alone, or another role, lowers no floor.
    """
    roles = bench.fleet.roles
    bench.clock.advance(200 * DAY)
    roles.renew(bench.clock())
    bench.send(bench.fleet.files())
    bench.clock.now = NOW + 60
    bench.fleet.release(manifest(2))
    roles.renew(NOW)
    for role in ("root", "snapshot"):
        roles.rotate(role, bench.fleet.draw(role), 1, NOW)
        bench.send(bench.fleet.files())
        assert let_through(bench.offer(2)) == []
        assert bench.store.clock_floor_s > NOW + 199 * DAY
    assert root_version(bench.store.trusted) == 3, "roots are followed, whatever the clock shows"
    bench.boot()
    bench.offer(2)
    roles.rotate("timestamp", bench.fleet.draw("timestamp"), 1, NOW)
    told = bench.send(bench.fleet.files())
    assert let_through(told) == [2]
    assert NOW - DAY < bench.store.clock_floor_s < NOW


def test_a_clock_at_2038_takes_nothing_and_spoils_nothing(bench: Bench) -> None:
    """Everything has expired by then; when the clock is set right the device goes on where it was."""
    bench.clock.now = 2_147_483_648.0
    told = bench.send(bench.fleet.files())
    assert set(reasons(told)) == {"metadata-expired"}
    assert let_through(bench.offer(1)) == []
    bench.clock.now = NOW
    assert let_through(bench.wait(AGAIN_S)) == [1]


def test_a_freeze_ends_with_the_timestamp_and_outlives_a_restart(bench: Bench) -> None:
    """An offer of what is listed is refused once the timestamp has expired, by a device that was started again too."""
    bench.send(bench.fleet.files())
    bench.boot()
    assert let_through(bench.offer(1)) == [1]
    bench.clock.advance(4 * DAY)
    assert let_through(bench.offer(1, OWN)) == []
    (told,) = [each for each in bench.wait(PATIENCE_S) if isinstance(each, Unproven)]
    assert "timestamp" in told.reason
    assert "expired" in told.reason
    bench.fleet.roles.renew(bench.clock())
    assert let_through(bench.send(bench.fleet.files())) == [1]


def test_replayed_metadata_and_offers_are_refused_after_a_restart(bench: Bench) -> None:
    """Yesterday's retained messages, all genuine: refused by what the disk remembers."""
    yesterday = bench.fleet.files()
    bench.fleet.release(manifest(2))
    bench.send(bench.fleet.files())
    bench.store.raise_floor(2)
    bench.boot()
    assert set(reasons(bench.send(yesterday))) == {"metadata-rollback"}
    assert reasons(bench.offer(1)) == ["old-release"]
    assert let_through(bench.offer(2)) == [2], "the release that ran here may be fetched again"


def test_a_full_disk_extends_no_trust_and_loses_no_offer(bench: Bench, tmp_path: Path) -> None:
    """What could not be written is not believed; once there is room it is."""
    (tmp_path / "trust-a.bin.tmp").mkdir(parents=True)
    assert set(reasons(bench.send(bench.fleet.files()))) == {"trust-unwritten"}
    assert let_through(bench.offer(1)) == []
    (tmp_path / "trust-a.bin.tmp").rmdir()
    assert let_through(bench.wait(AGAIN_S)) == [1]


def test_the_same_trouble_is_counted_once(bench: Bench) -> None:
    """A broker that repeats a forged timestamp does not fill the log."""

    def far(signed: Any) -> None:
        signed.version += 1

    stranger = bench.fleet.draw("snapshot")
    bench.send(bench.fleet.files())
    forged = [bench.fleet.signed_by(stranger, "timestamp", far) for _ in range(3)]
    assert reasons([each for data in forged for each in bench.send({"timestamp": data})]) == ["metadata-unsigned"]
