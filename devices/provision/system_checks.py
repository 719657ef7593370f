"""Whether the agent can run in a root filesystem: its processor and its Python, wherever the filesystem lies."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, Protocol

from devices.findings import Finding

_MACHINES: Final = {183: "aarch64", 62: "x86_64"}
"""By the number in an ELF header."""
SYSTEM_PYTHON: Final = "/usr/bin/python3"
_OLDEST: Final = 10


class System(Protocol):
    """A root filesystem that is looked at; of what is not there, or is something else, everything is empty."""

    def content(self, path: str) -> bytes:
        """What a regular file holds, its beginning at least."""

    def link(self, path: str) -> str:
        """What a link says."""

    def names(self, path: str) -> Sequence[str]:
        """What is in a folder."""


class Folder:
    """A tree of this machine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def content(self, path: str) -> bytes:
        """The beginning of a regular file."""
        place = self._root / path[1:]
        try:
            if place.is_symlink() or not place.is_file():
                return b""
            with place.open("rb") as file:
                return file.read(64)
        except OSError:
            return b""

    def link(self, path: str) -> str:
        """What it says, not where that leads on this machine."""
        try:
            return os.readlink(self._root / path[1:])  # noqa: PTH115
        except OSError:
            return ""

    def names(self, path: str) -> Sequence[str]:
        """What is in a folder."""
        try:
            return os.listdir(self._root / path[1:])  # noqa: PTH208
        except OSError:
            return ()


def check_system(system: System, machine: str, python: str = SYSTEM_PYTHON) -> Iterator[Finding]:
    """What keeps the agent from running there, as far as it can be told without starting anything.

    Args:
        system: the root filesystem.
        machine: the processor that the site says.
        python: the Python that the site says.
    """
    found = _machine_of(system)
    if found not in {"", machine}:
        yield Finding("processor", "fail", f"the system is for {found}, the site for {machine}", "")
    says = system.link(python)
    match = re.fullmatch(r"(?:.*/)?python3\.(\d+)", says)
    if match is not None and int(match[1]) < _OLDEST:
        yield Finding("python", "fail", f"the system has Python 3.{match[1]}, and Roadcast needs 3.10", "a newer one")
    elif says and python == SYSTEM_PYTHON and not _has_ensurepip(system):
        fix = "add python3-venv to the system before it is flashed, or on the board: apt install python3-venv"
        yield Finding("python", "warn", "no python3-venv in the system: the set-up fails at the first boot", fix)


def _machine_of(system: System) -> str:
    """The processor that the shell is for, from its ELF header; empty where that cannot be told."""
    for name in ("/usr/bin/bash", "/usr/bin/dash"):
        head = system.content(name)[:20]
        if head[:4] == b"\x7fELF":
            return _MACHINES.get(int.from_bytes(head[18:20], "little"), "another processor")
    return ""


def _has_ensurepip(system: System) -> bool:
    versions = (name for name in system.names("/usr/lib") if name.startswith("python3"))
    return any("__init__.py" in system.names(f"/usr/lib/{name}/ensurepip") for name in versions)
