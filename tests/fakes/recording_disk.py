"""A disk that writes down every step, and the states that a power cut may leave after each of them.

The model is the strict one of POSIX, as in ALICE (Pillai et al., OSDI 2014): data is durable once its file was synced,
a name once its folder was; what was not may be there, may be missing, or may be there in part, each by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import BinaryIO

from edge_client.disk import Disk

FEW = 6
"""Unsynced steps of which every subset is tried."""


@dataclass(frozen=True)
class Step:
    """One step.

    Attributes:
        kind: ``write truncate sync`` of a file, ``link unlink folder rmtree sync-folder`` of names.
        inode: number of the file.
        path: name, relative to the recorded root.
        at: offset, or size.
        gone: name that goes away when a file is renamed.
    """

    kind: str
    inode: int = 0
    path: str = ""
    data: bytes = b""
    at: int = 0
    gone: str = ""


class RecordingDisk(Disk):
    """Does every step for real, and keeps it.

    Args:
        root: names are kept relative to it; it is there and durable before the first step.

    Attributes:
        steps: what was done, in order.
        marks: number of steps done when something became true, by name.
    """

    def __init__(self, root: Path) -> None:
        self.steps: list[Step] = []
        self.marks: dict[str, int] = {}
        self._root, self._inodes, self._names = root, 0, dict[str, int]()
        self._open: dict[int, int] = {}

    def mark(self, name: str) -> None:
        """Note that something is true from here on."""
        self.marks.setdefault(name, len(self.steps))

    def open(self, path: Path) -> BinaryIO:
        """Open, and note a name that is new."""
        name = self._name(path)
        if not path.exists():
            self._inodes += 1
            self._names[name] = self._inodes
            self.steps.append(Step("link", self._inodes, name))
        file = super().open(path)
        self._open[id(file)] = self._names[name]
        return file

    def write(self, file: BinaryIO, data: bytes, at: int) -> None:
        """Write and note."""
        super().write(file, data, at)
        self.steps.append(Step("write", self._open[id(file)], data=bytes(data), at=at))

    def truncate(self, file: BinaryIO, size: int) -> None:
        """Cut and note."""
        super().truncate(file, size)
        self.steps.append(Step("truncate", self._open[id(file)], at=size))

    def sync(self, file: BinaryIO) -> None:
        """Sync and note."""
        super().sync(file)
        self.steps.append(Step("sync", self._open[id(file)]))

    def rename(self, path: Path, to: Path) -> None:
        """Rename and note."""
        super().rename(path, to)
        old, new = self._name(path), self._name(to)
        self._names[new] = self._names.pop(old)
        self.steps.append(Step("link", self._names[new], new, gone=old))

    def sync_folder(self, folder: Path) -> None:
        """Sync and note."""
        super().sync_folder(folder)
        self.steps.append(Step("sync-folder", path=self._name(folder)))

    def unlink(self, path: Path) -> None:
        """Remove and note."""
        if path.exists():
            self.steps.append(Step("unlink", path=self._name(path)))
        super().unlink(path)

    def remove_tree(self, folder: Path) -> None:
        """Remove and note."""
        if folder.exists():
            self.steps.append(Step("rmtree", path=self._name(folder)))
        super().remove_tree(folder)

    def _mkdir(self, path: Path) -> None:
        super()._mkdir(path)
        self.steps.append(Step("folder", path=self._name(path)))

    def _name(self, path: Path) -> str:
        return "" if path == self._root else path.relative_to(self._root).as_posix()


@dataclass
class Remains:
    """What lies on the disk after a power cut.

    Attributes:
        names: file → inode.
        data: inode → bytes.
    """

    names: dict[str, int] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)
    folders: set[str] = field(default_factory=lambda: {""})

    def take(self, step: Step) -> None:
        """Let a step have reached the disk."""
        match step.kind:
            case "write":
                before = self.data.get(step.inode, b"").ljust(step.at, b"\0")
                self.data[step.inode] = before[: step.at] + step.data + before[step.at + len(step.data) :]
            case "truncate":
                self.data[step.inode] = self.data.get(step.inode, b"")[: step.at].ljust(step.at, b"\0")
            case "folder":
                self.folders.add(step.path)
            case "link":
                self.names.pop(step.gone, None)
                self.names[step.path] = step.inode
            case "unlink":
                self.names.pop(step.path, None)
            case "rmtree":
                inside = f"{step.path}/"
                self.names = {name: inode for name, inode in self.names.items() if not name.startswith(inside)}
                self.folders = {f for f in self.folders if f != step.path and not f.startswith(inside)}

    def files(self) -> dict[str, bytes]:
        """Every file that can be reached: one in a folder that is not there cannot."""
        return {name: self.data.get(inode, b"") for name, inode in self.names.items() if self._reached(name)}

    def _reached(self, name: str) -> bool:
        return all(str(parent) in self.folders for parent in Path(name).parents if str(parent) != ".")


def power_cuts(steps: list[Step]) -> Iterator[tuple[int, dict[str, bytes]]]:
    """Give every state that a power cut may leave, with the number of steps done before it.

    For each prefix: every subset of the unsynced steps is missing (where they are many: none, all, all names, all data,
    each one, each pair); and with each of these the last write is whole, or torn at its first byte, in its middle
    and one byte short.
    """
    for done in range(len(steps) + 1):
        begun, loose = steps[:done], sorted(_loose(steps[:done]))
        ends = [begun[-1:]]
        if begun and begun[-1].kind == "write":
            last = begun[-1]
            cuts = {1, len(last.data) // 2, len(last.data) - 1}
            ends += [[Step("write", last.inode, data=last.data[:length], at=last.at)] for length in cuts]
        for missing in _subsets(loose, begun):
            kept = [step for at, step in enumerate(begun[:-1]) if at not in missing]
            for end in [[]] if done - 1 in missing else ends:
                yield done, _after([*kept, *end])


def _subsets(loose: list[int], steps: list[Step]) -> Iterator[set[int]]:
    """Sets of unsynced steps that may be missing."""
    if len(loose) <= FEW:
        for count in range(len(loose) + 1):
            yield from (set(each) for each in combinations(loose, count))
        return
    names = {at for at in loose if steps[at].kind not in {"write", "truncate"}}
    yield from (set(), set(loose), names, set(loose) - names)
    yield from (set(each) for count in (1, 2) for each in combinations(loose, count))


def _loose(steps: list[Step]) -> set[int]:
    """Positions of the steps that nothing has made durable."""
    loose: set[int] = set()
    for at, step in enumerate(steps):
        if step.kind == "sync":
            loose -= {o for o in loose if steps[o].kind in {"write", "truncate"} and steps[o].inode == step.inode}
        elif step.kind == "sync-folder":
            loose -= {o for o in loose if steps[o].path and _parent(steps[o].path) == step.path}
        else:
            loose.add(at)
    return loose


def _parent(name: str) -> str:
    return name.rpartition("/")[0]


def _after(steps: list[Step]) -> dict[str, bytes]:
    remains = Remains()
    for step in steps:
        remains.take(step)
    return remains.files()
