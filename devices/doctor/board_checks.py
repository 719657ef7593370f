"""Checks of what a probe found: board, system, power, clock, disks, memory. Pure."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Final

from devices.boards import BoardFacts, board_of, jetpack_of
from devices.boards.storage import Disk
from devices.boards.thermal import headroom, hottest
from devices.findings import Finding

PYTHON: Final = (3, 10)
_HEADROOM_C: Final = 10.0
_WEAR: Final = 0.8
_GIB: Final = 1 << 30


def check_board(facts: BoardFacts, floor_s: float, now_s: float, *, tls: bool) -> tuple[Finding, ...]:
    """Everything that can be said from the probe alone.

    Args:
        facts: what was found.
        floor_s: no time before this can be right, seconds since 1970.
        now_s: what the clock shows.
        tls: certificates are checked, so that the clock must be right.
    """
    return (
        _board(facts),
        *_l4t(facts),
        *_power(facts),
        *_heat(facts),
        check_clock(facts, floor_s, now_s, tls=tls),
        *_storage(facts),
    )


def check_python(version: str | None, glibc: str | None) -> Finding:
    """Python is new enough.

    Args:
        version: such as ``3.10.12``; None when there is none.
        glibc: its C library.
    """
    parts = tuple(int(part) for part in (version or "").split(".")[:2] if part.isdecimal())
    says = f"{version or 'none found'}{f', glibc {glibc}' if glibc else ''}"
    if parts >= PYTHON:
        return Finding("python", "ok", says)
    fix = f"a Python {PYTHON[0]}.{PYTHON[1]} or newer: a newer JetPack, a container, or your own build"
    return Finding("python", "fail", says, fix)


def check_clock(facts: BoardFacts, floor_s: float, now_s: float, *, tls: bool) -> Finding:
    """The clock can be trusted: TLS fails with a clock before the certificate's first day."""
    shown = datetime.fromtimestamp(now_s, timezone.utc).strftime("%Y-%m-%d %H:%M UTC")
    fix, hardware = "sudo timedatectl set-ntp true", facts.clock.hardware
    if now_s < floor_s:
        says = f"shows {shown}, which cannot be right" + ("; TLS will refuse every certificate" if tls else "")
        return Finding("clock", "fail" if tls else "warn", says, fix, safe=True)
    match facts.clock.synchronised:
        case True:
            return Finding("clock", "ok", f"synchronised, {shown}")
        case False:
            lost = "" if hardware else "; no battery-backed clock: it starts anywhere after a power cut"
            return Finding("clock", "warn", f"not synchronised, {shown}{lost}", fix, safe=True)
        case _:
            return Finding("clock", "warn", f"{shown}; nothing here says whether it is kept right", "install chrony")


def _board(facts: BoardFacts) -> Finding:
    profile = board_of(facts.model, facts.parts, facts.machine)
    cores = f"{facts.cores} cores" if facts.cores else "cores unknown"
    memory = f"{facts.memory.total / _GIB:.1f} GiB" if facts.memory.total else "memory unknown"
    name = facts.model or facts.processor or "unknown board"
    says = f"{name}, {facts.machine or 'unknown processor'}, {cores}, {memory}"
    if profile is None:
        return Finding("board", "warn", says, "roadcast devices record DIR, and send us the folder")
    return Finding("board", "ok", f"{says}; fits tier {profile.tier}")


def _l4t(facts: BoardFacts) -> tuple[Finding, ...]:
    profile = board_of(facts.model, facts.parts, facts.machine)
    if profile is None or not profile.l4t:
        return ()
    if facts.l4t is None:
        fix = "is this NVIDIA's own image? dpkg-query -W nvidia-l4t-core"
        return (Finding("l4t", "warn", "no release of L4T found", fix),)
    jetpack = jetpack_of(facts.l4t.major)
    if jetpack is None:
        return (Finding("l4t", "warn", f"{facts.l4t}, newer than what is known here", "a newer Roadcast"),)
    return (Finding("l4t", "ok", f"{facts.l4t}, JetPack {jetpack.jetpack}"),)


def _power(facts: BoardFacts) -> tuple[Finding, ...]:
    found = []
    mode = facts.power_mode
    if mode is not None:
        others = f" of {', '.join(mode.choices.values())}" if mode.choices else ""
        held = "; it holds the clocks back" if mode.is_largest is False else ""
        says = f"{mode.name or 'name unknown'}, number {mode.number}{others}{held}"
        found.append(
            Finding("power mode", "ok" if mode.name else "warn", says, "" if mode.name else "sudo nvpmodel -q")
        )
    alarms = [rail.name for rail in facts.rails if rail.over_current]
    if alarms:
        fix = "a stronger supply, or a lower power mode: sudo nvpmodel -m"
        found.append(Finding("over-current", "warn", f"alarm on {', '.join(alarms)}", fix))
    return tuple(found)


def _heat(facts: BoardFacts) -> tuple[Finding, ...]:
    warm, left = hottest(facts.zones), headroom(facts.zones)
    slowed, events = facts.throttling.active, facts.throttling.events
    if warm is None and slowed is None:
        return ()
    says = ", ".join(
        part
        for part in (
            f"{warm:.1f} °C" if warm is not None else "",
            f"{left:.1f} K below the nearest limit" if left is not None else "",
            f"slowed down: {', '.join(facts.throttling.reasons)}" if slowed else "",
            f"{events} throttle events since the start" if events else "",
        )
        if part
    )
    bad = slowed or (left is not None and left < _HEADROOM_C)
    fix = "shade or cool the cabinet, clean the fan; or a lower power mode"
    return (Finding("heat", "warn" if bad else "ok", says or "not slowed down", fix if bad else ""),)


def _storage(facts: BoardFacts) -> tuple[Finding, ...]:
    root = facts.root
    if root is None:
        return ()
    disk = next((disk for disk in facts.disks if root.device.startswith(f"/dev/{disk.name}")), None)
    room = f", {root.free / root.bytes:.0%} free" if root.bytes and root.free is not None else ""
    says = f"{root.device} {_kind(disk)}{root.filesystem}{' read-only' if root.read_only else ''}{room}"
    if root.read_only:
        fix = "if this is not on purpose the disk is failing: dmesg, then replace it"
        return (Finding("storage", "warn", says, fix),)
    if disk is not None and disk.kind == "sd":
        return (
            Finding("storage", "warn", f"{says}; SD cards wear out unseen", "put state_dir on an NVMe or USB disk"),
        )
    if disk is not None and disk.wear is not None and disk.wear >= _WEAR:
        worn = f"{says}; {disk.wear:.0%} of its life used"
        return (Finding("storage", "fail" if disk.wear >= 1 else "warn", worn, f"replace {disk.name} soon"),)
    return (Finding("storage", "ok", says),)


def _kind(disk: Disk | None) -> str:
    return f"{disk.kind} " if disk is not None and disk.kind else ""
