"""What NVIDIA's Linux for Tegra (L4T) says about itself: release, module, power mode. Owns no table of versions.

Texts differ by release: dates with a 12-hour clock, module names with ``-super``, a release file that is missing.
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from devices.boards.machine import Machine

_RELEASE: Final = re.compile(r"#\s*R(\d{1,4})\s*\(release\),\s*REVISION:\s*(\d{1,4}(?:\.\d{1,4})*)")
_BOARD: Final = re.compile(r"\bBOARD:\s*([^\s,]+)")
_DATE: Final = re.compile(r"\bDATE:\s*(\S.*)")
_PACKAGE: Final = re.compile(r"(\d{1,4})\.(\d{1,4}(?:\.\d{1,4})*)(?:[-+~]|$)")
_PART: Final = re.compile(r"p\d{4}-\d{4}")
_MODE: Final = re.compile(r"NV Power Mode:[ \t]*(\S+)[ \t]*\n?[ \t]*(\d{1,4})?\s*$", re.MULTILINE)
_MODES: Final = re.compile(r"^\s*<\s*POWER_MODEL\s+(?=[^>\n]*\bID=(\d{1,4}))(?=[^>\n]*\bNAME=([^\s>]+))", re.MULTILINE)
_STATUS: Final = re.compile(r"pmode:(\d{1,4})")


class L4t(msgspec.Struct, frozen=True):
    """A release of Linux for Tegra.

    Attributes:
        major: 36 of R36.4.7.
        revision: 4.7 of R36.4.7.
        board: what the release file calls the board, such as ``generic``.
        date: when it was built, as it stands there.
    """

    major: int
    revision: str
    board: str | None = None
    date: str | None = None

    def __str__(self) -> str:
        return f"R{self.major}.{self.revision}"


class PowerMode(msgspec.Struct, frozen=True):
    """The power mode of a Jetson. Its number means nothing without the name: 0 is 15W on one board, MAXN on another.

    Attributes:
        name: such as ``MODE_15W_6CORE``; None when only the number can be read.
        number: its ID.
        choices: names that this board's firmware offers, by ID.
    """

    name: str | None
    number: int | None
    choices: dict[int, str] = {}

    @property
    def is_largest(self) -> bool | None:
        """Whether nothing holds the clocks back by the mode's name; None when the name is unknown."""
        return None if self.name is None else self.name.upper().startswith("MAXN")


def parse_release(text: str) -> L4t | None:
    """Read ``/etc/nv_tegra_release``."""
    found = _RELEASE.search(text)
    if found is None:
        return None
    line = text[found.start() :].partition("\n")[0]
    board, date = _BOARD.search(line), _DATE.search(line)
    return L4t(int(found[1]), found[2], board and board[1], date and date[1].strip())


def parse_package(text: str) -> L4t | None:
    """Read the version of the package ``nvidia-l4t-core``, such as ``39.2.0-20260601141651``."""
    found = _PACKAGE.match(text.strip())
    return None if found is None else L4t(int(found[1]), found[2])


def read_l4t(machine: Machine) -> L4t | None:
    """The release of L4T: from its file, else from its package; None on other boards."""
    release = parse_release(machine.text("etc/nv_tegra_release") or "")
    if release is not None:
        return release
    return parse_package(machine.run("dpkg-query", "-W", "-f", "${Version}", "nvidia-l4t-core") or "")


def parse_parts(compatible: str) -> tuple[str, ...]:
    """Part numbers in a device tree's ``compatible``, module before carrier, such as ``p3767-0005``; no suffix."""
    found = [part for entry in compatible.split("\0") for part in reversed(_PART.findall(entry))]
    return tuple(dict.fromkeys(found))


def parse_power_mode(query: str, config: str = "", status: str = "") -> PowerMode | None:
    """Read the power mode.

    Args:
        query: what ``nvpmodel -q`` prints, plain or verbose.
        config: ``/etc/nvpmodel.conf``, for the modes on offer.
        status: ``/var/lib/nvpmodel/status``, for a board where the query needs root.
    """
    choices = {int(number): name for number, name in _MODES.findall(config)}
    found = _MODE.search(query.replace("\r", ""))
    if found is not None:
        return PowerMode(found[1], None if found[2] is None else int(found[2]), choices)
    kept = _STATUS.search(status)
    if kept is None:
        return None
    return PowerMode(choices.get(int(kept[1])), int(kept[1]), choices)


def read_power_mode(machine: Machine) -> PowerMode | None:
    """The power mode; None where there is no `nvpmodel`."""
    return parse_power_mode(
        machine.run("nvpmodel", "-q") or "",
        machine.text("etc/nvpmodel.conf") or "",
        machine.text("var/lib/nvpmodel/status") or "",
    )
