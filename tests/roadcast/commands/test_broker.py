"""``roadcast broker run``: says where it listens, serves until told to stop, and reports a broker that dies."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from broker_server.brokers.base import answers
from broker_server.brokers.secure import SecureMosquitto
from broker_server.ca.folder import CertificateAuthority
from edge_protocol.errors import ConfigError, NotReadyError, StoreError, TransportError
from edge_protocol.identity.certificates import make_key, make_request
from roadcast.cli import app as root
from roadcast.commands.broker import app, watch
from tests.fakes.brokers import make_broker
from tests.fakes.waiting import wait_for


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_real_command_serves_until_a_signal(tmp_path: Path, number: signal.Signals) -> None:
    """One JSON line tells the address; a client is accepted; the signal ends broker and command with code 0."""
    make_broker("auto", tmp_path)
    command = [sys.executable, "-m", "roadcast", "broker", "run", "--port", "0", "--state-dir", str(tmp_path), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        text = b""
        while not text.rstrip().endswith(b"}"):
            text += process.stdout.readline()
        place = json.loads(text)
        assert answers(place["host"], place["port"], timeout_s=5)
        process.send_signal(number)
        assert process.wait(20) == 0
    assert not answers(place["host"], place["port"], timeout_s=1)


def test_a_line_for_people_and_a_warning_for_the_brave(tmp_path: Path) -> None:
    """Without --json there is one line; binding to every address warns."""
    make_broker("auto", tmp_path)
    threading.Thread(target=_interrupt_when, args=(tmp_path,)).start()
    arguments = ["run", "--port", "0", "--host", "0.0.0.0", "--state-dir", str(tmp_path)]
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0, result.output
    assert " at 127.0.0.1:" in result.stdout
    assert "anyone who reaches 0.0.0.0" in result.stderr


def test_a_broker_that_dies_ends_the_command(tmp_path: Path) -> None:
    """Watching a killed broker raises, and names its log."""
    broker = make_broker("auto", tmp_path)
    with broker:
        broker.kill()
        with pytest.raises(TransportError, match="ended by itself"):
            watch(broker, threading.Event())


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    """A file stands where the state folder should be."""
    make_broker("auto", tmp_path)
    (tmp_path / "file").touch()
    failed = CliRunner().invoke(app, ["run", "--port", "0", "--state-dir", str(tmp_path / "file")]).exception
    assert isinstance(failed, StoreError)
    assert str(tmp_path / "file") in str(failed)


def test_no_broker_is_an_error_that_helps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without brokers the command says how to get one."""
    monkeypatch.setattr("broker_server.brokers.choose.BROKERS", ())
    result = CliRunner().invoke(app, ["run", "--state-dir", str(tmp_path)])
    assert isinstance(result.exception, NotReadyError)


def _interrupt_when(folder: Path) -> None:
    wait_for(lambda: [f for f in folder.glob("*.log") if "roadcast-probe" in f.read_text() or f.stem == "nats"], "log")
    wait_for(lambda: signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL, "handler")
    os.kill(os.getpid(), signal.SIGTERM)


def test_a_secure_broker_is_configured_run_and_refreshed(tmp_path: Path) -> None:
    """From `ca init` to a running broker that refuses plain clients; a refresh ends the sessions of the revoked."""
    make_broker("mosquitto", tmp_path)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    ca, out = str(tmp_path / "ca"), str(tmp_path / "broker")
    for line in (
        ["ca", "init", "--dir", ca, "--fleet", "sim"],
        ["broker", "config", "--out", out, "--host", "127.0.0.1", "--port", str(port), "--ca", ca],
    ):
        assert CliRunner().invoke(root, line, catch_exceptions=False).exit_code == 0
    command = [sys.executable, "-m", "roadcast", "broker", "run", "--secure", out]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert b"mosquitto at 127.0.0.1" in process.stdout.readline()
        assert not answers("127.0.0.1", port, timeout_s=1)
        make_authority_revoke(tmp_path / "ca")
        refresh = ["broker", "refresh", "--dir", out, "--ca", ca, "--json"]
        done = CliRunner().invoke(root, refresh, catch_exceptions=False)
        assert json.loads(done.stdout) == {"ended": ["cam-1"]}
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0


def make_authority_revoke(folder: Path) -> None:
    """Certify a device, and revoke it."""
    authority = CertificateAuthority.open(folder, None, time.time())
    authority.sign(make_request(make_key(), "cam-1"), "cam-1", (), time.time())
    authority.ledger.revoke("cam-1", time.time(), "stolen")


def test_a_broker_whose_authority_is_elsewhere(tmp_path: Path) -> None:
    """Requests are written and each step that is left is named; done as named, the broker runs and takes a new list."""
    make_broker("mosquitto", tmp_path)
    ca, out = tmp_path / "ca", tmp_path / "b"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]

    def roadcast(*arguments: object) -> str:
        done = CliRunner().invoke(root, [str(each) for each in arguments], catch_exceptions=False)
        assert done.exit_code == 0
        return done.stdout

    roadcast("ca", "init", "--dir", ca, "--fleet", "sim")
    line = ("broker", "config", "--out", out, "--host", "127.0.0.1", "--port", port)
    with pytest.raises(ConfigError, match="--fleet NAME"):
        roadcast(*line)
    todo = roadcast(*line, "--fleet", "sim").splitlines()
    for step in todo[:2]:
        _, _, _, name, request, _, certificate, *hosts = step.split()
        roadcast("ca", "sign", name, out / request, "--dir", ca, "--out", out / certificate, *hosts)
    roadcast("ca", "crl", "--dir", ca, "--out", out / "crl.pem")
    (out / "ca.pem").write_bytes((ca / "ca.pem").read_bytes())
    with SecureMosquitto(out, start_timeout_s=60) as broker:
        assert broker.running
        roadcast("ca", "crl", "--dir", ca, "--out", tmp_path / "crl.pem")
        said = roadcast("broker", "refresh", "--dir", out, "--crl", tmp_path / "crl.pem", "--end", "cam-1", "--json")
        assert json.loads(said) == {"ended": ["cam-1"]}
        with pytest.raises(ConfigError, match="give --ca"):
            roadcast("broker", "refresh", "--dir", out)
