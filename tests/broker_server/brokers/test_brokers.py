"""Private brokers: they answer once started, keep what is retained, end in order, and never outlive their parent."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from queue import Queue
from typing import Any, ClassVar

import psutil
import pytest

from broker_server.brokers import Broker, BrokerKind, BrokerOptions, choose_broker
from broker_server.brokers.base import answers
from edge_protocol.errors import NotReadyError, TransportError
from edge_protocol.transport.base import Received
from edge_protocol.transport.mqtt import MqttTransport
from tests.fakes.brokers import make_broker
from tests.fakes.scripted_broker import Link, ScriptedBroker
from tests.fakes.waiting import next_of, wait_for

KINDS: tuple[BrokerKind, ...] = ("mosquitto", "nats")
each_kind = pytest.mark.parametrize("kind", KINDS)


class Impostor(Broker):
    """A program that is no broker: a shell command."""

    kind: ClassVar[str] = "impostor"
    install: ClassVar[str] = "run: true"
    script: ClassVar[str] = "true"

    @classmethod
    def program(cls) -> str | None:
        """The shell."""
        return shutil.which("sh")

    def configuration(self) -> str:
        """The command."""
        return self.script

    def arguments(self, file: Path) -> list[str]:
        """Run it."""
        return [str(file)]


class Quitter(Impostor):
    """Ends at once."""

    script = "echo 'Error: no such option' >&2; exit 3"


class Mute(Impostor):
    """Never answers, and ignores SIGTERM."""

    script = "trap '' TERM; echo thinking; while :; do sleep 0.05; done"


class Absent(Impostor):
    """Not installed."""

    @classmethod
    def program(cls) -> str | None:
        """Nowhere."""
        return None


@each_kind
def test_a_started_broker_answers_until_it_is_stopped(kind: BrokerKind, tmp_path: Path) -> None:
    """Between start and stop a CONNECT is accepted on a port of its own; starting and stopping twice is harmless."""
    broker = make_broker(kind, tmp_path / "with space")
    assert not broker.running
    assert broker.wait(0)
    with broker:
        pid = broker.pid
        broker.start()
        assert broker.pid == pid
        assert answers("127.0.0.1", broker.port, timeout_s=5)
        assert not broker.wait(0.01)
        assert broker.log_file.exists()
    assert (broker.running, broker.pid) == (False, None)
    assert not answers("127.0.0.1", broker.port, timeout_s=1)
    broker.stop()


@each_kind
def test_retained_messages_outlive_an_orderly_end(kind: BrokerKind, tmp_path: Path) -> None:
    """After stop and start, on the same port, a retained message is still there."""
    with make_broker(kind, tmp_path) as broker:
        for keep in (True, False):
            inbox: Queue[Any] = Queue(100)
            transport = MqttTransport(broker.settings, "one", inbox)
            transport.subscribe(["kept"])
            transport.start()
            if keep:
                wait_for(lambda t=transport: t.publish("kept", b"state", retain=True), "room")
            received = next_of(inbox, Received)
            assert (received.payload, received.retained) == (b"state", not keep)
            transport.close()
            if keep:
                broker.stop()
                broker.start()


@each_kind
def test_a_taken_port_is_explained(kind: BrokerKind, tmp_path: Path) -> None:
    """A port that something else holds is refused before that something's answers can pass for the broker's."""
    with ScriptedBroker(lambda link: link.raw.close()) as squatter:
        broker = choose_or_skip(kind, BrokerOptions(state_dir=tmp_path, port=squatter.port))
        with pytest.raises(NotReadyError, match=rf"broker {kind} on 127.0.0.1:{squatter.port}: .*(?i:address)"):
            broker.start()
    assert not broker.running


@each_kind
def test_the_packet_limit_holds(kind: BrokerKind, tmp_path: Path) -> None:
    """A message above the limit does not pass, even from a client that ignores it."""
    with choose_or_skip(kind, BrokerOptions(state_dir=tmp_path, max_packet_bytes=4096)) as broker:
        assert broker.settings.max_packet_bytes == 4096
        with socket.create_connection(("127.0.0.1", broker.port), 10) as raw:
            link = Link(raw, 1)
            link.send(1, b"\0\4MQTT\4\2\0\5\0\3big")
            assert link.read().body == b"\0\0"
            link.publish("a", bytes(10_000))
            with pytest.raises((EOFError, ConnectionError)):
                link.read()


def test_a_broker_that_quits_is_quoted(tmp_path: Path) -> None:
    """Its exit code and last words are in the error."""
    with pytest.raises(NotReadyError, match=r"ended with code 3: Error: no such option"):
        Quitter(BrokerOptions(state_dir=tmp_path)).start()


def test_a_broker_that_does_not_answer_is_killed(tmp_path: Path) -> None:
    """After the start timeout the process is gone, even when it ignores SIGTERM."""
    broker = Mute(BrokerOptions(state_dir=tmp_path, start_timeout_s=0.3, stop_timeout_s=0.1))
    with pytest.raises(TransportError, match=r"does not answer after 0\.3 s: thinking"):
        broker.start()
    assert not broker.running


def test_a_missing_program_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both the direct start and the choice say how to install a broker."""
    with pytest.raises(NotReadyError, match="not installed; run: true"):
        Absent(BrokerOptions(state_dir=tmp_path)).start()
    monkeypatch.setattr("broker_server.brokers.choose.BROKERS", (Absent,))
    with pytest.raises(NotReadyError, match=r"no MQTT broker is installed here \(impostor\); run: true"):
        choose_broker("auto", options=BrokerOptions(state_dir=tmp_path))


def test_the_first_installed_broker_is_chosen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` goes past what is not installed; a name takes that one."""
    monkeypatch.setattr("broker_server.brokers.choose.BROKERS", (Absent, Quitter))
    assert isinstance(choose_broker(options=BrokerOptions(state_dir=tmp_path)), Quitter)


@pytest.mark.parametrize(
    ("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("127.0.0.2", "127.0.0.2"), ("localhost", "localhost")]
)
def test_clients_on_this_machine_know_where_to_go(tmp_path: Path, host: str, reached: str) -> None:
    """A broker bound to every address is reached on loopback."""
    assert Quitter(BrokerOptions(state_dir=tmp_path, host=host, port=1)).settings.host == reached


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="util-linux has no setpriv here")
def test_a_broker_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """When the process that started it is killed with SIGKILL, the broker ends too."""
    make_broker("auto", tmp_path)
    script = (
        "import sys, time; from pathlib import Path; from broker_server.brokers import *\n"
        "broker = choose_broker(options=BrokerOptions(state_dir=Path(sys.argv[1]))); broker.start()\n"
        "print(broker.pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", script, str(tmp_path)], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        os.kill(parent.pid, signal.SIGKILL)
    wait_for(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "end of the broker")


def test_probing_something_else_says_no() -> None:
    """A port that refuses, one that hangs up, and one that denies CONNECT are no broker that answers."""

    def deny(link: Link) -> None:
        link.accept(code=5)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        closer = threading.Thread(target=lambda: listener.accept()[0].close())  # noqa: PLW0108  accept must wait
        closer.start()
        assert not answers("127.0.0.1", port, timeout_s=5)
        closer.join()
    assert not answers("127.0.0.1", port, timeout_s=1)
    with ScriptedBroker(deny) as broker:
        assert not answers("127.0.0.1", broker.port, timeout_s=5)


def choose_or_skip(kind: BrokerKind, options: BrokerOptions) -> Broker:
    """A broker with these options, or a skipped test."""
    try:
        return choose_broker(kind, options=options)
    except NotReadyError as error:
        pytest.skip(str(error))
