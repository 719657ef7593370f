"""A connection to a running target over SSH: who we are, whom we trust, and what went wrong. Owns no plan.

A host key must be pinned: by its fingerprint, or in a known_hosts file. An unknown or changed one is refused before a
password is sent.
"""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, TypeAlias

import asyncssh
import msgspec

from devices.provision.site import SshConfig
from edge_protocol.errors import ConfigError, NotReadyError, RoadcastError, TransportError

AS_ROOT = """if [ "$(id -u)" = 0 ]; then exec sh -c "$@"; fi
command -v sudo >/dev/null || exit 91
sudo -n true 2>/dev/null || exit 92
exec sudo -n sh -c "$@\""""
"""A program for a target's shell: run the next argument as root, with those after it."""
_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr")
"""AES-GCM first: the most bytes a CPU second, on boards with AES instructions as well."""
_CONNECT_S, _KEEPALIVE_S = 20, 15

Connection: TypeAlias = asyncssh.SSHClientConnection
Told: TypeAlias = Callable[[str], None]
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


class Done(NamedTuple):
    """How a program on a target ended: its exit status, None when the link was cut, and what it said."""

    status: int | None
    stdout: bytes
    stderr: str

    @property
    def last_words(self) -> str:
        """The end of what it complained of."""
        return "; ".join(line.removeprefix("failed ") for line in self.stderr.splitlines()[-4:])


async def connect(target: SshConfig, login: Login) -> Connection:
    """Open a connection; `explained` says what its errors mean.

    Raises:
        ConfigError: a key file cannot be read.
        NotReadyError: the host key is not pinned, or another.
    """
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


@contextmanager
def explained(target: SshConfig) -> Iterator[None]:
    """Say of a connection that failed what to do."""
    try:
        yield
    except asyncssh.PermissionDenied as error:
        says = f"{target.host}: {target.user} was not let in; give --identity, or a password, or another user"
        raise NotReadyError(says) from error
    except (asyncssh.Error, OSError, asyncio.TimeoutError) as error:
        says = (
            f"{target.host}:{target.port}: no SSH connection, or it was cut: {str(error) or 'too slow'}; run it again"
        )
        raise TransportError(says) from error


async def read_lines(target: SshConfig, command: Sequence[str], login: Login, say: Told) -> None:
    """Run a program on a target, as root where sudo lets us, and hand on what it prints, line by line.

    Raises:
        NotReadyError: the host key is not pinned or another, the login is refused, or the program failed.
        TransportError: no connection, or it was cut.
    """
    with explained(target):
        async with await connect(target, login) as connection:
            line = shlex.join(["sh", "-c", AS_ROOT, "roadcast", shlex.join(command)])
            async with connection.create_process(line, encoding=None) as process:
                while text := await process.stdout.readline():
                    say(bytes(text).decode(errors="replace").rstrip("\n"))
                done = _done(await process.wait())
            if done.status != 0:
                raise refusal(target, done)


async def talk(connection: Connection, command: str, pieces: Iterable[bytes]) -> Done:
    """Run a program on a target, give it bytes, and take what it says."""
    async with connection.create_process(command, encoding=None) as process:
        try:
            for piece in pieces:
                process.stdin.write(piece)
                await process.stdin.drain()
            process.stdin.write_eof()
        except BrokenPipeError:
            pass  # it has stopped; its status says why
        return _done(await process.wait())


def refusal(target: SshConfig, done: Done) -> RoadcastError:
    """Say what an exit status means; 91 and 92 come of `AS_ROOT`."""
    match done.status:
        case 91:
            return NotReadyError(f"{target.host}: {target.user} is not root and there is no sudo; log in as root")
        case 92:
            return NotReadyError(
                f"{target.host}: sudo wants a password of {target.user}; log in as root, or put this line into "
                f"/etc/sudoers.d/roadcast there: {target.user} ALL=(ALL) NOPASSWD: ALL"
            )
        case None:
            return TransportError(f"{target.host}: the connection was cut; run it again, it goes on from there")
    return NotReadyError(f"{target.host}: {done.last_words} (its shell left with {done.status})")


def _done(process: asyncssh.SSHCompletedProcess) -> Done:
    stdout, stderr = (said if isinstance(said, bytes) else b"" for said in (process.stdout, process.stderr))
    return Done(process.exit_status, stdout, stderr.decode(errors="replace"))
