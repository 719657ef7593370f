"""Carries a plan out in an ext filesystem inside an image, without root and without mounting it, by e2fsprogs' debugfs.

Traps that this owns: debugfs leaves with 0 whatever happened, so what it wrote is read back; it follows links, so no
path is used before every folder on the way was seen to be one; ``write`` takes a name, so it goes to the folder first.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, Literal, NamedTuple, Protocol

from devices.findings import Finding
from devices.provision.changes import Change, diff_of, is_secret, parents
from devices.provision.leftovers import left_over, named
from devices.provision.partitions import Partition
from devices.provision.plan import INSTALLED, Plan, PlannedFile
from devices.provision.programs import Programs
from devices.provision.system_checks import check_system
from edge_protocol.errors import ConfigError, StoreError

NEEDS: Final = ("debugfs", "e2fsck")
_PLAIN: Final = re.compile(r"(/[A-Za-z0-9._+@=,~!-]+)+")
_ENTRY: Final = re.compile(r"/(\d+)/(\d{6})/(\d+)/(\d+)/([^/]*)/(\d*)/")
_SHOWN: Final = 65536
_FAST: Final = 60
"""A link's text that is shorter lies in its inode."""


class Tree(Protocol):
    """A root filesystem in an image."""

    def is_root(self) -> bool:
        """Whether it has the folders of one."""

    def look(self, plan: Plan) -> tuple[Change, ...]:
        """Say what a plan would change. Raises StoreError for a link, or something else, in the way."""

    def write(self, plan: Plan) -> None:
        """Carry it out, and check the filesystem."""

    def check(self, machine: str, python: str) -> tuple[Finding, ...]:
        """What keeps the agent from running there; see `check_system`."""


class Entry(NamedTuple):
    """What a folder says of a name."""

    inode: int
    mode: int
    uid: int
    gid: int
    size: int


class Debugfs:
    """A filesystem at an offset of a file."""

    def __init__(self, programs: Programs, image: Path, partition: Partition) -> None:
        self._programs, self._image, self._at = programs, image.absolute(), f"image?offset={partition.start}"

    def is_root(self) -> bool:
        """Whether there are the folders etc and usr."""
        with self._folder() as folder:
            top = self._list(folder, ["/"])["/"]
        return all(name in top and stat.S_ISDIR(top[name].mode) for name in ("etc", "usr"))

    def look(self, plan: Plan) -> tuple[Change, ...]:
        """Say what a plan would change.

        Raises:
            ConfigError: a name that debugfs cannot take.
            StoreError: a link or something else is in the way.
        """
        texts = [file.path for file in plan.files] + [text for link in plan.links for text in (link.path, link.target)]
        for text in texts:
            if not _PLAIN.fullmatch(text):
                raise ConfigError(f"plan: {text!r} is no path of plain characters, and an image takes no other")
        with self._folder() as folder:
            found = self._found(folder, plan)
            contents = self._contents(folder, plan, found)
            stale = self._entries(folder, _stale(plan, contents))
        had = named(contents.get(INSTALLED))
        files = (
            Change(file.path, "keep")
            if file.once and file.path in had and file.path not in found
            else _compare(file, found.get(file.path), contents.get(file.path))
            for file in plan.files
        )
        links = (Change(link.path, _action(contents.get(link.path), link.target.encode())) for link in plan.links)
        return (*files, *links, *(Change(path, "remove") for path in _stale(plan, contents) if path in stale))

    def write(self, plan: Plan) -> None:
        """Carry a plan out; what is right already is left.

        Raises:
            StoreError: what was written reads back differently, or the filesystem is not whole.
        """
        changes = self.look(plan)
        wrong = {change.path for change in changes if change.action in {"add", "change"}}
        gone = [change.path for change in changes if change.action == "remove"]
        with self._folder() as folder:
            self._check(folder)
            found = self._found(folder, plan)
            orders = [f"{'rmdir' if path.endswith('/') else 'rm'} {path.removesuffix('/')}" for path in gone]
            orders += _folders(plan, found)
            for number, file in enumerate(plan.files):
                if file.path in wrong:
                    (folder / f"in{number}").write_bytes(file.content)
                    orders += _cleared(file.path, found)
                    orders += [f"cd {parents(file.path)[-1]}", f"write in{number} {file.path.rpartition('/')[2]}"]
                    orders += _owned(file.path, stat.S_IFREG | file.mode)
            for link in plan.links:
                if link.path in wrong:
                    orders += [*_cleared(link.path, found), f"symlink {link.path} {link.target}"]
                    orders += _owned(link.path, stat.S_IFLNK | 0o777)
            said = self._debugfs(folder, orders, "-w")[1]
            self._check(folder)
        left = [change.path for change in self.look(plan) if change.action != "keep"]
        if left:
            raise StoreError(f"written, but {left[0]} reads back differently: {said.strip() or 'debugfs said nothing'}")

    def check(self, machine: str, python: str) -> tuple[Finding, ...]:
        """What keeps the agent from running there."""
        return tuple(check_system(self, machine, python))

    def content(self, path: str) -> bytes:
        """What a regular file holds."""
        return self._held(path, stat.S_ISREG)

    def link(self, path: str) -> str:
        """What a link says."""
        return self._held(path, stat.S_ISLNK).decode(errors="replace")

    def names(self, path: str) -> Sequence[str]:
        """What is in a folder."""
        with self._folder() as folder:
            return list(self._list(folder, [path])[path])

    def _held(self, path: str, kind: Callable[[int], bool]) -> bytes:
        with self._folder() as folder, suppress(StoreError):  # a link on the way
            entry = self._entries(folder, [path]).get(path)
            if entry is not None and kind(entry.mode):
                return self._read(folder, {path: entry})[path]
        return b""

    def _check(self, folder: Path) -> None:
        try:
            self._programs.run("e2fsck", "-fn", self._at, folder=folder)
        except StoreError as error:
            says = f"the filesystem in the image has errors: {error}"
            raise StoreError(f"{says}; write the image anew from its source, or mend it with e2fsck -f") from error

    @contextmanager
    def _folder(self) -> Iterator[Path]:
        """A folder with the image under a plain name: debugfs reads its file's name, and question marks in it."""
        with TemporaryDirectory(prefix="roadcast-") as name:
            (Path(name) / "image").symlink_to(self._image)
            yield Path(name)

    def _debugfs(self, folder: Path, orders: Iterable[str], *options: str) -> tuple[list[tuple[str, list[str]]], str]:
        """Run orders. Returns: each with the lines that it printed, and what was said on stderr."""
        (folder / "orders").write_text("".join(f"{order}\n" for order in orders))
        ran = self._programs.run("debugfs", *options, "-f", "orders", self._at, folder=folder)
        answers: list[tuple[str, list[str]]] = []
        for line in ran.out.decode(errors="replace").splitlines():
            if line.startswith("debugfs: "):
                answers.append((line.removeprefix("debugfs: "), []))
            elif answers:
                answers[-1][1].append(line)
        return answers, ran.err

    def _list(self, folder: Path, paths: Sequence[str]) -> dict[str, dict[str, Entry]]:
        """The entries of folders; of one that is not there none."""
        answers, said = self._debugfs(folder, [f"ls -p {path}" for path in paths], "-c")
        if [order for order, _ in answers] != [f"ls -p {path}" for path in paths]:
            raise StoreError(f"debugfs cannot read the filesystem: {said.strip()}")
        listed: dict[str, dict[str, Entry]] = {}
        for path, (_, lines) in zip(paths, answers, strict=True):
            entries = listed.setdefault(path, {})
            for line in lines:
                match = _ENTRY.fullmatch(line)
                if match is None:
                    continue
                inode, mode, uid, gid, name, size = match.groups()
                if name in entries:
                    raise StoreError(f"{path} in the image holds {name!r} twice; nothing is written")
                entries[name] = Entry(int(inode), int(mode, 8), int(uid), int(gid), int(size or 0))
        return listed

    def _found(self, folder: Path, plan: Plan) -> dict[str, Entry]:
        """What lies at every path of a plan and at every folder on the way; what is missing is left out."""
        found = self._entries(folder, [*(file.path for file in plan.files), *(link.path for link in plan.links)])
        for file in plan.files:
            if file.path in found and not stat.S_ISREG(found[file.path].mode):
                raise StoreError(f"{file.path}: something that is no file is in the way; remove it from the image")
        for link in plan.links:
            if link.path in found and not stat.S_ISLNK(found[link.path].mode):
                raise StoreError(f"{link.path}: something that is no link is in the way; remove it from the image")
        return found

    def _entries(self, folder: Path, paths: Sequence[str]) -> dict[str, Entry]:
        """What lies at paths and at every folder on the way; a folder of its own ends with a slash."""
        above = sorted({folder for path in paths for folder in parents(path)})
        listed, found = self._list(folder, above) if above else {}, dict[str, Entry]()
        for path in sorted({*paths, *above} - {"/"}):
            parent, name = parents(path.removesuffix("/"))[-1], path.removesuffix("/").rpartition("/")[2]
            entry = listed[parent].get(name)
            if entry is None or (parent != "/" and parent not in found):
                continue
            if path in above and not stat.S_ISDIR(entry.mode):
                raise StoreError(f"{path}: a link or file in the image is in the way; none is followed")
            found[path] = entry
        return found

    def _contents(self, folder: Path, plan: Plan, found: dict[str, Entry]) -> dict[str, bytes]:
        """What files and links hold, as far as it matters: of the wanted size, or small enough to show."""
        wanted = {file.path: len(file.content) for file in plan.files}
        wanted |= {link.path: len(link.target.encode()) for link in plan.links}
        read = {
            path: found[path]
            for path, size in wanted.items()
            if path in found and (found[path].size == size or found[path].size <= _SHOWN)
        }
        return self._read(folder, read)

    def _read(self, folder: Path, read: dict[str, Entry]) -> dict[str, bytes]:
        """What files hold, and links say."""
        orders = [
            f"stat <{entry.inode}>" if _is_fast(entry) else f"dump <{entry.inode}> out{number}"
            for number, entry in enumerate(read.values())
        ]
        answers = self._debugfs(folder, orders, "-c")[0] if orders else []
        contents = {}
        for number, ((path, entry), (_, lines)) in enumerate(zip(read.items(), answers, strict=True)):
            if _is_fast(entry):
                text = re.search(r'^Fast link dest: "(.*)"$', "\n".join(lines), re.MULTILINE)
                contents[path] = text[1].encode() if text else b""
            else:
                contents[path] = (folder / f"out{number}").read_bytes()
        return contents


def _is_fast(entry: Entry) -> bool:
    return stat.S_ISLNK(entry.mode) and entry.size < _FAST


def _compare(file: PlannedFile, entry: Entry | None, before: bytes | None) -> Change:
    if entry is None:
        return Change(file.path, "add", diff_of(file, None))
    right = (stat.S_IMODE(entry.mode), entry.uid) == (file.mode, 0) and (is_secret(file) or entry.gid == 0)
    if before == file.content:
        return Change(file.path, "keep" if right else "change")
    return Change(file.path, "change", "" if before is None else diff_of(file, before))


def _action(before: bytes | None, wanted: bytes) -> Literal["add", "change", "keep"]:
    return "add" if before is None else "keep" if before == wanted else "change"


def _stale(plan: Plan, contents: dict[str, bytes]) -> list[str]:
    return [path for path in left_over(plan, contents.get(INSTALLED)) if _PLAIN.fullmatch(path.removesuffix("/"))]


def _folders(plan: Plan, found: dict[str, Entry]) -> Iterator[str]:
    paths = [*(file.path for file in plan.files), *(link.path for link in plan.links)]
    for folder in sorted({folder for path in paths for folder in parents(path)} - {"/"}):
        if folder not in found:
            yield f"mkdir {folder}"
            yield from _owned(folder, stat.S_IFDIR | 0o755)


def _cleared(path: str, found: dict[str, Entry]) -> list[str]:
    return [f"rm {path}"] if path in found else []


def _owned(path: str, mode: int) -> list[str]:
    return [f"set_inode_field {path} {field}" for field in (f"mode 0{mode:o}", "uid 0", "gid 0")]
