"""``roadcast devices``."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
from typer.testing import CliRunner

from broker_server.conduct import Offence
from broker_server.effects import SaveDevice, SaveTelemetry
from broker_server.records import DeviceRecord
from broker_server.store.database import Database
from devices.telemetry.sampler import Sampler
from edge_protocol.ids import DeviceId
from edge_protocol.messages import Telemetry
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


def test_the_fleet_s_boards_are_listed(tmp_path: Path) -> None:
    """From the server's folder: a hot board says what is wrong, and one that told nothing is not called well or hot."""
    values = Sampler(fake_board("jetson-orin-nano-super-r36.4.7", tmp_path / "board")).sample(0.0).values
    database = Database(tmp_path / "server.db")
    record = DeviceRecord(
        device=DeviceId("cam-1"),
        state="online",
        boot_id=bytes(8),
        board="Orin Nano",
        software="",
        runtime="",
        cores=6,
        memory_bytes=0,
        tasks=(),
        seen_s=5.0,
    )
    silent = msgspec.structs.replace(record, device=DeviceId("cam-2"), state="stale")
    telemetry = SaveTelemetry(DeviceId("cam-1"), 5.0, Telemetry(values))
    database.apply([SaveDevice(record), SaveDevice(silent), telemetry])
    database.close()
    command = ["list", "--state-dir", str(tmp_path)]
    hot, quiet = json.loads(CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False).stdout)
    assert (hot["celsius"], hot["watts"]) == (53.968, 12.47936)
    assert [finding["check"] for finding in hot["findings"]] == ["throttled", "over-current"]
    assert (quiet["celsius"], quiet["watts"], quiet["findings"]) == (None, None, [])
    lines = CliRunner().invoke(app, command, catch_exceptions=False).stdout.splitlines()
    assert lines[1].startswith("cam-1\tonline\tOrin Nano\t54.0 °C\t12.48 W\tthrottled: slowed down")
    assert lines[2] == "cam-2\tstale\tOrin Nano\t-\t-\t-"
    told = {"cam-2": {"clone": Offence(3, 60.0), "quota-bytes": Offence(9, 60.0)}}
    (tmp_path / "conduct.json").write_bytes(msgspec.json.encode(told))
    line = CliRunner().invoke(app, command, catch_exceptions=False).stdout.splitlines()[2]
    assert "clone: two boards take turns under this name (3 times, last 1970-01-01 00:01:00 UTC)" in line
    assert "quota-bytes: messages dropped, too many bytes a day (9 times" in line
