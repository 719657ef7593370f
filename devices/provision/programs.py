"""The seam to programs of this machine: e2fsprogs, mtools, mount. Owns no meaning of what they say."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection
from pathlib import Path

import msgspec

from edge_protocol.errors import NotReadyError, StoreError

_SYSTEM = "/usr/local/sbin:/usr/sbin:/sbin"
"""Where e2fsprogs lies; a user's PATH does not always say so."""
_TIMEOUT_S = 3600


class Ran(msgspec.Struct, frozen=True):
    """What a program answered: exit status, and what it printed."""

    status: int
    out: bytes
    err: str


class Programs(msgspec.Struct, frozen=True):
    """Starts programs by name.

    Attributes:
        path: folders that they are looked for in; empty for this process's PATH and the system's.
    """

    path: str = ""

    def has(self, *names: str) -> bool:
        """Whether every one of them is here."""
        return all(shutil.which(name, path=self._path()) for name in names)

    def run(self, *argv: str, folder: Path, good: Collection[int] = (0,)) -> Ran:
        """Run one in a folder, in the C locale and without input.

        Raises:
            NotReadyError: it is not here.
            StoreError: its exit status is not among the `good` ones, or it took an hour.
        """
        program = shutil.which(argv[0], path=self._path())
        if program is None:
            raise NotReadyError(f"there is no {argv[0]} here; install it")
        try:
            done = subprocess.run(
                [program, *argv[1:]],
                cwd=folder,
                env={**os.environ, "LC_ALL": "C", "PATH": self._path()},
                stdin=subprocess.DEVNULL,
                capture_output=True,
                check=False,
                timeout=_TIMEOUT_S,
            )
        except (OSError, subprocess.SubprocessError) as error:
            raise StoreError(f"{argv[0]} could not be run: {error}") from error
        ran = Ran(done.returncode, done.stdout, done.stderr.decode(errors="replace"))
        if ran.status not in good:
            lines = [line for line in (ran.err + ran.out.decode(errors="replace")).splitlines() if line.strip()]
            raise StoreError(f"{argv[0]} left with {ran.status}: {'; '.join(lines[-3:])}")
        return ran

    def _path(self) -> str:
        return self.path or f"{os.environ.get('PATH', '')}:{_SYSTEM}"
