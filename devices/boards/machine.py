"""The seam to a board: small files below a root, and commands. Owns no meaning of what they say."""

from __future__ import annotations

import glob
import os
import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

Command: TypeAlias = Callable[[tuple[str, ...]], str | None]
"""Runs a program with its arguments; returns what it printed, None when it is missing, fails or takes too long."""

_MOST: Final = 1 << 18
_TIMEOUT_S: Final = 5.0
_DIGITS: Final = re.compile(r"(\d+)")


def run_command(argv: tuple[str, ...]) -> str | None:
    """Run a program of this machine, in the C locale, for five seconds at most."""
    try:
        done = subprocess.run(
            argv,
            capture_output=True,
            check=False,
            timeout=_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
    return done.stdout[:_MOST].decode(errors="replace") if done.returncode == 0 else None


@dataclass(eq=False)
class Machine:
    """A board, real or recorded.

    Attributes:
        root: the folder that holds ``proc``, ``sys`` and ``etc``.
        command: runs a program; see `Command`.
    """

    root: Path = Path("/")
    command: Command = run_command
    _found: dict[str, tuple[str, ...]] = field(default_factory=dict, init=False, repr=False)
    _fixed: dict[str, str | None] = field(default_factory=dict, init=False, repr=False)

    def text(self, path: str) -> str | None:
        """What a small file says, without a trailing NUL and white space; None when it cannot be read or is empty.

        A sensor that is switched off answers EAGAIN, which buffered reading in Python turns into a `TypeError`; hence
        the plain system calls. A FIFO does not block.
        """
        try:
            handle = os.open(self.root / path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except (OSError, ValueError):
            return None
        try:
            return os.read(handle, _MOST).decode(errors="replace").strip("\0 \t\r\n") or None
        except (OSError, TypeError):
            return None
        finally:
            os.close(handle)

    def fixed(self, path: str) -> str | None:
        """The same for a file that does not change while the board is up: it is read once, until `forget`."""
        if path not in self._fixed:
            self._fixed[path] = self.text(path)
        return self._fixed[path]

    def lines(self, path: str, wanted: re.Pattern[str]) -> str:
        """Those lines of a file in which a pattern is found. Others may name a person or a place: nobody keeps them."""
        return only(self.text(path), wanted)

    def whole(self, path: str) -> int | None:
        """A file that holds one decimal number."""
        return whole(self.text(path))

    def find(self, pattern: str) -> tuple[str, ...]:
        """Paths below the root that match a glob pattern, zone 2 before zone 10; looked for once, until `forget`."""
        if pattern not in self._found:
            names = glob.glob(pattern, root_dir=self.root)  # noqa: PTH207  # Path.glob costs five times as much
            self._found[pattern] = tuple(sorted(names, key=_natural))
        return self._found[pattern]

    def forget(self) -> None:
        """Look again for what `find` and `fixed` remember: drivers may load after us."""
        self._found.clear()
        self._fixed.clear()

    def run(self, *argv: str) -> str | None:
        """What a program prints; None when it cannot be run here."""
        said = self.command(argv)
        return None if said is None else said.strip("\0 \t\r\n") or None

    def run_lines(self, wanted: re.Pattern[str], *argv: str) -> str:
        """As `lines`, of what a program prints."""
        return only(self.run(*argv), wanted)


def only(text: str | None, wanted: re.Pattern[str]) -> str:
    """The lines of a text in which a pattern is found."""
    return "\n".join(line for line in (text or "").splitlines() if wanted.search(line))


def whole(text: str | None) -> int | None:
    """A whole number of at most 18 digits, None for anything else."""
    return int(text) if text is not None and re.fullmatch(r"-?[0-9]{1,18}", text) else None


def _natural(path: str) -> list[tuple[int, str]]:
    return [(int(part) if part.isdecimal() else -1, part) for part in _DIGITS.split(path)]
