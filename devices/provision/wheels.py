"""Wheels for a board without internet: what they must run on, and the hashes that pip insists on. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from hashlib import sha256
from typing import Final

import msgspec

from devices.boards.profiles import Board, JetPack, boards, jetpack_of
from edge_protocol.errors import ConfigError

REQUIREMENTS: Final = "requirements.txt"
"""The file beside the wheels that names each with its hash."""
_WHEEL: Final = re.compile(
    r"(?P<name>[A-Za-z0-9][A-Za-z0-9._]*)-(?P<version>[A-Za-z0-9][A-Za-z0-9._+!]*)(-\d[^-]*)?-[^-]+-[^-]+-[^-]+\.whl"
)
_PIN: Final = re.compile(
    r'(?P<pin>[A-Za-z0-9._-]+==[A-Za-z0-9._+!-]+)(\s*;\s*python_version\s*(?P<sign><|>=)\s*"3\.(?P<minor>\d+)")?'
)
_OLDEST_GLIBC, _USUAL_GLIBC = 17, "2.28"


class Target(msgspec.Struct, frozen=True):
    """What wheels must run on.

    Attributes:
        python: such as ``3.10``.
        glibc: the C library, such as ``2.35``; wheels for older ones run as well.
        machine: the processor, as ``uname -m`` says it.
        gpu: in a sentence, who makes packages that use the GPU; empty where there is none.
    """

    python: str
    glibc: str
    machine: str
    gpu: str = ""

    @property
    def platforms(self) -> tuple[str, ...]:
        """Tags of wheels that run there, the newest C library first; pip takes no range."""
        minor = int(self.glibc.partition(".")[2])
        tags = (f"manylinux_2_{number}_{self.machine}" for number in range(minor, _OLDEST_GLIBC - 1, -1))
        return (*tags, f"manylinux2014_{self.machine}", f"linux_{self.machine}")

    @property
    def markers(self) -> dict[str, str]:
        """What environment markers of requirements see there (PEP 508)."""
        return {
            "python_version": self.python,
            "python_full_version": f"{self.python}.0",
            "implementation_version": f"{self.python}.0",
            "platform_machine": self.machine,
            "sys_platform": "linux",
            "platform_system": "Linux",
            "os_name": "posix",
            "implementation_name": "cpython",
            "platform_python_implementation": "CPython",
        }


def target_of(board: str, jetpack: str | None, python: str | None) -> Target:
    """What a board runs.

    Args:
        board: its short name, from the table of boards.
        jetpack: the release on it, such as ``6`` or ``7.2``; None where the board has only one that fits.
        python: in place of the system's.

    Raises:
        ConfigError: there is no such board or JetPack, several could be meant, or its Python is too old.
    """
    known = {one.name: one for one in boards()}
    if board not in known:
        raise ConfigError(f"--board: no {board!r}; there are {', '.join(known)}")
    machine = "x86_64" if board == "x86-64" else "aarch64"
    if python is not None and not re.fullmatch(r"3\.\d{1,2}", python):
        raise ConfigError(f"--python: {python!r} is no version such as 3.11")
    if not known[board].l4t:
        if jetpack is not None or python is None:
            raise ConfigError(f"--board {board}: it has no JetPack; say which Python its system has: --python 3.11")
        return _checked(Target(python, _USUAL_GLIBC, machine), "its system")
    pack = _pack(known[board], jetpack)
    return _checked(Target(python or pack.python, pack.glibc, machine, pack.gpu), f"JetPack {pack.jetpack}")


def _pack(board: Board, jetpack: str | None) -> JetPack:
    packs = [pack for pack in map(jetpack_of, board.l4t) if pack is not None]
    if jetpack is None:
        found = [pack for pack in packs if _minor(pack.python) >= 10] or packs  # noqa: PLR2004  # the oldest we run on
    else:
        found = [pack for pack in packs if any(_means(jetpack, one) for one in pack.jetpack.split(" or "))]
    if not found or len({(pack.python, pack.glibc) for pack in found}) > 1:
        names = " or ".join(f"--jetpack {pack.jetpack.split(' or ')[-1]}" for pack in packs)
        raise ConfigError(f"--board {board.name}: say which JetPack is on it: {names}")
    return found[-1]


def _means(asked: str, known: str) -> bool:
    """Whether a release such as 6.2.1 is of the line 6, or 7 means 7.2."""
    return f"{asked}.".startswith(f"{known}.") or f"{known}.".startswith(f"{asked}.")


def _minor(python: str) -> int:
    return int(python.partition(".")[2])


def _checked(target: Target, whose: str) -> Target:
    if _minor(target.python) < 10:  # noqa: PLR2004  # the oldest we run on
        says = f"{whose} has Python {target.python}, and Roadcast needs 3.10"
        raise ConfigError(f"{says}: a container, or a Python of your own with --python 3.11")
    return target


def pins_for(constraints: str, python: str) -> str:
    """Constraints with their markers decided: pip would decide them for the Python that it runs on itself.

    Args:
        constraints: lines ``name==version``, with ``; python_version < "3.11"`` or ``>=`` at most.
        python: that the wheels are for.

    Raises:
        ConfigError: a line of another form.
    """
    kept = []
    for line in constraints.splitlines():
        text = line.partition("#")[0].strip()
        match = _PIN.fullmatch(text)
        if text and match is None:
            raise ConfigError(f"constraints: {text!r} is not 'name==version', with python_version at most")
        if match is not None:
            minor, limit = _minor(python), int(match["minor"] or 0)
            if match["sign"] is None or (minor < limit if match["sign"] == "<" else minor >= limit):
                kept.append(match["pin"])
    return "".join(f"{pin}\n" for pin in kept)


def name_and_version(wheel: str) -> tuple[str, str]:
    """The distribution's normalised name (PEP 503) and version, from a wheel's file name.

    Raises:
        ConfigError: it is not the name of a wheel.
    """
    match = _WHEEL.fullmatch(wheel)
    if match is None:
        raise ConfigError(f"install.wheels: {wheel!r} is not the name of a wheel")
    return re.sub(r"[-_.]+", "-", match["name"]).lower(), match["version"]


def requirements(wheels: Mapping[str, bytes]) -> str:
    """What pip is given with ``--require-hashes``: every wheel, and no other bytes.

    Args:
        wheels: content by file name; one version of each distribution, for whatever platforms.

    Raises:
        ConfigError: a name that is no wheel's, or two versions of one distribution.
    """
    versions: dict[str, str] = {}
    hashes: dict[str, list[str]] = {}
    for wheel in sorted(wheels):
        name, version = name_and_version(wheel)
        if versions.setdefault(name, version) != version:
            raise ConfigError(f"install.wheels: {name} is there as {versions[name]} and {version}; keep one of them")
        hashes.setdefault(name, []).append(sha256(wheels[wheel]).hexdigest())
    lines = (f"{name}=={versions[name]}{''.join(f' --hash=sha256:{one}' for one in hashes[name])}\n" for name in hashes)
    return "".join(lines)
