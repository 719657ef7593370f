"""Commands on a real sshd that hang, flood, or take nothing: the connection is cut, and the error says which."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import asyncssh
import pytest

from devices.provision.connection import Login, Patience, Said, connected
from devices.provision.plan import Plan
from devices.provision.site import SshConfig
from devices.provision.ssh import Place, flash_target
from edge_protocol.errors import NotReadyError, TransportError
from tests.fakes.sshd import SKIP_REASON, Sshd

pytestmark = pytest.mark.skipif(bool(SKIP_REASON), reason=SKIP_REASON)
LITTLE = Patience(take_s=2, end_s=2, said_bytes=100_000)


@pytest.fixture(name="sshd", scope="module")
def started_sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    """A started server."""
    with Sshd(tmp_path_factory.mktemp("ssh") / "sshd") as server:
        yield server


def _ask(sshd: Sshd, command: str, *pieces: bytes) -> Said:
    async def ask() -> Said:
        async with connected(sshd.target(fingerprint=sshd.fingerprint), sshd.login) as connection:
            return await connection.ask(command, pieces, patience=LITTLE)

    return asyncio.run(asyncio.wait_for(ask(), 60))


def test_what_a_command_says_is_told_apart_and_its_status_kept(sshd: Sshd) -> None:
    """Up to the limit on each output."""
    said = _ask(sshd, "cat; echo wrong >&2; exit 7", b"a" * 50_000, b"b" * 50_000)
    assert said == Said(7, b"a" * 50_000 + b"b" * 50_000, b"wrong\n")


@pytest.mark.parametrize(
    ("command", "size", "says"),
    [
        ("sleep 30", 0, "does not come to an end within 2 s"),
        ("exec >&- 2>&-; sleep 30", 0, "does not come to an end within 2 s"),
        ("sleep 30", 9_000_000, "takes nothing any more within 2 s"),
    ],
)
def test_a_command_that_hangs_is_cut_off(command: str, size: int, says: str, sshd: Sshd) -> None:
    """Whether it is asked, has closed its outputs, or is told something; it may be tried again."""
    with pytest.raises(TransportError, match=f"127.0.0.1.*{says}; run it again"):
        _ask(sshd, command, bytes(size), b"")


@pytest.mark.parametrize("output", ["", " >&2"])
def test_a_command_that_floods_is_cut_off(output: str, sshd: Sshd) -> None:
    """On either output, long before it fills this machine's memory."""
    with pytest.raises(NotReadyError, match=r"127\.0\.0\.1: it says more than 100000 bytes"):
        _ask(sshd, f"cat /dev/zero{output}")


def test_a_target_cannot_answer_more_than_the_plan_has_room_for() -> None:
    """Its answer to a flash is bounded by what is asked."""

    async def flood(process: asyncssh.SSHServerProcess[str]) -> None:
        try:
            while True:
                process.stdout.write("A" * 65536)
                await process.stdout.drain()
        except OSError:
            process.exit(0)

    class Open(asyncssh.SSHServer):
        def begin_auth(self, username: str) -> bool:
            return False

    async def flash() -> None:
        key = asyncssh.generate_private_key("ssh-ed25519")
        listener = await asyncssh.listen(
            "127.0.0.1", 0, server_host_keys=[key], server_factory=Open, process_factory=flood
        )
        async with listener:
            target = SshConfig(host="127.0.0.1", port=listener.get_port(), fingerprint=key.get_fingerprint())
            await flash_target(target, Plan((), ()), Login(Path("none"), password="x"), Place())

    with pytest.raises(NotReadyError, match="it says more than 65536 bytes"):
        asyncio.run(asyncio.wait_for(flash(), 60))
