"""A connection to a target whose host key is pinned, and commands run there; owns asyncssh, not what is said.

A host key must be pinned: by its fingerprint, or in a known_hosts file. An unknown or changed one is refused before a
password or a byte of a command is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple

import asyncssh
import msgspec

from devices.provision.site import SshConfig
from edge_protocol.errors import ConfigError, NotReadyError, TransportError

_CIPHERS = ("aes128-gcm@openssh.com", "aes256-gcm@openssh.com", "chacha20-poly1305@openssh.com", "aes256-ctr")
"""AES-GCM first: the most bytes a CPU second, on boards with AES instructions as well."""
_HOST_KEYS = (
    ("ssh-ed25519",),
    ("ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"),
    ("rsa-sha2-512", "rsa-sha2-256"),
)
"""A target shows one host key of several, and a fingerprint does not say of which kind it is: each is asked for."""
_CONNECT_S, _KEEPALIVE_S = 20, 15


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


class Said(NamedTuple):
    """What a command left behind; a status of None: the connection was cut."""

    status: int | None
    stdout: bytes
    stderr: bytes


class Connection:
    """A target that let us in."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection = connection

    async def ask(self, command: str, pieces: Iterable[bytes], *, hold: bool = False) -> Said:
        """Run a command line and give it pieces of input as it takes them.

        Args:
            command: for the login shell there.
            pieces: its standard input.
            hold: leave its input open until it ends, so that it can tell when this side is gone.
        """
        async with self._connection.create_process(command, encoding=None) as process:
            try:
                for piece in pieces:
                    process.stdin.write(piece)
                    await process.stdin.drain()
                if not hold:
                    process.stdin.write_eof()
            except BrokenPipeError:
                pass  # it has stopped; its status says why
            done = await process.wait()
            assert isinstance(done.stdout, bytes)
            assert isinstance(done.stderr, bytes)
            return Said(done.exit_status, done.stdout, done.stderr)

    async def follow(self, command: str, say: Callable[[str], None]) -> Said:
        """Run a command line without input, and hand on what it prints line by line, as it comes."""
        async with self._connection.create_process(command, encoding=None) as process:
            while line := await process.stdout.readline():
                say(bytes(line).decode(errors="replace").rstrip("\n"))
            done = await process.wait()
            assert isinstance(done.stderr, bytes)
            return Said(done.exit_status, b"", done.stderr)


@asynccontextmanager
async def connected(target: SshConfig, login: Login) -> AsyncIterator[Connection]:
    """Connect, and say of every way in which it fails what to do.

    Raises:
        NotReadyError: the host key is not pinned or another, or the login is refused.
        TransportError: no connection, or it was cut.
    """
    try:
        async with await _connect(target, login) as connection:
            yield Connection(connection)
    except asyncssh.PermissionDenied as error:
        says = f"{target.host}: {target.user} was not let in; give --identity, or a password, or another user"
        raise NotReadyError(says) from error
    except (asyncssh.Error, OSError, asyncio.TimeoutError) as error:
        says = (
            f"{target.host}:{target.port}: no SSH connection, or it was cut: {str(error) or 'too slow'}; run it again"
        )
        raise TransportError(says) from error


async def _connect(target: SshConfig, login: Login) -> asyncssh.SSHClientConnection:
    client = _PinnedClient(target, login)
    kinds: tuple[tuple[str, ...], ...] = _HOST_KEYS if target.fingerprint else ((),)
    for kind in kinds:
        try:
            connection, _ = await asyncssh.create_connection(
                lambda: client,
                target.host,
                target.port,
                username=target.user,
                config=None,
                known_hosts=client.trusted(),
                server_host_key_algs=kind,
                encryption_algs=_CIPHERS,
                compression_algs=None,
                connect_timeout=_CONNECT_S,
                login_timeout=_CONNECT_S,
                keepalive_interval=_KEEPALIVE_S,
                **_keys(login),
            )
        except (asyncssh.HostKeyNotVerifiable, asyncssh.KeyExchangeFailed) as error:  # noqa: PERF203 - three kinds
            refused = client.refusal or f"{target.host}: its host key is refused: {error}"
        except asyncssh.KeyImportError as error:
            raise ConfigError(f"{login.identity or login.known_hosts}: no key that can be read: {error}") from error
        else:
            return connection
    raise NotReadyError(refused)


def _keys(login: Login) -> dict[str, object]:
    if login.password is not None:
        return {"password": login.password, "client_keys": None, "agent_path": None}
    if login.identity is None:
        return {}
    if not login.identity.is_file():
        raise ConfigError(f"--identity: {login.identity} is no file")
    return {"client_keys": [str(login.identity)], "agent_path": None}


class _PinnedClient(asyncssh.SSHClient):
    """Decides on the host key, and remembers why the first one was refused."""

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
        self.refusal = self.refusal or (
            f"{host}:{port}: its host key {offered} ({key.get_algorithm()}) {what}; compare it with "
            f"ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub on the device, then pin it in {where}"
        )
        return False
