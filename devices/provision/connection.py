"""A connection to a target whose host key is pinned, and commands run there; owns asyncssh, not what is said.

A host key must be pinned: by its fingerprint, or in a known_hosts file. An unknown or changed one is refused before a
password or a byte of a command is sent.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import NamedTuple, TypeVar

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
_PIECE = 65536
T = TypeVar("T")


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


class Patience(msgspec.Struct, frozen=True):
    """What is put up with from a target; past it the connection is cut.

    Attributes:
        take_s: seconds until it has taken the next piece of its input.
        end_s: seconds until it has ended, after the last piece.
        said_bytes: of each of its outputs.
    """

    take_s: float = 300
    end_s: float = math.inf
    said_bytes: int = 1 << 26


_PATIENCE = Patience()


class Said(NamedTuple):
    """What a command left behind; a status of None: the connection was cut."""

    status: int | None
    stdout: bytes
    stderr: bytes


class Connection:
    """A target that let us in."""

    def __init__(self, connection: asyncssh.SSHClientConnection) -> None:
        self._connection = connection

    async def ask(
        self, command: str, pieces: Iterable[bytes], *, hold: bool = False, patience: Patience = _PATIENCE
    ) -> Said:
        """Run a command line and give it pieces of input as it takes them.

        Args:
            command: for the login shell there.
            pieces: its standard input.
            hold: leave its input open until it ends, so that it can tell when this side is gone.
            patience: how long it may take, and how much say.

        Raises:
            TimeoutError: it took longer.
            OverflowError: it said more.
        """
        starting = self._connection.create_process(command, encoding=None)
        async with await _within(starting, patience.take_s, "it starts nothing") as process:
            try:
                try:
                    for piece in pieces:
                        process.stdin.write(piece)
                        await _within(process.stdin.drain(), patience.take_s, "it takes nothing any more")
                    if not hold:
                        process.stdin.write_eof()
                except BrokenPipeError:
                    pass  # it has stopped; its status says why
                out, err = (_all_of(output, patience.said_bytes) for output in (process.stdout, process.stderr))
                ended = asyncio.gather(out, err, process.wait_closed())
                stdout, stderr, _ = await _within(ended, patience.end_s, "it does not come to an end")
            except (TimeoutError, OverflowError):
                self._connection.abort()  # it may not answer to a close either
                raise
        return Said(process.exit_status, stdout, stderr)

    async def follow(self, command: str, say: Callable[[str], None]) -> Said:
        """Run a command line without input, and hand on what it prints line by line, as it comes."""
        async with self._connection.create_process(command, encoding=None) as process:
            while line := await process.stdout.readline():
                say(bytes(line).decode(errors="replace").rstrip("\n"))
            done = await process.wait()
            assert isinstance(done.stderr, bytes)
            return Said(done.exit_status, b"", done.stderr)


async def _within(waited: Awaitable[T], seconds: float, says: str) -> T:
    try:
        return await asyncio.wait_for(waited, seconds)
    except asyncio.TimeoutError as error:
        raise TimeoutError(f"{says} within {seconds:.0f} s") from error


async def _all_of(output: asyncssh.SSHReader[bytes], most: int) -> bytes:
    pieces, size = [], 0
    while piece := await output.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > most:
            raise OverflowError(f"it says more than {most} bytes")
    return b"".join(pieces)


@asynccontextmanager
async def connected(target: SshConfig, login: Login) -> AsyncIterator[Connection]:
    """Connect, and say of every way in which it fails what to do.

    Raises:
        NotReadyError: the host key is not pinned or another, the login is refused, or it floods its outputs.
        TransportError: no connection, or it was cut, or cut off for it took too long.
    """
    try:
        async with await _connect(target, login) as connection:
            yield Connection(connection)
    except asyncssh.PermissionDenied as error:
        says = f"{target.host}: {target.user} was not let in; give --identity, or a password, or another user"
        raise NotReadyError(says) from error
    except OverflowError as error:
        raise NotReadyError(f"{target.host}: {error} in answer; what does its login shell run?") from error
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
