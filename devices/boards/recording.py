"""A board in a folder: the files that a probe reads and what commands print, to be probed again anywhere.

Nothing lists what to keep: a recording holds what `probe` asked for and got; of texts that name persons or places too
those lines that it reads. That is no serial number, no address and no picture. Owns no meaning of what is kept.
"""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Final

import msgspec

from devices.boards.machine import Machine, only
from devices.boards.probe import probe
from edge_protocol.errors import DataError, StoreError

COMMANDS: Final = "commands.json"
"""What commands printed, by command line; beside ``proc``, ``sys`` and ``etc``."""


class Recording(msgspec.Struct, frozen=True):
    """What a board answered.

    Attributes:
        files: text by path below the root.
        commands: output by command line; one that is missing there did not run.
    """

    files: dict[str, str]
    commands: dict[str, str]


class _Listener(Machine):
    """A machine that keeps what it is asked and answers."""

    def __init__(self, heard: Machine) -> None:
        super().__init__(heard.root, heard.command)
        self.kept = Recording({}, {})

    def text(self, path: str) -> str | None:
        said = super().text(path)
        if said is not None:
            self.kept.files[path] = said
        return said

    def lines(self, path: str, wanted: re.Pattern[str]) -> str:
        said = only(super().text(path), wanted)
        if said:
            self.kept.files[path] = said
        return said

    def run(self, *argv: str) -> str | None:
        said = super().run(*argv)
        if said is not None:
            self.kept.commands[shlex.join(argv)] = said
        return said

    def run_lines(self, wanted: re.Pattern[str], *argv: str) -> str:
        said = only(super().run(*argv), wanted)
        if said:
            self.kept.commands[shlex.join(argv)] = said
        return said


def record(machine: Machine) -> Recording:
    """Probe a board and keep what it answered."""
    listener = _Listener(machine)
    probe(listener)
    return listener.kept


def plant(recording: Recording, folder: Path) -> None:
    """Write a recording as a tree of files, with `COMMANDS` beside them.

    Raises:
        DataError: a path leads out of the folder.
        StoreError: the folder is not empty, or the disk refused.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise StoreError(f"{folder} is not empty; name a new folder")
        for path, text in recording.files.items():
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise DataError(f"recording: the path {path!r} leads out of the folder")
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_bytes(text.encode() + b"\n")
        (folder / COMMANDS).write_bytes(msgspec.json.format(msgspec.json.encode(recording.commands)) + b"\n")
    except OSError as error:
        raise StoreError(f"cannot write the recording {folder}: {error.strerror or error}") from error


def recorded(folder: Path) -> Machine:
    """A machine that answers as the recorded board did; commands that were not recorded do not run here either.

    A folder without `COMMANDS` is taken for a root filesystem, on which nothing can be run.

    Raises:
        DataError: it is no folder, or its `COMMANDS` cannot be read.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; name one that `roadcast devices record` wrote")
    said: dict[str, str] = {}
    if (folder / COMMANDS).exists():
        try:
            said = msgspec.json.decode((folder / COMMANDS).read_bytes(), type=dict[str, str])
        except (OSError, msgspec.DecodeError) as error:
            raise DataError(f"{folder / COMMANDS} cannot be read: {error}; record the board again") from error
    return Machine(folder, lambda argv: said.get(shlex.join(argv)))
