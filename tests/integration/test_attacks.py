"""What a hostile broker can do to a real agent: the attacks of The Update Framework's specification, over MQTT topics.

Each is refused under the name that `docs/security.md` gives it, and the release that serves goes on serving.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_client.trust_store import TrustStore
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.ids import DeviceId
from edge_protocol.manifest import encode_manifest
from edge_protocol.trust import MAX_METADATA, root_version
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.fakes.clock import FakeClock
from tests.fakes.signed_fleet import SignedFleet
from tests.fakes.small_centre import artifact_files, manifest_of, signed_fleet

DAY = 86_400.0
SPEC = load_task("vehicle")


class Attacked(DeviceRig):
    """A device that runs release 1, whose broker then does as it likes."""

    clock: FakeClock

    def has_release(self, counter: int) -> None:
        """Turn until it serves."""
        self.until(lambda: self.agent.core.running.release == counter, f"release {counter}")

    def refuses(self, reason: str) -> None:
        """Turn until a refusal was counted; the release goes on serving."""
        self.until(lambda: self.agent.carry._hands.drops[reason], reason)
        assert self.agent.core.running.release
        assert self.agent.inference.bundle is not None

    def publish(self, **files: bytes) -> None:
        """Whatever the attacker likes, retained."""
        self.centre.metadata({name.replace("_", "-"): data for name, data in files.items()})

    def offer(self, counter: int, *, own: bool = False) -> None:
        """A manifest that nobody listed, or an old one."""
        manifest, _ = manifest_of(counter, {"nano": artifact_files(seed=1)}, spec=SPEC)
        topic = self.centre.topics.release(SPEC.task_id, DeviceId("cam-1") if own else None)
        self.centre.say(topic, m.ReleaseOffer(encode_manifest(manifest)), retain=True)


@pytest.fixture
def device(tmp_path: Path) -> Iterator[Attacked]:
    """A device on release 1."""
    signed_fleet.cache_clear()  # what is rotated and forged here is nobody else's
    clock = FakeClock(time.time())
    made = Attacked(device_config(tmp_path), wall=clock)
    made.clock = clock
    made.centre.release(1, {"nano": artifact_files()})
    made.has_release(1)
    yield made
    made.close()
    signed_fleet.cache_clear()


def test_arbitrary_software_on_either_topic(device: Attacked) -> None:
    """A manifest that nobody listed waits for a proof that never comes, and nothing of it is fetched."""
    for own in (False, True):
        device.offer(7, own=own)
    device.centre.release(2, {"nano": artifact_files(seed=2)})
    device.offer(7)
    device.has_release(2)
    assert device.agent.core.stage == "committed"


def test_replay_and_rollback_of_everything_retained(device: Attacked) -> None:
    """A broker that brings back all of yesterday's messages: refused, also after a restart, also without pointers."""
    yesterday = signed_fleet().files()
    first = artifact_files()
    device.centre.release(2, {"nano": artifact_files(seed=2)})
    device.has_release(2)
    device.centre.metadata(yesterday)
    device.refuses("metadata-rollback")
    device.agent.close()
    for pointer in (Path(device.config.state_dir) / "vehicle").glob("*.json"):
        pointer.unlink()
    device.boot()
    manifest, blobs = manifest_of(1, {"nano": first}, spec=SPEC)
    for ref, chunks in blobs.items():
        device.centre.blob(ref, chunks)
    offer = m.ReleaseOffer(encode_manifest(manifest))
    device.centre.say(device.centre.topics.release(SPEC.task_id), offer, retain=True)
    device.until(lambda: device.agent.carry._hands.drops["old-release"], "refusal below the floor")
    device.centre.release(2, {"nano": artifact_files(seed=2)})
    device.has_release(2)


def test_freeze(device: Attacked) -> None:
    """A broker that keeps new timestamps back, and offers what is listed, is refused once the last one has expired."""
    manifest, _ = manifest_of(2, {"nano": artifact_files(seed=2)}, spec=SPEC)
    signed_fleet().release(manifest)
    device.publish(**signed_fleet().files())
    device.clock.advance(4 * DAY)
    device.centre.say(
        device.centre.topics.release(SPEC.task_id), m.ReleaseOffer(encode_manifest(manifest)), retain=True
    )
    device.refuses("metadata-expired")
    assert device.agent.core.running.release == 1


def test_mix_and_match(device: Attacked) -> None:
    """A new timestamp with the old list of releases."""
    old = signed_fleet().files()
    signed_fleet().release(manifest_of(2, {"nano": artifact_files(seed=2)}, spec=SPEC)[0])
    new = signed_fleet().files()
    device.publish(snapshot=new["snapshot"], task_vehicle=old["task-vehicle"], timestamp=new["timestamp"])
    device.refuses("metadata-mixed")


def test_wrong_role_key_and_stranger(device: Attacked) -> None:
    """A timestamp signed by the task's key, and one by a stranger's."""

    def next_version(signed: Any) -> None:
        signed.version += 1

    fleet = signed_fleet()
    device.publish(timestamp=fleet.signed_by(fleet.keys["task-vehicle"], "timestamp", next_version))
    device.refuses("metadata-unsigned")
    device.publish(timestamp=SignedFleet().files()["timestamp"])
    device.centre.release(2, {"nano": artifact_files(seed=2)})
    device.has_release(2)


def test_endless_data(device: Attacked) -> None:
    """Files beyond the bound are refused by size, roots far ahead are never asked for."""
    device.publish(timestamp=b" " * (MAX_METADATA + 1), **{"99.root": b"{}"})
    device.refuses("metadata-oversized")


def test_root_rotation_below_its_threshold_and_with_it(device: Attacked) -> None:
    """A root signed by the new keys alone is refused; by old and new ones it is followed, twice, after a restart."""
    fleet = signed_fleet()
    new = fleet.draw("root", 2)
    fleet.roles.rotate("root", new, 2, device.clock())
    device.publish(**{"2.root": fleet.signed_by(new, "2.root")})
    device.refuses("metadata-unsigned")
    fleet.roles.rotate("timestamp", fleet.draw("timestamp"), 1, device.clock())
    device.agent.close()
    device.boot()
    device.centre.release(2, {"nano": artifact_files(seed=2)})
    device.has_release(2)
    folder = Path(device.config.state_dir) / "vehicle"
    assert root_version(TrustStore(folder, fleet.root).trusted) == 3


def test_fast_forward_is_recovered_from(device: Attacked) -> None:
    """After a thief's timestamp from the end of time, keys are rotated and releases come again."""

    def far(signed: Any) -> None:
        signed.version = 2**40

    fleet = signed_fleet()
    device.publish(timestamp=fleet.signed_by(fleet.keys["timestamp"], "timestamp", far))
    device.centre.release(2, {"nano": artifact_files(seed=2)})
    device.refuses("metadata-rollback")
    for role in ("timestamp", "snapshot"):
        fleet.roles.rotate(role, fleet.draw(role), 1, device.clock())
    device.centre.metadata(fleet.files())
    device.has_release(2)


@pytest.mark.parametrize(("shown", "reason"), [(0.0, "clock-untrusted"), (2_147_483_648.0, "metadata-expired")])
def test_clock_at_1970_and_2038(device: Attacked, shown: float, reason: str) -> None:
    """The device serves, says that its clock cannot be right, takes nothing, and goes on once it is set."""
    right, device.clock.now = device.clock.now, shown
    device.centre.release(2, {"nano": artifact_files(seed=2)})
    device.refuses(reason)
    device.agent.close()
    device.boot()
    assert device.agent.core.running.release == 1, "a boot asks no clock"
    device.clock.now = right
    device.has_release(2)


def test_a_clock_below_the_floor_is_said_in_every_header(device: Attacked) -> None:
    """A clock that shows less than what was signed last is not trusted, though it is after the year of the software."""
    header = device.agent._uplink._stamp.header
    assert header().clock_trusted
    fleet = signed_fleet()
    fleet.roles.renew(device.clock() + 2 * DAY)
    device.clock.advance(2 * DAY)
    device.centre.metadata(fleet.files())
    device.until(lambda: not header().clock_trusted, "distrust of this machine's clock, which is two days behind")
