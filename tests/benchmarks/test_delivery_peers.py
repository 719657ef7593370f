"""Delivery beside peers, without them: turns led over a real link, what is counted, what a missing peer says."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psutil
import pytest

from benchmarks.delivery.link import Link
from benchmarks.delivery.peer_fleets import PINS, ROOT, Fleet, free_ports, peers_installed, wait_open
from benchmarks.delivery.peer_side.turns import BYTES, PORT
from benchmarks.delivery.peer_turns import Crossed, Lead
from benchmarks.delivery.peers import summary
from edge_protocol.errors import CheckFailedError, NotReadyError

PEER = """
import socket, sys
from benchmarks.delivery.peer_side.turns import arrived, blob, turns
entry, clients, damage = int(sys.argv[1]), sys.argv[2].split(), sys.argv[3] == "damage"
for seed, begin in turns():
    if not clients:
        break
    data, sha256 = blob(seed)
    begin()
    for client in clients:
        with socket.create_connection(("127.0.0.1", entry)) as link:
            link.sendall(data)
            link.shutdown(socket.SHUT_WR)
            while link.recv(1 << 16):
                pass
        arrived(client, data[1:] if damage else data, sha256)
"""
"""A peer whose one process is server and clients: bytes of each go up the link, to a sink that answers nothing."""

Turns = Callable[..., Callable[[int], Crossed]]


@pytest.fixture
def sink() -> Iterator[int]:
    """A server that reads and then hangs up; its port."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    def drain(link: socket.socket) -> None:
        with link:
            while link.recv(1 << 16):
                pass

    def accept() -> None:
        while True:
            try:
                link, _ = listener.accept()
            except OSError:
                return
            threading.Thread(target=drain, args=(link,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


@pytest.fixture
def peer(sink: int) -> Iterator[Turns]:
    """Starts the peer with such clients; what that returns takes the turn of a seed, for two clients."""
    with ExitStack() as stack:

        def start(clients: str, damage: str = "", timeout_s: float = 60) -> Callable[[int], Crossed]:
            lead, link = stack.enter_context(Lead()), stack.enter_context(Link(sink))
            process = subprocess.Popen(
                [sys.executable, "-c", PEER, str(link.port), clients, damage],
                env={**os.environ, "PYTHONPATH": str(ROOT), PORT: str(lead.port)},
            )
            stack.callback(process.wait)
            stack.callback(process.kill)
            lead.wait_ready(60)
            return lambda seed: lead.turn(seed, 2, link, timeout_s)

        yield start


def test_a_turn_counts_what_all_clients_were_sent(peer: Turns) -> None:
    """Twice in a row: the bytes of that turn alone, and time passes."""
    turn = peer("a b")
    for seed in (1, 2):
        found = turn(seed)
        assert (found.up, found.down, found.total) == (2 * BYTES, 0, 2 * BYTES)
        assert found.seconds > 0


def test_a_client_that_speaks_twice_is_one_client(peer: Turns) -> None:
    """And so the turn waits for the other one, says so, and ends."""
    turn = peer("a a", timeout_s=2)
    with pytest.raises(NotReadyError, match="1 of 2 clients"):
        turn(1)


def test_other_bytes_than_were_sent_end_the_benchmark(peer: Turns) -> None:
    """A peer that damages what it delivers has no figure."""
    turn = peer("a b", "damage")
    with pytest.raises(CheckFailedError, match="client a"):
        turn(1)


def test_a_server_that_dies_in_a_turn_is_not_waited_for(peer: Turns) -> None:
    """The benchmark ends at once, and points to the logs."""
    turn = peer("")
    with pytest.raises(NotReadyError, match="server ended"):
        turn(1)


def test_a_server_that_never_comes_is_said() -> None:
    """Rather than waited for without end."""
    with Lead() as lead, pytest.raises(NotReadyError, match="server to be ready"):
        lead.wait_ready(0.05)


def test_our_share_is_of_each_turn() -> None:
    """Ratios are ours over theirs, of bytes in both directions, turn by turn."""
    found = summary([Crossed(1, 3, 1), Crossed(2, 3, 1)], [Crossed(4, 7, 1), Crossed(4, 7, 1)])
    assert found["time"].median == 0.375
    assert found["bytes"].median == 0.5


def test_a_missing_or_other_peer_says_how_to_get_it(tmp_path: Path) -> None:
    """Each name that is pinned has to be there, in that version."""
    pins = tmp_path / "pins.txt"
    pins.write_text("# peers\nflwr==1.2\nnvflare==3.4\n", encoding="utf-8")
    packages = tmp_path / "venv" / "lib" / "python3.11" / "site-packages"
    for name in ("flwr-1.2", "nvflare-3.3"):
        (packages / f"{name}.dist-info").mkdir(parents=True)
    with pytest.raises(NotReadyError, match=r"nvflare 3.4 is not in .*; run: make peers"):
        peers_installed(tmp_path / "venv", pins)
    (packages / "nvflare-3.4.dist-info").mkdir()
    assert peers_installed(tmp_path / "venv", pins) == {"flwr": "1.2", "nvflare": "3.4"}


def test_the_real_pins_name_both_peers(tmp_path: Path) -> None:
    """The file that `make peers` installs from."""
    with pytest.raises(NotReadyError, match=r"flwr 1\.41\.0"):
        peers_installed(tmp_path, ROOT / PINS)


def test_a_fleet_ends_with_all_that_it_started(tmp_path: Path) -> None:
    """Also what has left its parent and its session, as FLARE's jobs do."""
    child = "import time; open('child', 'w').close(); time.sleep(600)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}], start_new_session=True)"
    with Lead() as lead:
        fleet = Fleet(tmp_path / "run", lead, {})
        try:
            fleet.do(sys.executable, "-c", parent)
            until = time.monotonic() + 60
            while not (tmp_path / "run" / "child").exists():
                assert time.monotonic() < until
                time.sleep(0.05)
        finally:
            fleet.close()
        assert not [process for process in psutil.process_iter() if child in _command(process)]


def _command(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def test_a_command_that_fails_says_what_it_said(tmp_path: Path) -> None:
    """Such as a peer that refuses its configuration."""
    with Lead() as lead, pytest.raises(NotReadyError, match="ended with 7: no such job"):
        Fleet(tmp_path / "run", lead, {}).do(sys.executable, "-c", "print('no such job'); raise SystemExit(7)")


def test_ports_are_free_and_waited_for() -> None:
    """Each is another one, and a server on it is found."""
    ports = free_ports(4)
    assert len(set(ports)) == 4
    with socket.create_server(("127.0.0.1", ports[0])):
        wait_open(ports[0])
