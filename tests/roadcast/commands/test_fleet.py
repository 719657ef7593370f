"""``roadcast devices list|show|logs``."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from broker_server.conduct import Offence
from broker_server.effects import SaveDevice, SaveProgress, SaveReport, SaveState, SaveTelemetry
from broker_server.records import DeviceRecord, DeviceTask, ProgressRecord, StoredReport, StoredState
from broker_server.store.database import Database
from devices.telemetry.sampler import Sampler
from edge_protocol.arrays import pack
from edge_protocol.errors import CheckFailedError, ConfigError, NotReadyError
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.messages import ClassVotes, DeviceState, KnowledgeReport, Telemetry
from roadcast.commands.devices import app
from roadcast.commands.server import app as server
from tests.broker_server.rollout_scene import release
from tests.fakes.boards import fake_board
from tests.fakes.running_centre import RunningCentre
from tests.fakes.sshd import SKIP_REASON, Sshd
from tests.fakes.target import tools_path
from tests.fakes.waiting import wait_for
from tests.roadcast.commands.test_bench_run import devices

CAM = DeviceId("cam-1")
RUNS = DeviceTask(task=TaskId("vehicle"), label_space="ab", tier="nano", student="mlp", release=3)
RECORD = DeviceRecord(
    device=CAM,
    state="online",
    boot_id=bytes(8),
    board="Orin Nano",
    software="roadcast 1",
    runtime="onnxruntime 1",
    cores=6,
    memory_bytes=0,
    tasks=(RUNS,),
    seen_s=5.0,
)


def test_the_fleet_s_boards_are_listed(tmp_path: Path) -> None:
    """From the server's folder: a hot board says what is wrong, and one that told nothing is not called well or hot."""
    values = Sampler(fake_board("jetson-orin-nano-super-r36.4.7", tmp_path / "board")).sample(0.0).values
    database = Database(tmp_path / "server.db")
    database.add_release(release(3))
    silent = msgspec.structs.replace(RECORD, device=DeviceId("cam-2"), state="stale")
    database.apply([SaveDevice(RECORD), SaveDevice(silent), SaveTelemetry(CAM, 5.0, Telemetry(values))])
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


@pytest.mark.parametrize(("counts", "found"), [({}, True), ({"fetch_idle_s": 299}, False), ({"fetch_held": 1}, False)])
def test_a_fetch_that_stalls_is_a_finding(tmp_path: Path, counts: dict[str, int], found: bool) -> None:
    """Long before a rollout's deadline; not one that only pauses, nor one that the device's own policy holds."""
    told = {"fetch_bytes": 5000, "fetch_bytes_left": 4000, "fetch_idle_s": 431, **counts}
    database = Database(tmp_path / "server.db")
    database.add_release(release(3))
    state = StoredState(device=CAM, at_s=6.0, state=DeviceState("vehicle", "idle", 3, told, {}))
    database.apply([SaveDevice(RECORD), SaveState(state)])
    database.close()
    command = ["list", "--state-dir", str(tmp_path)]
    line = CliRunner().invoke(app, command, catch_exceptions=False).stdout.splitlines()[1]
    says = "fetch-stalls: vehicle: nothing came for 7 min, 4000 of 5000 bytes of a file are lacking"
    assert (says in line) == found


def test_a_state_that_makes_no_sense_is_shown_all_the_same(tmp_path: Path) -> None:
    """Counts are what a device likes to say."""
    database = Database(tmp_path / "server.db")
    database.add_release(release(3))
    state = StoredState(device=CAM, at_s=6.0, state=DeviceState("vehicle", "idle", 3, {"fetch_idle_s": 2**40}, {}))
    database.apply([SaveDevice(RECORD), SaveState(state)])
    database.close()
    done = CliRunner().invoke(app, ["list", "--state-dir", str(tmp_path)], catch_exceptions=False)
    assert "None of None bytes" in done.stdout


def test_old_readings_are_not_shown_as_new(tmp_path: Path) -> None:
    """Of a board that is away nothing is said but when it last told of itself."""
    database = Database(tmp_path / "server.db")
    database.add_release(release(3))
    away = msgspec.structs.replace(RECORD, state="offline")
    database.apply(
        [SaveDevice(away), SaveTelemetry(CAM, 5.0, Telemetry({"throttled": 1.0, "temperature_celsius.tj": 90}))]
    )
    database.close()
    done = CliRunner().invoke(app, ["list", "--state-dir", str(tmp_path), "--json"], catch_exceptions=False)
    (gone,) = json.loads(done.stdout)
    assert (gone["celsius"], [each["says"] for each in gone["findings"]]) == (None, ["last told 1970-01-01 00:00:05Z"])


def test_a_fleet_is_watched_until_somebody_stops_it(tmp_path: Path) -> None:
    """A line whenever something has changed, beside whoever writes the database; Ctrl-C ends it."""
    database = Database(tmp_path / "server.db")
    database.add_release(release(3))
    database.apply([SaveDevice(RECORD)])
    command = [sys.executable, "-m", "roadcast", "devices", "list", "--watch", "--every", "0.1"]
    with subprocess.Popen([*command, "--state-dir", str(tmp_path)], stdout=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stdout.readline() == "1 online\n"
        database.apply([SaveDevice(msgspec.structs.replace(RECORD, state="offline"))])
        assert watching.stdout.readline() == "1 offline\n"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(60) == 128 + signal.SIGINT
    database.close()


def test_one_device_is_shown_whole(tmp_path: Path) -> None:
    """What it runs, how it does, its last report, its rollouts and its board; a stranger is refused by name."""
    database = Database(tmp_path / "server.db")
    database.add_release(release(3))
    told = DeviceState("vehicle", "idle", 3, {"frames": 70}, {"latency_p95_ms": 12.5})
    silent = pack(np.zeros(1, np.uint8))
    votes = ClassVotes(silent, silent, silent, pack(np.ones(1, np.uint8)))
    report = KnowledgeReport("vehicle", "ab" * 8, 7, 3, "0" * 64, 40, votes)
    stored = StoredReport(round=7, device=CAM, message_id=bytes(16), received_s=9.0, report=report)
    progress = ProgressRecord(
        task=TaskId("vehicle"), counter=4, device=CAM, wave=1, state="failed", since_s=8.0, reason="too slow"
    )
    database.apply(
        [
            SaveDevice(RECORD),
            SaveState(StoredState(device=CAM, at_s=6.0, state=told)),
            SaveTelemetry(CAM, 5.0, Telemetry({"board_power_watts": 7.25})),
            SaveReport(stored),
            SaveProgress(progress),
        ]
    )
    database.close()
    command = ["show", "cam-1", "--state-dir", str(tmp_path)]
    found = json.loads(CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False).stdout)
    assert found["tasks"]["vehicle"]["state"]["values"] == {"latency_p95_ms": 12.5}
    assert found["reports"] == [{"task": "vehicle", "round": 7, "received_s": 9.0}]
    assert found["rollouts"] == [{"task": "vehicle", "release": 4, "wave": 1, "state": "failed", "reason": "too slow"}]
    lines = CliRunner().invoke(app, command, catch_exceptions=False).stdout.splitlines()
    assert "vehicle/4: rollout\twave 1, failed too slow" in lines
    assert "board_power_watts\t7.25" in lines
    with pytest.raises(NotReadyError, match=r"no device 'cam-9'.*known: cam-1"):
        CliRunner().invoke(app, ["show", "cam-9", "--state-dir", str(tmp_path)], catch_exceptions=False)


@pytest.mark.skipif(bool(SKIP_REASON), reason=SKIP_REASON)
def test_a_device_s_journal_comes_over_ssh(tmp_path: Path) -> None:
    """The lines of the service asked for, without the password that one of them tells; a failure says its words."""
    journal = 'echo "$@"; echo "opened rtsp://admin:hunter2@cam/1"'
    with Sshd(tmp_path / "sshd", tools_path(tmp_path / "bin", journalctl=journal)) as sshd:
        site = tmp_path / "site.yaml"
        inventory = {"cam-1": {**msgspec.to_builtins(sshd.target(fingerprint=sshd.fingerprint))}}
        site.write_text(yaml.safe_dump({"agent": {"device": "cam-1"}, "ssh": inventory}))
        command = ["logs", "cam-1", "--site", str(site), "--identity", str(sshd.login.identity)]
        said = CliRunner().invoke(app, [*command, "--lines", "5"], catch_exceptions=False).stdout.splitlines()
    assert said == [
        "--no-pager --output=short-iso --unit=roadcast-agent.service --lines=5",
        "opened rtsp://***@cam/1",
    ]
    with Sshd(tmp_path / "other", tools_path(tmp_path / "none", journalctl="echo no journal >&2; exit 1")) as sshd:
        inventory["cam-1"] = {**msgspec.to_builtins(sshd.target(fingerprint=sshd.fingerprint))}
        site.write_text(yaml.safe_dump({"agent": {"device": "cam-1"}, "ssh": inventory}))
        command[-1] = str(sshd.login.identity)
        with pytest.raises(NotReadyError, match="no journal"):
            CliRunner().invoke(app, command, catch_exceptions=False)


def test_a_device_is_tagged_retired_and_taken_back_through_the_server(tmp_path: Path) -> None:
    """Each order is answered with how the device stands; a tag that is none and a second retirement are errors."""
    centre = RunningCentre(tmp_path, 3)
    here = ("--state-dir", str(centre.state_dir))
    try:
        wait_for(lambda: len(devices(centre.state_dir)) == 3, "devices")

        def said(*words: str) -> str:
            return CliRunner().invoke(app, [*words, *here], catch_exceptions=False).stdout.strip()

        assert said("tag", "dev-0", "north", "old").endswith("  north old")
        assert said("tag", "dev-0", "~old").endswith("  north")
        assert said("retire", "dev-1") == "dev-1: retired"
        with pytest.raises(CheckFailedError, match="dev-1 is retired"):
            said("retire", "dev-1")
        assert "retired" not in said("reinstate", "dev-1")
        with pytest.raises(ConfigError, match="tag 'no/rth'"):
            said("tag", "dev-0", "no/rth")
        with pytest.raises(CheckFailedError, match="there is no device 'ghost'"):
            said("tag", "ghost", "north")
    finally:
        centre.close()


def test_a_device_with_a_release_that_the_server_lacks_is_named(tmp_path: Path) -> None:
    """As after an older backup was brought back: in the list with what to do, and in the server's status in a line."""
    database = Database(tmp_path / "server.db")
    database.apply([SaveDevice(RECORD)])
    database.close()
    found = json.loads(CliRunner().invoke(app, ["list", "--state-dir", str(tmp_path), "--json"]).stdout)
    (finding,) = found[0]["findings"]
    assert (finding["check"], finding["level"]) == ("foreign-release", "fail")
    assert "roadcast release again vehicle N" in finding["fix"]
    status = CliRunner().invoke(server, ["status", "--state-dir", str(tmp_path), "--json"])
    (line,) = json.loads(status.stdout)["warnings"]
    assert line.startswith("cam-1 runs release 3 of vehicle, which this server does not have")
