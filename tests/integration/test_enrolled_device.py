"""The documented commands in their order, each a real process: from `ca init` to a device online, and out again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from broker_server.brokers.secure import SecureMosquitto
from broker_server.config import RoundsConfig
from broker_server.status import open_database, status
from edge_protocol.transport.settings import BrokerSettings
from tests.edge_client.device_rig import device_config
from tests.fakes.centre import centre_config, write_packs
from tests.fakes.waiting import wait_for

pytestmark = [pytest.mark.broker, pytest.mark.timeout(300)]
HOST = "127.0.0.1"
WITHIN_S = 90.0


def roadcast(*arguments: object) -> str:
    """Run a command to its end; return what it printed."""
    command = [sys.executable, "-m", "roadcast", *map(str, arguments)]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=_environment()).stdout.strip()


@contextmanager
def running(*arguments: object, until: str) -> Iterator[subprocess.Popen[str]]:
    """Run a command that serves, once it has printed a line that begins like this; end it in order afterwards."""
    command = [sys.executable, "-m", "roadcast", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=_environment()
    ) as p:
        try:
            assert p.stdout is not None
            assert not until or any(line.startswith(until) for line in p.stdout)
            yield p
        finally:
            p.send_signal(signal.SIGTERM)
            p.communicate(timeout=60)


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _identity(folder: Path, port: int) -> BrokerSettings:
    files = {f"{what}_file": str(folder / f"{what}.pem") for what in ("ca", "cert", "key")}
    return BrokerSettings(host=HOST, port=port, **files)  # type: ignore[arg-type]


def _write(path: Path, config: Any) -> Path:
    path.write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    return path


def test_from_nothing_to_online_and_out_again(tmp_path: Path) -> None:
    """Authority, broker, enrolment, server and device as processes: the device is online, then revoked and out."""
    if SecureMosquitto.program() is None and not os.environ.get("CI"):
        pytest.skip(SecureMosquitto.install)
    write_packs(tmp_path)
    port, ca, broker = _free_port(), tmp_path / "ca", tmp_path / "broker"
    server = centre_config(tmp_path, rounds=RoundsConfig(limit=0))
    server_file = _write(
        tmp_path / "server.yaml", msgspec.structs.replace(server, broker=_identity(tmp_path / "centre", port))
    )
    device = device_config(tmp_path)
    device_file = _write(
        tmp_path / "cam-1.yaml", msgspec.structs.replace(device, broker=_identity(tmp_path / "cam-1", port))
    )

    def state_of_device() -> str:
        database = open_database(Path(server.state_dir))
        try:
            return next((d["state"] for d in status(database)["devices"] if d["device"] == "cam-1"), "")
        finally:
            database.close()

    roadcast("ca", "init", "--dir", ca, "--fleet", "sim")
    roadcast("broker", "config", "--out", broker, "--host", HOST, "--port", port, "--ca", ca)
    with ExitStack() as parts:
        parts.enter_context(running("broker", "run", "--secure", broker, until="mosquitto at"))
        service_port = _free_port()
        url = f"https://{HOST}:{service_port}"
        serving = ("ca", "serve", "--dir", ca, "--host", HOST, "--port", service_port, "--broker", broker)
        parts.enter_context(running(*serving, until=url))
        for who, name, file in (("server", "server", server_file), ("client", "cam-1", device_file)):
            token = roadcast("ca", "token", name, "--dir", ca, "--url", url)
            assert "certified until" in roadcast(who, "enrol", "--config", file, "--token", token)
        parts.enter_context(running("server", "run", "--config", server_file, until="fleet"))
        parts.enter_context(running("client", "run", "--config", device_file, until=""))
        wait_for(lambda: state_of_device() == "online", "device online", within_s=WITHIN_S)
        roadcast("ca", "revoke", "cam-1", "--dir", ca)
        refused = broker / "mosquitto.log"
        wait_for(lambda: "certificate verify failed" in refused.read_text(), "refusal", within_s=WITHIN_S)
