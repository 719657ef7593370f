"""One line of NVIDIA's `tegrastats`, of any JetPack from 3 to 7. Unknown tokens are ignored. Owns no process."""

from __future__ import annotations

import re
from typing import Final

import msgspec

from devices.boards.power import Power, Rail, real_rail, total
from devices.boards.thermal import celsius, zone_name

_TIME: Final = re.compile(r"\d\d-\d\d-\d{4} \d\d:\d\d:\d\d")
_N: Final = r"([0-9]{1,12})"
_RAM: Final = re.compile(rf"(?<!\S)RAM {_N}/{_N}MB")
_SWAP: Final = re.compile(rf"(?<!\S)SWAP {_N}/{_N}MB")
_CPU: Final = re.compile(rf"(?<!\S)(?:CPU|cpu) \[([^\]]{{0,4000}})\](?:@{_N})?")
_CORE: Final = re.compile(rf"([0-9]{{1,3}})%(?:@{_N})?")
_GPU: Final = re.compile(r"(?<!\S)GR3D(?:_FREQ)? (?:([0-9]{1,3})%)?(?:@\[?([0-9,]{1,60})\]?)?")
_EMC: Final = re.compile(rf"(?<!\S)EMC(?:_FREQ)? (?:([0-9]{{1,3}})%)?(?:@{_N})?")
_ZONE: Final = re.compile(r"(?<!\S)([A-Za-z]\w{0,31})@(-?[0-9]{1,6}(?:\.[0-9]{1,6})?)C(?![^\s/])")
_RAIL: Final = re.compile(rf"(?<!\S)([A-Z]\w{{0,31}}) {_N}(?:mW)?/{_N}(?:mW)?(?:/{_N}(?:mW)?)?(?!\S)")
_MHZ, _MIB = 1_000_000, 1 << 20


class Core(msgspec.Struct, frozen=True):
    """One processor core: share busy from 0 to 1, clock in Hz; both None when it is off."""

    load: float | None = None
    clock_hz: int | None = None


class Tegrastats(msgspec.Struct, frozen=True):
    """What a line says; None for what it does not say.

    Attributes:
        time: local time as it stands there; JetPack 4 and older print none.
        ram_used, ram_total, swap_used, swap_total: bytes.
        cores: every core, off ones included.
        gpu_load, memory_load: share from 0 to 1 of GPU and memory controller.
        gpu_hz, memory_hz: their clocks; the fastest of several GPU clocks.
        zones: temperatures in °C by zone, those that are on.
        rails: watts by rail at this moment.
    """

    time: str | None = None
    ram_used: int | None = None
    ram_total: int | None = None
    swap_used: int | None = None
    swap_total: int | None = None
    cores: tuple[Core, ...] = ()
    gpu_load: float | None = None
    gpu_hz: int | None = None
    memory_load: float | None = None
    memory_hz: int | None = None
    zones: dict[str, float] = {}
    rails: dict[str, float] = {}

    @property
    def power(self) -> Power | None:
        """What the whole board draws."""
        return total(tuple(Rail(name, watts) for name, watts in self.rails.items()))


def parse_tegrastats(line: str) -> Tegrastats:
    """Read a line; what it does not say, or says in a way not known here, stays None."""
    ram, swap, cpu, gpu, emc = (pattern.search(line) for pattern in (_RAM, _SWAP, _CPU, _GPU, _EMC))
    time = _TIME.match(line)
    return Tegrastats(
        time=None if time is None else time[0],
        ram_used=_scaled(ram and ram[1], _MIB),
        ram_total=_scaled(ram and ram[2], _MIB),
        swap_used=_scaled(swap and swap[1], _MIB),
        swap_total=_scaled(swap and swap[2], _MIB),
        cores=() if cpu is None else tuple(_core(part, cpu[2]) for part in cpu[1].split(",")),
        gpu_load=_share(gpu and gpu[1]),
        gpu_hz=_fastest(gpu and gpu[2]),
        memory_load=_share(emc and emc[1]),
        memory_hz=_scaled(emc and emc[2], _MHZ),
        zones=_zones(line),
        rails={name: int(now) / 1000 for name, now, *_ in _RAIL.findall(line) if real_rail(name)},
    )


def _zones(line: str) -> dict[str, float]:
    read = [(zone_name(name), celsius(float(value))) for name, value in _ZONE.findall(line)]
    return {name: value for name, value in read if name is not None and value is not None}


def _core(text: str, shared_mhz: str | None) -> Core:
    found = _CORE.fullmatch(text.strip())
    return Core() if found is None else Core(_share(found[1]), _scaled(found[2] or shared_mhz, _MHZ))


def _share(percent: str | None) -> float | None:
    return int(percent) / 100 if percent and int(percent) <= 100 else None  # noqa: PLR2004  # per cent


def _scaled(text: str | None, unit: int) -> int | None:
    return int(text) * unit if text else None


def _fastest(text: str | None) -> int | None:
    clocks = [int(part) for part in (text or "").split(",") if part]
    return max(clocks) * _MHZ if clocks else None
