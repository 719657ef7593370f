"""Carries a plan out on a running target over SSH. Owns the connection; what it says is in `remote`.

A host key must be pinned: by its fingerprint, or in a known_hosts file. An unknown or changed one is refused before a
password or a byte of a plan is sent. On the target runs ``target.sh``: one question, and, when something is to be
written, one order.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import asyncssh
import msgspec

from devices.provision.changes import Change
from devices.provision.plan import Plan
from devices.provision.remote import Work, orders, question, work_of
from devices.provision.site import SshConfig
from edge_protocol.errors import ConfigError, NotReadyError, RoadcastError, StoreError, TransportError

_SCRIPT = Path(__file__).with_name("target.sh").read_text(encoding="utf-8")
_AS_ROOT = """if [ "$(id -u)" = 0 ]; then exec sh -c "$@"; fi
command -v sudo >/dev/null || exit 91
sudo -n true 2>/dev/null || exit 92
exec sudo -n sh -c "$@\""""
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr")
"""AES-GCM first: the most bytes a CPU second, on boards with AES instructions as well."""
_CONNECT_S, _KEEPALIVE_S = 20, 15

Told = Callable[[str], None]
"""Takes what goes on, in a word or two."""


class Login(msgspec.Struct, frozen=True):
    """Who we are, and whom we trust.

    Attributes:
        known_hosts: file of host keys, for targets without a fingerprint.
        identity: private key file; None for the agent's and the usual ones.
        password: used instead of keys.
    """

    known_hosts: Path
    identity: Path | None = None
    password: str | None = None


class Place(msgspec.Struct, frozen=True):
    """Where on a target a plan is carried out.

    Attributes:
        root: folder that stands for the root.
        python: the board's Python, below it.
        live: the root is the running system's, so that systemd is told.
    """

    root: str = "/"
    python: str = "/usr/bin/python3"
    live: bool = True


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
        NotReadyError: the host key is not pinned or another, the login is refused, or the target lacks something.
        StoreError: the target refused; what was there before is there again.
        TransportError: no connection, or it was cut; the next run goes on.
    """
    asked = question(plan)
    told("connecting")
    try:
        async with await _connect(target, login) as connection:
            told("comparing")
            looked = await _talk(connection, _command("look", place), [asked])
            if looked.exit_status != 0:
                raise _failure(target, looked.exit_status, looked.stderr)
            assert isinstance(looked.stdout, bytes)
            work = work_of(plan, looked.stdout)
            if work.needed and not dry_run:
                await _apply(connection, target, place, work, told)
    except asyncssh.PermissionDenied as error:
        says = f"{target.host}: {target.user} was not let in; give --identity, or a password, or another user"
        raise NotReadyError(says) from error
    except (asyncssh.Error, OSError, asyncio.TimeoutError) as error:
        says = (
            f"{target.host}:{target.port}: no SSH connection, or it was cut: {str(error) or 'too slow'}; run it again"
        )
        raise TransportError(says) from error
    return work.changes


async def _apply(
    connection: asyncssh.SSHClientConnection, target: SshConfig, place: Place, work: Work, told: Told
) -> None:
    def pieces() -> Iterator[bytes]:
        total, sent = work.total_bytes, 0
        for piece in orders(work):
            yield piece
            sent = min(sent + len(piece), total)
            told(f"sending {sent / 1e6:.1f} of {total / 1e6:.1f} MB")
        told("replacing")

    done = await _talk(connection, _command("apply", place), pieces())
    if done.exit_status != 0 or done.stdout != b"applied\n":
        raise _failure(target, done.exit_status, done.stderr)


async def _talk(
    connection: asyncssh.SSHClientConnection, command: str, pieces: Iterable[bytes]
) -> asyncssh.SSHCompletedProcess:
    async with connection.create_process(command, encoding=None) as process:
        try:
            for piece in pieces:
                process.stdin.write(piece)
                await process.stdin.drain()
            process.stdin.write_eof()
        except BrokenPipeError:
            pass  # it has stopped; its status says why
        return await process.wait()


async def _connect(target: SshConfig, login: Login) -> asyncssh.SSHClientConnection:
    client = _PinnedClient(target, login)
    try:
        connection, _ = await asyncssh.create_connection(
            lambda: client,
            target.host,
            target.port,
            username=target.user,
            config=None,
            known_hosts=client.trusted(),
            server_host_key_algs="default" if target.fingerprint else (),
            encryption_algs=_CIPHERS,
            compression_algs=None,
            connect_timeout=_CONNECT_S,
            login_timeout=_CONNECT_S,
            keepalive_interval=_KEEPALIVE_S,
            **_keys(login),
        )
    except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as error:
        raise NotReadyError(client.refusal or f"{target.host}: its host key is refused: {error}") from error
    except asyncssh.KeyImportError as error:
        raise ConfigError(f"{login.identity or login.known_hosts}: no key that can be read: {error}") from error
    return connection


def _keys(login: Login) -> dict[str, object]:
    if login.password is not None:
        return {"password": login.password, "client_keys": None, "agent_path": None}
    if login.identity is None:
        return {}
    if not login.identity.is_file():
        raise ConfigError(f"--identity: {login.identity} is no file")
    return {"client_keys": [str(login.identity)], "agent_path": None}


class _PinnedClient(asyncssh.SSHClient):
    """Decides on the host key, and remembers why it was refused."""

    def __init__(self, target: SshConfig, login: Login) -> None:
        self._target, self._file = target, login.known_hosts
        self.refusal = ""

    def trusted(self) -> asyncssh.known_hosts.KnownHostsArg:
        """What asyncssh may take without asking: the file's keys, or none where a fingerprint is pinned."""
        if self._target.fingerprint:
            return ([], [], [])
        if not self._file.is_file():
            says = f"{self._target.host}: no fingerprint in the site and no file {self._file}"
            raise NotReadyError(f"{says}; read the key on the device: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub")
        try:
            return asyncssh.read_known_hosts(str(self._file))
        except (ValueError, OSError) as error:
            raise ConfigError(f"--known-hosts: {self._file} cannot be read: {error}") from error

    def validate_host_public_key(self, host: str, addr: str, port: int, key: asyncssh.SSHKey) -> bool:
        """Compare with the fingerprint; a key that the file does not hold comes here as well, and is refused."""
        offered, pinned = key.get_fingerprint(), self._target.fingerprint
        if offered == pinned:
            return True
        where = "site" if pinned else str(self._file)
        known = pinned or any(asyncssh.match_known_hosts(str(self._file), host, addr, port)[0])
        what = f"is not the one in {where}: it was set up anew, or somebody is in between" if known else "is unknown"
        self.refusal = (
            f"{host}:{port}: its host key {offered} ({key.get_algorithm()}) {what}; compare it with "
            f"ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on the device, then pin it in {where}"
        )
        return False


def _command(action: str, place: Place) -> str:
    live = "yes" if place.live else "no"
    return shlex.join(["sh", "-c", _AS_ROOT, "roadcast", _SCRIPT, "roadcast", action, place.root, place.python, live])


def _failure(target: SshConfig, status: int | None, stderr: object) -> RoadcastError:
    lines = stderr.decode(errors="replace").splitlines() if isinstance(stderr, bytes) else []
    says = f"{target.host}: " + "; ".join(line.removeprefix("failed ") for line in lines[-4:])
    match status:
        case 91:
            return NotReadyError(f"{target.host}: {target.user} is not root and there is no sudo; log in as root")
        case 92:
            return NotReadyError(
                f"{target.host}: sudo wants a password of {target.user}; log in as root, or put this line into "
                f"/etc/sudoers.d/roadcast there: {target.user} ALL=(ALL) NOPASSWD: ALL"
            )
        case 93:
            return StoreError(f"{says}; what was there before is there again")
        case 95:
            return NotReadyError(says)
        case None | 94:
            return TransportError(f"{target.host}: the connection was cut; run it again, it goes on from there")
    return NotReadyError(f"{says} (its shell left with {status})")
