"""Carries a plan out on a running target over SSH. Owns no connection; what it says is in `remote`.

On the target run ``target_systemd.sh`` and ``target.sh``, as one script: one question, and, when something is to be
written, one order.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec

from devices.provision.changes import Change
from devices.provision.connection import Connection, Login, Patience, Said, connected
from devices.provision.plan import Plan
from devices.provision.remote import Work, most_bytes, orders, question, work_of
from devices.provision.site import SshConfig
from edge_protocol.errors import NotReadyError, RemoteProtocolError, RoadcastError, StoreError, TransportError

_SCRIPT = "".join(Path(__file__).with_name(name).read_text() for name in ("target_systemd.sh", "target.sh"))
_AS_ROOT = """if [ "$(id -u)" = 0 ]; then exec sh -c "$@"; fi
command -v sudo >/dev/null || exit 91
sudo -n true 2>/dev/null || exit 92
exec sudo -n sh -c "$@\""""

_AFTERWARDS = {
    93: "what was there before is there again",
    96: "old and new files lie side by side: mend that, and run it again",
}
_LOOK_S, _READ_BYTES_S = 120, 4_000_000
"""A question is answered within that, and a second for what a slow card reads in one."""
_APPLY = Patience(end_s=2400, said_bytes=1 << 20)
"""The set-up of the wheels may take 1800 s, see `units`."""

Told = Callable[[str], None]
"""Takes what goes on, in a word or two."""


class Place(msgspec.Struct, frozen=True):
    """Where on a target a plan is carried out.

    Attributes:
        root: folder that stands for the root.
        python: the board's Python, below it.
        live: the root is the running system's, so that systemd is told.
        machine: the processor that it must have then, as ``uname -m`` says it; None for any.
    """

    root: str = "/"
    python: str = "/usr/bin/python3"
    live: bool = True
    machine: str | None = None


class Job(msgspec.Struct, frozen=True):
    """One device of a fleet to be flashed."""

    device: str
    target: SshConfig
    plan: Plan


async def flash_all(
    jobs: Sequence[Job],
    login: Login,
    place: Place,
    *,
    at_once: int,
    dry_run: bool = False,
    told: Callable[[str, str], None],
) -> list[tuple[Change, ...] | RoadcastError]:
    """Flash many targets, `at_once` of them at a time; one that fails stops no other.

    Args:
        jobs: what is flashed.
        login: how to get in.
        place: where the plans are carried out.
        at_once: connections at a time.
        dry_run: only say what would change.
        told: hears of a device and what goes on there.

    Returns:
        What changed, or what went wrong, in the order of `jobs`.
    """
    room = asyncio.Semaphore(at_once)

    async def one(job: Job) -> tuple[Change, ...] | RoadcastError:
        async with room:
            try:
                return await flash_target(
                    job.target, job.plan, login, place, dry_run=dry_run, told=lambda state: told(job.device, state)
                )
            except RoadcastError as error:
                return error

    return await asyncio.gather(*map(one, jobs))


async def flash_target(
    target: SshConfig,
    plan: Plan,
    login: Login,
    place: Place,
    *,
    dry_run: bool = False,
    told: Told = lambda _state: None,
) -> tuple[Change, ...]:
    """Carry a plan out on one target.

    Returns:
        What changed, as a tree's `rootfs.carry_out` says it.

    Raises:
        ConfigError: the plan cannot be sent.
        NotReadyError: the host key is not pinned or another, the login is refused, the target lacks something, its
            processor is another, or its answer is none.
        StoreError: the target refused, or the agent does not start; what was there before is there again.
        TransportError: no connection, or it was cut; the next run goes on.
    """
    asked = question(plan)
    told("connecting")
    async with connected(target, login) as connection:
        told("comparing")
        size = sum(len(file.content) for file in plan.files)
        patience = Patience(end_s=_LOOK_S + size / _READ_BYTES_S, said_bytes=most_bytes(plan))
        looked = await connection.ask(_command("look", place), [asked], patience=patience)
        if looked.status != 0:
            raise _failure(target, looked)
        try:
            work = work_of(plan, looked.stdout)
        except RemoteProtocolError as error:
            raise NotReadyError(f"{target.host}: {error}; does its login shell run anything else?") from error
        if place.live and place.machine not in {None, work.machine}:
            says = f"{target.host}: its processor is {work.machine}, and install.machine of the site {place.machine}"
            raise NotReadyError(f"{says}; is it the device that is meant?")
        if work.needed and not dry_run:
            await _apply(connection, target, place, work, told)
    return work.changes


async def follow(target: SshConfig, command: Sequence[str], login: Login, say: Told) -> None:
    """Run a program on a target as root, and hand on what it prints, line by line, until it ends.

    Raises:
        NotReadyError: the host key is not pinned or another, the login is refused, or the program failed.
        TransportError: no connection, or it was cut.
    """
    async with connected(target, login) as connection:
        done = await connection.follow(shlex.join(["sh", "-c", _AS_ROOT, "roadcast", shlex.join(command)]), say)
        if done.status != 0:
            raise _failure(target, done)


async def _apply(connection: Connection, target: SshConfig, place: Place, work: Work, told: Told) -> None:
    def pieces() -> Iterator[bytes]:
        total, sent = work.total_bytes, 0
        for piece in orders(work):
            yield piece
            sent = min(sent + len(piece), total)
            told(f"sending {sent / 1e6:.1f} of {total / 1e6:.1f} MB")
        told("replacing and installing" if place.live else "replacing")

    told("sending")
    done = await connection.ask(_command("apply", place), pieces(), patience=_APPLY)
    if done.status != 0 or not done.stdout.endswith(b"applied\n"):
        raise _failure(target, done)


def _command(action: str, place: Place) -> str:
    live = "yes" if place.live else "no"
    return shlex.join(["sh", "-c", _AS_ROOT, "roadcast", _SCRIPT, "roadcast", action, place.root, place.python, live])


def _failure(target: SshConfig, said: Said) -> RoadcastError:
    lines = said.stderr.decode(errors="replace").splitlines()
    says = f"{target.host}: " + "; ".join(line.removeprefix("failed ") for line in lines[-4:])
    match said.status:
        case 91:
            return NotReadyError(f"{target.host}: {target.user} is not root and there is no sudo; log in as root")
        case 92:
            return NotReadyError(
                f"{target.host}: sudo wants a password of {target.user}; log in as root, or put this line into "
                f"/etc/sudoers.d/roadcast there: {target.user} ALL=(ALL) NOPASSWD: ALL"
            )
        case 93 | 96:
            return StoreError(f"{says}; {_AFTERWARDS[said.status]}")
        case 95:
            return NotReadyError(says)
        case None | 94:
            return TransportError(f"{target.host}: the connection was cut; run it again, it goes on from there")
    return NotReadyError(f"{says} (its shell left with {said.status})")
