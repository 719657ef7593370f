"""Is the board well? Pure: readings in, findings out. Owns no reading; limits are arguments."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from devices.findings import Finding, Level
from devices.telemetry.sampler import Sample
from devices.telemetry.scene import FAULTS, Fault


class HealthLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a reading is a warning and when a failure.

    Attributes:
        headroom_c: kelvin left below a zone's limit; below it a warning, at 0 a failure.
        wear: share of a disk's life used up.
        free: share of the state disk that must stay free; a tenth of it is a failure.
        memory: share of memory that must stay available.
        frame_age_s: age of a camera's last frame; of a slow source's last frame or row, `missed` times its period.
        missed: periods.
        written_bytes_per_day: what a card may be made to take.
    """

    headroom_c: float = 10.0
    wear: float = 0.8
    free: float = 0.1
    memory: float = 0.05
    frame_age_s: float = 10.0
    missed: float = 3.0
    written_bytes_per_day: float = 20e9


DAY_S = 86_400.0
_LEAST_S = 60.0
_SOURCES = (("camera", "frame", "its cable and its address"), ("logger", "row", "its sensors and the file it writes"))
_SIGHT: dict[Fault, str] = {
    "black": "look at the camera: lens cap, cable, power",
    "dark": "more light, or a longer exposure; what the camera sees cannot be judged now",
    "occluded": "look at the camera: something covers a part of its view",
    "blurred": "clean the lens and check the focus",
    "moved": "turn the camera back, or draw the counting lines anew and commission it again",
    "resized": "set the camera's resolution back, or draw the counting lines anew and commission it again",
}


def judge(history: Sequence[Sample], limits: HealthLimits | None = None) -> tuple[Finding, ...]:
    """Judge the last sample, and what was written over all of them.

    Args:
        history: samples, oldest first.
        limits: see there.

    Returns:
        A finding for each thing that could be judged. What could not be read is not judged, and is not called well.
    """
    if not history:
        return ()
    limits, values = limits or HealthLimits(), history[-1].values
    return (
        *_heat(values, limits),
        *_supply(values),
        *_disks(values, limits),
        *_written(history, limits),
        *_clock(values),
        *_sources(values, limits),
    )


def _heat(values: Mapping[str, float], limits: HealthLimits) -> Iterator[Finding]:
    left = values.get("temperature_headroom_celsius")
    if left is not None:
        level: Level = "fail" if left <= 0 else "warn" if left < limits.headroom_c else "ok"
        fix = "" if level == "ok" else "shade or cool the cabinet, clean the fan; or a lower power mode: nvpmodel -m"
        yield Finding("heat", level, f"{left:.1f} K below the nearest limit", fix)
    if "throttled" in values:
        hot = values["throttled"] > 0
        fix = "cool the board or choose a lower power mode: nvpmodel -m" if hot else ""
        yield Finding("throttled", "warn" if hot else "ok", "slowed down" if hot else "not slowed down", fix)


def _supply(values: Mapping[str, float]) -> Iterator[Finding]:
    alarms = {rail: value > 0 for rail, value in _of("over_current", values)}
    if alarms:
        on = [rail for rail, alarm in alarms.items() if alarm]
        fix = "a stronger supply, or a lower power mode: nvpmodel -m" if on else ""
        yield Finding("over-current", "warn" if on else "ok", f"alarm on {', '.join(on)}" if on else "no alarm", fix)


def _disks(values: Mapping[str, float], limits: HealthLimits) -> Iterator[Finding]:
    for disk, wear in _of("disk_wear_ratio", values):
        level: Level = "fail" if wear >= 1 else "warn" if wear >= limits.wear else "ok"
        fix = "" if level == "ok" else f"replace {disk} before it fails; keep a copy of the state directory"
        yield Finding("disk wear", level, f"{disk}: {wear:.0%} of its life used", fix)
    for check, whole, left, share in [
        ("disk room", "state_total_bytes", "state_free_bytes", limits.free),
        ("memory", "memory_total_bytes", "memory_available_bytes", limits.memory),
    ]:
        if values.get(whole, 0) > 0 and left in values:
            free = values[left] / values[whole]
            level = "fail" if free < share / 10 else "warn" if free < share else "ok"
            fix = "" if level == "ok" else "free some: a smaller replay.budget_bytes, fewer other programs, old logs"
            yield Finding(check, level, f"{free:.0%} free", fix)


def _written(history: Sequence[Sample], limits: HealthLimits) -> Iterator[Finding]:
    first, last = history[0], history[-1]
    seconds = last.at_s - first.at_s
    if seconds < _LEAST_S:
        return
    for disk, end in _of("disk_written_bytes_total", last.values):
        begin = first.values.get(f"disk_written_bytes_total.{disk}")
        if begin is not None and end >= begin:
            daily = (end - begin) / seconds * DAY_S
            much = daily > limits.written_bytes_per_day
            fix = (
                "keep logs in memory (Storage=volatile in journald.conf); move state_dir to an NVMe disk"
                if much
                else ""
            )
            yield Finding("disk writes", "warn" if much else "ok", f"{disk}: {daily / 1e9:.2f} GB a day", fix)


def _clock(values: Mapping[str, float]) -> Iterator[Finding]:
    if "clock_synchronized" in values:
        right = values["clock_synchronized"] > 0
        fix = "" if right else "sudo timedatectl set-ntp true"
        yield Finding("clock", "ok" if right else "warn", "synchronised" if right else "not synchronised", fix)


def _sources(values: Mapping[str, float], limits: HealthLimits) -> Iterator[Finding]:
    for check, what, remedy in _SOURCES:
        for name, age in _of(f"{check}_{what}_age_seconds", values):
            period = values.get(f"{check}_{what}_period_seconds.{name}", 0.0)
            stale = age > max(limits.frame_age_s, limits.missed * period)
            fix = f"look at the {check} {name}, {remedy}" if stale else ""
            yield Finding(check, "fail" if stale else "ok", f"{name}: last {what} {age:.1f} s ago", fix)
    for camera, number in _of("camera_view_fault", values):
        if 0 <= number <= len(FAULTS):
            yield view_finding(camera, (None, *FAULTS)[int(number)])


def view_finding(camera: str, fault: Fault | None) -> Finding:
    """Say what is wrong with a camera's view, compared with its commissioning frame."""
    level: Level = "ok" if fault is None else "warn" if fault in {"dark", "resized"} else "fail"
    fix = "" if fault is None else _SIGHT[fault]
    return Finding("view", level, f"{camera}: {fault or 'as when it was commissioned'}", fix)


def _of(metric: str, values: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(name.partition(".")[2], value) for name, value in values.items() if name.startswith(f"{metric}.")]
