"""Liveness: from births, silence and last wills to ONLINE, STALE and OFFLINE."""

from __future__ import annotations

import pytest

from broker_server.registry import TABLE, Device, DeviceEvent, DeviceStatus, Registry
from edge_protocol import messages as m
from edge_protocol.errors import IllegalTransitionError
from edge_protocol.ids import DeviceId, TaskId

BIRTH = m.Birth("board", "1", "ort", 4, 1 << 30, (m.RunningTask("t", "space", "nano", "net", 3),))


def header(sender: str = "cam-1", boot: bytes = b"12345678", sequence: int = 0) -> m.Header:
    """A header of this sender."""
    return m.Header("f", sender, bytes(16), boot, sequence, 0.0, True)


def registry(limit: int = 10) -> Registry:
    """Stale after 10 s, offline after 20 more."""
    return Registry(stale_after_s=10, offline_after_s=20, max_devices=limit)


def born(devices: Registry, name: str = "cam-1", now: float = 0.0) -> Device:
    """Register a device."""
    device = devices.born(header(name), BIRTH, now)
    assert device is not None
    return device


def test_silence_makes_a_device_stale_then_offline() -> None:
    """Each silence has its own patience, and the deadlines say when to look."""
    devices = registry()
    device = born(devices)
    assert devices.next_deadline() == 10
    assert devices.quiet(9.9) == []
    assert (devices.quiet(10), device.status, device.present) == ([device], DeviceStatus.STALE, True)
    assert devices.next_deadline() == 30
    assert (devices.quiet(30), device.status, device.present) == ([device], DeviceStatus.OFFLINE, False)
    assert devices.next_deadline() is None


def test_any_message_brings_a_device_back() -> None:
    """Stale and offline devices are online as soon as they are heard."""
    devices = registry()
    device = born(devices)
    devices.quiet(10)
    assert devices.fire(device, DeviceEvent.HEARD, 11)
    assert devices.fire(device, DeviceEvent.GONE, 12)
    assert devices.fire(device, DeviceEvent.HEARD, 13)
    assert not devices.fire(device, DeviceEvent.HEARD, 14)
    assert (device.status, device.seen_s, devices.next_deadline()) == (DeviceStatus.ONLINE, 14, 24)


def test_the_quietest_come_first_whatever_the_order_of_births() -> None:
    """A device that spoke lately is not moved with those that did not."""
    devices = registry()
    first, second = born(devices, "a", 0), born(devices, "b", 1)
    devices.fire(first, DeviceEvent.HEARD, 5)
    assert devices.quiet(11.5) == [second]
    assert devices.next_deadline() == 15


def test_a_retired_device_is_not_born_again() -> None:
    """Retirement is final: births are refused and any other event is illegal."""
    devices = registry()
    device = born(devices)
    devices.fire(device, DeviceEvent.RETIRE, 1)
    assert devices.born(header(), BIRTH, 2) is None
    with pytest.raises(IllegalTransitionError, match="retired"):
        devices.fire(device, DeviceEvent.HEARD, 3)
    assert device.status is DeviceStatus.RETIRED


def test_a_full_fleet_takes_no_stranger_but_its_own() -> None:
    """The limit counts names, not births."""
    devices = registry(limit=1)
    born(devices)
    assert devices.born(header("cam-2"), BIRTH, 0) is None
    assert devices.born(header(boot=b"another0"), BIRTH, 1) is devices.devices[DeviceId("cam-1")]


def test_a_new_boot_starts_its_sequence_anew_and_keeps_what_was_deployed() -> None:
    """Sequences are compared within a boot; messages of another boot are never newer."""
    devices = registry()
    device = born(devices)
    assert device.newer(header(sequence=5), "state/t")
    assert not device.newer(header(sequence=5), "state/t")
    assert device.newer(header(sequence=4), "telemetry")
    devices.born(header(boot=b"another0"), BIRTH, 1)
    assert not device.newer(header(sequence=6), "state/t")
    assert device.newer(header(boot=b"another0", sequence=0), "state/t")


def test_a_record_brings_a_device_back_as_stale() -> None:
    """After a restart nobody knows who is there: who was is waited for as if stale, who was not stays away."""
    before, after = registry(), registry()
    here, gone = born(before, "here"), born(before, "gone")
    before.fire(gone, DeviceEvent.GONE, 5)
    for device in (here, gone):
        after.restore(device.record(), 100)
    assert after.devices[DeviceId("here")].status is DeviceStatus.STALE
    assert after.devices[DeviceId("gone")].status is DeviceStatus.OFFLINE
    assert after.devices[DeviceId("here")].tasks[TaskId("t")].release == 3
    assert after.next_deadline() == 120


def test_every_state_but_the_last_can_be_left() -> None:
    """The table has no dead end, and every state is reached."""
    assert {state for state, _ in TABLE} == set(DeviceStatus)
    assert set(TABLE.values()) == set(DeviceStatus) - {DeviceStatus.UNKNOWN}
