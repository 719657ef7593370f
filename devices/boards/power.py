"""What the board draws, by rail, from its INA3221 and INA238 chips. Owns no budget.

Chips are found by name and rails by label: numbers of hwmon devices change between boots. Which rail is the whole
board's differs: VDD_IN on most Jetsons, POM_5V_IN on the Nano, VIN on Thor; AGX Orin and AGX Xavier have none.
"""

from __future__ import annotations

from typing import Final

import msgspec

from devices.boards.machine import Machine

_TOTALS: Final = ("VDD_IN", "POM_5V_IN", "VIN")
_CHIPS: Final = frozenset({"ina3221", "ina238", "ina219", "ina226"})
_MOST_W: Final = 2000.0


class Rail(msgspec.Struct, frozen=True):
    """One supply rail.

    Attributes:
        name: its label, such as ``VDD_CPU_GPU_CV``.
        watts: None when it cannot be read (on JetPack 4 only root may).
        over_current: whether its critical-current alarm is on; None when it has none.
    """

    name: str
    watts: float | None
    over_current: bool | None = None


class Power(msgspec.Struct, frozen=True):
    """What the whole board draws.

    Attributes:
        watts: None when unknown.
        estimated: it is a sum of rails, because the board has no rail for the whole.
    """

    watts: float | None
    estimated: bool


def real_rail(label: str | None) -> bool:
    """Whether a label names a rail: not an unconnected input, nor INA3221's sum of shunt voltages."""
    return bool(label) and label != "NC" and "sum of shunt" not in str(label)


def total(rails: tuple[Rail, ...]) -> Power | None:
    """The whole board's power; never the sum of a total and its parts. None without any rail."""
    by_name = {rail.name: rail for rail in rails}
    for name in _TOTALS:
        if name in by_name:
            return Power(by_name[name].watts, estimated=False)
    known = [rail.watts for rail in rails if rail.watts is not None]
    if not rails:
        return None
    return Power(sum(known) if len(known) == len(rails) else None, estimated=True)


def read_rails(machine: Machine) -> tuple[Rail, ...]:
    """Every rail that has a label, by hwmon (JetPack 5 and later), else by iio (JetPack 4)."""
    rails = []
    for path in machine.find("sys/class/hwmon/hwmon*/name"):
        if machine.fixed(path) in _CHIPS:
            rails += _hwmon(machine, path.removesuffix("/name"))
    return tuple(rails or _iio(machine))


def _hwmon(machine: Machine, folder: str) -> list[Rail]:
    rails = []
    for path in machine.find(f"{folder}/in*_label"):
        label = machine.fixed(path)
        if label is not None and real_rail(label):
            number = path.removesuffix("_label").rpartition("/in")[2]
            rails.append(Rail(label, _watts(machine, folder, number), _alarm(machine, folder, number)))
    whole_chip = machine.fixed(f"{folder}/label")  # an INA238 has one channel, named after the chip
    if not rails and whole_chip is not None and real_rail(whole_chip):
        rails.append(Rail(whole_chip, _watts(machine, folder, "1"), _alarm(machine, folder, "1")))
    return rails


def _watts(machine: Machine, folder: str, number: str) -> float | None:
    microwatts = machine.whole(f"{folder}/power{number}_input")
    if microwatts is not None:
        return _sane(microwatts / 1e6)
    millivolts, milliamps = machine.whole(f"{folder}/in{number}_input"), machine.whole(f"{folder}/curr{number}_input")
    return None if millivolts is None or milliamps is None else _sane(millivolts * milliamps / 1e6)


def _alarm(machine: Machine, folder: str, number: str) -> bool | None:
    alarm = machine.whole(f"{folder}/curr{number}_crit_alarm")
    return None if alarm is None else alarm > 0


def _iio(machine: Machine) -> list[Rail]:
    rails = []
    for path in machine.find("sys/bus/i2c/drivers/ina3221x/*/iio:device*/rail_name_*"):
        label = machine.fixed(path)
        if label is not None and real_rail(label):
            folder, _, number = path.rpartition("/rail_name_")
            milliwatts = machine.whole(f"{folder}/in_power{number}_input")
            rails.append(Rail(label, None if milliwatts is None else _sane(milliwatts / 1e3)))
    return rails


def _sane(watts: float) -> float | None:
    return watts if -_MOST_W < watts < _MOST_W else None
