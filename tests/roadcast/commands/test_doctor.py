"""``roadcast doctor``."""

from __future__ import annotations

import json
from pathlib import Path

import msgspec
import pytest
import yaml
from typer.testing import CliRunner

from broker_server.brokers import Broker
from edge_protocol.errors import ConfigError, ExitCode
from roadcast.commands.devices import app as devices
from roadcast.commands.doctor import app
from tests.edge_client.device_rig import device_config, image_pack
from tests.fakes.boards import fake_board
from tests.fakes.brokers import mosquitto_broker as mosquitto_broker  # noqa: PLC0414  # a fixture


def _config(folder: Path, port: int) -> Path:
    config = device_config(folder, labels={"commissioning": str(image_pack(folder))}, broker={"port": port})
    (folder / "device.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    return folder / "device.yaml"


def test_this_machine_can_serve() -> None:
    """Without a configuration it checks board, clock, Python and runtimes for real."""
    done = CliRunner().invoke(app, ["--json"], catch_exceptions=False)
    found = {line["check"]: line["level"] for line in json.loads(done.stdout)}
    assert found["onnxruntime"] == found["python"] == "ok"
    assert done.exit_code == (ExitCode.NOT_READY if "fail" in found.values() else ExitCode.OK)


def test_a_board_that_is_not_ready_exits_with_4(tmp_path: Path) -> None:
    """A recorded JetPack 5: its Python is too old; a line says so, with a fix, and this machine is not tried."""
    fake_board("jetson-agx-orin-r35.3.1", tmp_path)
    done = CliRunner().invoke(app, ["--root", str(tmp_path)])
    assert done.exit_code == ExitCode.NOT_READY
    (line,) = [line.split("\t") for line in done.stdout.splitlines() if line.startswith("fail")]
    assert line[:3] == ["fail", "python", "3.8.10, glibc 2.31"]
    assert "JetPack" in line[3]
    assert "onnxruntime" not in done.stdout


def test_a_broker_that_is_not_there_fails(tmp_path: Path) -> None:
    """With a configuration its sources, its state directory and its broker are tried."""
    done = CliRunner().invoke(app, ["--config", str(_config(tmp_path, 9)), "--json"])
    found = {line["check"]: line["level"] for line in json.loads(done.stdout)}
    assert done.exit_code == ExitCode.NOT_READY
    assert (found["source"], found["broker"]) == ("ok", "fail")


@pytest.mark.broker
def test_what_is_safe_is_mended_and_checked_again(mosquitto_broker: Broker, tmp_path: Path) -> None:
    """--fix makes the state directory; without it the directory is only missed."""
    config = str(_config(tmp_path, mosquitto_broker.port))
    state = tmp_path / "state"
    assert not state.exists()
    before = CliRunner().invoke(app, ["--config", config], catch_exceptions=False)
    assert f"mkdir -p {state}" in before.stdout
    assert not state.exists()
    after = CliRunner().invoke(app, ["--config", config, "--fix", "--json"], catch_exceptions=False)
    found = {line["check"]: line["level"] for line in json.loads(after.stdout)}
    assert (found["state"], found["broker"]) == ("ok", "ok")
    assert state.is_dir()


def test_a_wrong_configuration_is_said_at_once(tmp_path: Path) -> None:
    """It is an error of the configuration, not a finding."""
    failed = CliRunner().invoke(app, ["--config", str(tmp_path / "none.yaml")]).exception
    assert isinstance(failed, ConfigError)


def test_a_camera_that_was_commissioned_is_compared(real_data: Path, tmp_path: Path) -> None:
    """`devices commission` remembers the view, the doctor finds it unchanged; a torn memory is a finding with a fix."""
    clip = f"file://{real_data / 'intel_car_detection.mp4'}"
    config = device_config(tmp_path, sources=[{"name": "road", "uri": clip}], broker={"port": 9})
    (tmp_path / "device.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    command = ["commission", "--config", str(tmp_path / "device.yaml"), "--json"]
    kept = json.loads(CliRunner().invoke(devices, command, catch_exceptions=False).stdout)
    assert kept == {"road": str(tmp_path / "state" / "scenes" / "road.npz")}
    done = CliRunner().invoke(app, ["--config", str(tmp_path / "device.yaml")])
    assert "ok\tview\troad: as when it was commissioned" in done.stdout
    Path(kept["road"]).write_bytes(b"torn")
    torn = CliRunner().invoke(app, ["--config", str(tmp_path / "device.yaml")], catch_exceptions=False)
    assert "fail\tview\troad: " in torn.stdout
    assert "devices commission" in torn.stdout
    assert "fail\tbroker" in torn.stdout


def test_an_agent_that_could_not_start_is_found(tmp_path: Path) -> None:
    """A trusted root that is not there ends the agent at once, and systemd would not start it again."""
    missing = tmp_path / "nope.json"
    config = device_config(tmp_path, trusted_root=str(missing), broker={"port": 9})
    (tmp_path / "device.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    done = CliRunner().invoke(app, ["--config", str(tmp_path / "device.yaml")], catch_exceptions=False)
    assert done.exit_code == ExitCode.NOT_READY
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("fail\tconfiguration")]
    assert str(missing) in line


def test_a_recorded_board_has_no_configuration(tmp_path: Path) -> None:
    """What would be passed over is refused."""
    for given in (["--config", "device.yaml"], ["--fix"]):
        failed = CliRunner().invoke(app, ["--root", str(tmp_path), *given]).exception
        assert isinstance(failed, ConfigError)
