"""What is asked of a target and told to it, and what it answers: the bytes between `ssh` and ``target.sh``. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from hashlib import sha256

import msgspec

from devices.provision.changes import Change, check_paths, diff_of, is_secret
from devices.provision.leftovers import left_over, named
from devices.provision.plan import INSTALLED, Plan, PlannedFile, PlannedLink
from edge_protocol.errors import ConfigError, RemoteProtocolError

SHOWN_BYTES = 65536
"""A file on the target that is larger is not fetched for a diff."""


class Work(msgspec.Struct, frozen=True):
    """What a target needs.

    Attributes:
        changes: at every path of the plan, in its order.
        files: to write; True where the target holds the content already, beside its place.
        links: to make.
        kept: paths that are right, with inode, size, times and hash of a large file as it was seen; a dash for others.
        stale: paths to take away; see `leftovers`.
        pending: an earlier run was cut off, so its leftovers must go even when nothing is to be written.
        machine: the target's processor, as ``uname -m`` says it.
        stamp: of the runs before; with another one there, all of this is out of date.
    """

    changes: tuple[Change, ...]
    files: tuple[tuple[PlannedFile, bool], ...] = ()
    links: tuple[PlannedLink, ...] = ()
    kept: tuple[tuple[str, str], ...] = ()
    stale: tuple[str, ...] = ()
    pending: bool = False
    machine: str = ""
    stamp: str = ""

    @property
    def needed(self) -> bool:
        """Whether anything must be written at all."""
        return bool(self.files or self.links or self.pending)

    @property
    def total_bytes(self) -> int:
        """Content that must go over the wire."""
        return sum(len(file.content) for file, ready in self.files if not ready)


def question(plan: Plan) -> bytes:
    """Ask what lies at every path of a plan.

    Raises:
        ConfigError: a path or a link's text would leave the tree, or has a control character in it.
    """
    check_paths(plan)
    for text in [file.path for file in plan.files] + [text for link in plan.links for text in (link.path, link.target)]:
        if not text.isprintable():
            raise ConfigError(f"plan: {text!r} has a control character in it")
    files = [f"{file.path}\n{_digest(file)} {'hide' if is_secret(file) else 'show'}\n" for file in plan.files]
    return "".join([*files, *(f"{link.path}\nlink {link.target}\n" for link in plan.links)]).encode()


def most_bytes(plan: Plan) -> int:
    """How long an answer to a plan's question can be at most, with something that a login shell says before it."""
    return SHOWN_BYTES + sum(512 + SHOWN_BYTES for _ in plan.files) + 64 * len(plan.links)


def work_of(plan: Plan, answer: bytes) -> Work:
    """Compare a plan with what the target said.

    A file is right when content, mode and owner (root) are. The group of a secret is given by systemd-tmpfiles on the
    device, and not compared.

    Raises:
        RemoteProtocolError: the answer is none to this plan.
    """
    _, found, rest = answer.partition(b"roadcast-flash ")  # what a login shell says comes before
    line, rest = _line(rest)
    state, _, said = line.partition(" ")
    machine, _, stamp = said.partition(" ")
    if not found or state not in {"pending", "clean"}:
        raise RemoteProtocolError("malformed", "the target's answer does not begin as it should")
    compared: list[tuple[PlannedFile, Change, bool]] = []
    listed: bytes | None = None
    seen: dict[str, str] = {}
    for file in plan.files:
        line, rest = _line(rest)
        if len(file.content) > SHOWN_BYTES:
            seen[file.path] = " ".join(line.split()[5:10])
        change, ready, before, rest = _compare(file, line, rest)
        compared.append((file, change, ready))
        listed = before if file.path == INSTALLED else listed
    had = named(listed)
    used = {file.path for file, change, _ in compared if file.once and change.action == "add" and file.path in had}
    changes = [Change(file.path, "keep") if file.path in used else change for file, change, _ in compared]
    files = [(file, ready) for file, change, ready in compared if change.action != "keep" and file.path not in used]
    links = []
    for link in plan.links:
        line, rest = _line(rest)
        action = {"same": "keep", "other": "change", "missing fresh": "add"}.get(line)
        if action is None:
            raise RemoteProtocolError("malformed", f"the target said {line!r} of {link.path}")
        changes.append(msgspec.convert({"path": link.path, "action": action}, Change))
        if action != "keep":
            links.append(link)
    if rest != b"end\n":
        raise RemoteProtocolError("malformed", "the target's answer does not end as it should")
    kept = [(change.path, seen.get(change.path) or "-") for change in changes if change.action == "keep"]
    stale = left_over(plan, listed)
    changes += [Change(path, "remove") for path in stale]
    return Work(tuple(changes), tuple(files), tuple(links), tuple(kept), stale, state == "pending", machine, stamp)


def orders(work: Work) -> Iterator[bytes]:
    """Tell the target what to write: lines, and the content of files in pieces."""
    yield f"since {work.stamp}\n".encode()
    for file, ready in work.files:
        what = f"{file.mode:o} {_digest(file)} {len(file.content)}\n{file.path}\n"
        yield f"{'ready' if ready else 'file'} {what}".encode()
        if ready:
            continue
        view = memoryview(file.content)
        yield from (bytes(view[at : at + SHOWN_BYTES]) for at in range(0, len(view), SHOWN_BYTES))
    for link in work.links:
        yield f"link\n{link.path}\n{link.target}\n".encode()
    for path in work.stale:
        yield f"rmdir\n{path.removesuffix('/')}\n".encode() if path.endswith("/") else f"remove\n{path}\n".encode()
    yield "".join(f"kept {known}\n{path}\n" for path, known in work.kept).encode()
    yield b"commit\n"


def _compare(file: PlannedFile, line: str, rest: bytes) -> tuple[Change, bool, bytes | None, bytes]:
    """Say what must change, whether it lies ready, what was there before as far as it is told, and what follows."""
    match line.split():
        case ["missing", ("fresh" | "staged") as ready]:
            return Change(file.path, "add", diff_of(file, None)), ready == "staged", None, rest
        case ["file", mode, uid, gid, size, _, _, _, _, digest, ("fresh" | "staged") as ready] if size.isdecimal():
            if digest == _digest(file):
                right = (mode, uid) == (f"{file.mode:o}", "0") and (is_secret(file) or gid == "0")
                return Change(file.path, "keep" if right else "change"), False, file.content, rest
            before = b"\xff"  # no text, so no diff
            if not is_secret(file) and int(size) <= SHOWN_BYTES:
                before, rest = rest[: int(size)], rest[int(size) :]
            return Change(file.path, "change", diff_of(file, before)), ready == "staged", before, rest
    raise RemoteProtocolError("malformed", f"the target said {line!r} of {file.path}")


def _line(rest: bytes) -> tuple[str, bytes]:
    line, newline, rest = rest.partition(b"\n")
    if not newline:
        raise RemoteProtocolError("malformed", "the target's answer ends too early")
    return line.decode(errors="replace"), rest


def _digest(file: PlannedFile) -> str:
    return _sha256(file.content)


@lru_cache(maxsize=1024)  # a fleet shares its wheels
def _sha256(content: bytes) -> str:
    return sha256(content).hexdigest()
