"""Temperatures and what the kernel does about them. Owns no limit: those come from the board's own trip points."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from devices.boards.machine import Machine, whole

_OFFLINE_C: Final = -100.0
_ABSURD_C: Final = 250.0
_CONSTANT: Final = frozenset({"pmic", "pmic-die"})
_SUFFIX: Final = re.compile(r"(?:[-_]?therm(?:al)?|_tegra)$")
_PI_FLAGS: Final = {0: "under-voltage", 1: "frequency-capped", 2: "throttled", 3: "soft-temperature-limit"}


class Zone(msgspec.Struct, frozen=True):
    """One thermal zone.

    Attributes:
        name: ``cpu``, ``gpu``, ``tj`` …, the same for both generations of the kernel's names.
        celsius: None when the sensor is off.
        limit_c: where the kernel begins to slow down or shuts off, the lowest of its trip points; None when unsaid.
    """

    name: str
    celsius: float | None
    limit_c: float | None = None


class Throttling(msgspec.Struct, frozen=True):
    """Whether the board is being slowed down.

    Attributes:
        active: None when the board cannot say.
        reasons: which alerts are on.
        events: over-current or thermal events since the board was switched on; None when it does not count.
    """

    active: bool | None = None
    reasons: tuple[str, ...] = ()
    events: int | None = None


def zone_name(kind: str) -> str | None:
    """One name for ``CPU-therm``, ``cpu-thermal`` and tegrastats' ``CPU``; None for the PMIC, which says a constant."""
    name = _SUFFIX.sub("", kind.strip().lower().replace(" ", "-")) or kind.strip().lower()
    return None if not name or name in _CONSTANT else name


def celsius(value: float | None) -> float | None:
    """A temperature, None for -256 °C and other values by which a kernel says that the sensor is off."""
    return value if value is not None and _OFFLINE_C < value < _ABSURD_C else None


def read_zones(machine: Machine) -> tuple[Zone, ...]:
    """Every thermal zone with a name."""
    zones = []
    for path in machine.find("sys/class/thermal/thermal_zone*/type"):
        name = zone_name(machine.fixed(path) or "")
        if name is not None:
            folder = path.removesuffix("/type")
            zones.append(Zone(name, _milli(machine.text(f"{folder}/temp")), _limit(machine, folder)))
    return tuple(zones)


def hottest(zones: tuple[Zone, ...]) -> float | None:
    """The temperature to watch: the junction's (``tj``) where there is one, else the highest."""
    known = {zone.name: zone.celsius for zone in zones if zone.celsius is not None}
    return known.get("tj", max(known.values(), default=None))


def headroom(zones: tuple[Zone, ...]) -> float | None:
    """Kelvin until the first zone reaches its limit; None when no zone has both."""
    gaps = [zone.limit_c - zone.celsius for zone in zones if zone.celsius is not None and zone.limit_c is not None]
    return min(gaps, default=None)


def read_throttling(machine: Machine) -> Throttling:
    """Ask a Jetson's alerts and over-current counters, a Raspberry Pi's flags, and an x86 CPU's counter."""
    alerts = _alerts(machine) | _pi_alerts(machine)
    reasons = tuple(sorted(name for name, on in alerts.items() if on))
    return Throttling(bool(reasons) if alerts else None, reasons, _events(machine))


def _alerts(machine: Machine) -> dict[str, bool]:
    found = {}
    for path in machine.find("sys/class/thermal/cooling_device*/type"):
        kind = machine.fixed(path) or ""
        if kind.endswith("throttle-alert"):
            state = machine.whole(f"{path.removesuffix('/type')}/cur_state")
            if state is not None:
                found[kind.removesuffix("-throttle-alert")] = state > 0
    return found


def _pi_alerts(machine: Machine) -> dict[str, bool]:
    try:
        flags = int(machine.text("sys/devices/platform/soc/soc:firmware/get_throttled") or "", 16)
    except ValueError:
        return {}
    return {name: bool(flags >> bit & 1) for bit, name in _PI_FLAGS.items()}


def _events(machine: Machine) -> int | None:
    paths = machine.find("sys/class/hwmon/hwmon*/oc*_event_cnt")
    paths = paths or machine.find("sys/devices/system/cpu/cpu0/thermal_throttle/package_throttle_count")
    counts = [machine.whole(path) for path in paths]
    known = [count for count in counts if count is not None and count >= 0]
    return sum(known) if known and len(known) == len(counts) else None


def _limit(machine: Machine, folder: str) -> float | None:
    kinds = {path: machine.fixed(path) for path in machine.find(f"{folder}/trip_point_*_type")}
    slowing = [path.removesuffix("_type") for path, kind in kinds.items() if kind != "active"]  # active: only a fan
    trips = [_milli(machine.fixed(f"{path}_temp")) for path in slowing]
    return min((trip for trip in trips if trip is not None and trip > 0), default=None)


def _milli(text: str | None) -> float | None:
    value = whole(text)
    return None if value is None else celsius(value / 1000)
