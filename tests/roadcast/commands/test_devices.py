"""``roadcast devices``."""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path

from typer.testing import CliRunner

from roadcast.commands.devices import app
from tests.fakes.boards import fake_board


def test_a_recorded_board_is_probed(tmp_path: Path) -> None:
    """--root shows that board, not this machine; a sum of rails is called estimated."""
    fake_board("jetson-agx-orin-r36.4.4", tmp_path)
    told = CliRunner().invoke(app, ["probe", "--root", str(tmp_path)], catch_exceptions=False).stdout
    assert "jetson-agx-orin" in told
    assert "R36.4.4, JetPack 6" in told
    assert "14.20 W, estimated" in told
    assert "mmcblk0, emmc, 59.3 GiB, 30% worn" in told


def test_what_a_board_does_not_say_is_null(tmp_path: Path) -> None:
    """In JSON null, in the table a dash, never 0."""
    said = json.loads(CliRunner().invoke(app, ["probe", "--root", str(tmp_path), "--json"]).stdout)
    assert said["power"] is said["gpu"] is said["cores"] is said["board"] is None
    table = CliRunner().invoke(app, ["probe", "--root", str(tmp_path)]).stdout
    assert "GPU\t-" in table
    assert " 0" not in table


def test_this_machine_is_recorded_and_probed_again(tmp_path: Path) -> None:
    """`record` writes a folder that `probe --root` reads."""
    folder = tmp_path / "here"
    kept = json.loads(CliRunner().invoke(app, ["record", str(folder), "--json"], catch_exceptions=False).stdout)
    assert kept["files"] > 3
    again = json.loads(CliRunner().invoke(app, ["probe", "--root", str(folder), "--json"]).stdout)
    assert again["machine"] == os.uname().machine


def test_a_board_is_watched(tmp_path: Path) -> None:
    """One JSON object a sample, and the metrics of the last one in the file."""
    fake_board("jetson-orin-nano-super-r36.4.7", tmp_path / "board")
    metrics = tmp_path / "roadcast.prom"
    command = ["watch", "--root", str(tmp_path / "board"), "--count", "2", "--every", "0.1", "--json"]
    done = CliRunner().invoke(app, [*command, "--textfile", str(metrics)], catch_exceptions=False)
    first, second = map(json.loads, done.stdout.splitlines())
    assert first["board_power_watts"] == second["board_power_watts"] == 12.47936
    assert 'roadcast_temperature_celsius{zone="tj"} 53.968' in metrics.read_text()
    assert "gpu_load_ratio 0.63" in CliRunner().invoke(app, command[:-1]).stdout


def test_a_support_bundle_holds_what_helps_and_no_secret(tmp_path: Path) -> None:
    """Six parts, readable by its owner alone; the camera's password and what lies in the state directory stay here."""
    state = tmp_path / "state"
    state.mkdir()
    (state / "replay.db").write_bytes(b"a frame")
    config = tmp_path / "device.yaml"
    config.write_text(f"""
fleet: city
device: cam-1
tier: nano
task: vehicle
trusted_root: /etc/roadcast/root.json
state_dir: {state}
sources: [{{name: north, uri: "rtsp://admin:hunter2@127.0.0.1:9/stream"}}]
broker: {{host: 127.0.0.1, port: 9}}
""")
    out = tmp_path / "bundle.tar.gz"
    command = ["support-bundle", "--config", str(config), "--out", str(out)]
    assert "versions.json" in CliRunner().invoke(app, command, catch_exceptions=False).stdout
    assert out.stat().st_mode & 0o777 == 0o600
    with tarfile.open(out) as archive:
        parts = {Path(m.name).name: archive.extractfile(m).read().decode() for m in archive}  # type: ignore[union-attr]
    assert sorted(parts) == ["board.json", "device.yaml", "doctor.json", "journal.txt", "state.json", "versions.json"]
    assert "hunter2" not in "".join(parts.values())
    assert "rtsp://***@127.0.0.1:9/stream" in parts["device.yaml"]
    assert json.loads(parts["state.json"])[0]["path"] == "replay.db"
    assert any(finding["check"] == "broker" for finding in json.loads(parts["doctor.json"]))
    assert "a frame" not in "".join(parts.values())
    failed = CliRunner().invoke(app, command).exception
    assert "is there already" in str(failed)


def test_a_support_bundle_is_packed_of_a_configuration_that_says_something_wrong(tmp_path: Path) -> None:
    """That is when help is needed: the text goes along as it is, and what is wrong with it."""
    config, out = tmp_path / "device.yaml", tmp_path / "bundle.tar.gz"
    config.write_text("fleet: city\nsauces: []\nbroker: {password: hunter2}\n")
    command = ["support-bundle", "--config", str(config), "--out", str(out)]
    assert CliRunner().invoke(app, command, catch_exceptions=False).exit_code == 0
    with tarfile.open(out) as archive:
        parts = {Path(m.name).name: archive.extractfile(m).read().decode() for m in archive}  # type: ignore[union-attr]
    assert "sauces: []" in parts["device.yaml"]
    assert "device.yaml" in parts["configuration.txt"]
    assert "hunter2" not in "".join(parts.values())
