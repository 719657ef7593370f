"""``roadcast client``: run, check, learning, schema."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from edge_client.agent import Agent
from edge_client.config import DeviceConfig
from edge_client.costs import Cost
from edge_client.drift import Alarm
from edge_client.drift_watch import DriftFile
from edge_client.hard_examples import HardExample
from edge_client.installed import HeadChoice
from edge_client.jobs import TrainResult
from edge_client.labels import LabelFile
from edge_client.lessons import LESSON
from edge_client.replay import Kept, ReplayStore
from edge_protocol.errors import ConfigError, DataError
from roadcast.commands.client import app
from tests.edge_client.device_rig import device_config, image_pack, series_pack


@pytest.fixture
def config_file(tmp_path: Path) -> Path:
    """A device's YAML."""
    config = device_config(tmp_path, labels={"commissioning": str(image_pack(tmp_path))}, broker={"port": 9})
    (tmp_path / "device.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    return tmp_path / "device.yaml"


def test_check_reads_everything_and_starts_nothing(config_file: Path, tmp_path: Path) -> None:
    """It says which student would run; the state directory is not made."""
    done = CliRunner().invoke(app, ["check", "--config", str(config_file), "--json"], catch_exceptions=False)
    assert json.loads(done.stdout) == {
        "device": "cam-1",
        "fleet": "sim",
        "task": "vehicle",
        "student": "depthwise",
        "sources": ["main"],
    }
    told = CliRunner().invoke(app, ["check", "--config", str(config_file)], catch_exceptions=False)
    assert "cam-1 of sim: vehicle with depthwise" in told.stdout
    assert not (tmp_path / "state").exists()


def test_check_finds_what_run_would_stumble_over(config_file: Path, tmp_path: Path) -> None:
    """No file, a wrong key, a commissioning pack that is not there."""
    runner = CliRunner()
    missing = runner.invoke(app, ["check", "--config", str(tmp_path / "none.yaml")])
    assert isinstance(missing.exception, ConfigError)
    text = config_file.read_text()
    config_file.write_text(text + "colour: red\n")
    assert "colour" in str(runner.invoke(app, ["check", "--config", str(config_file)]).exception)
    uri = yaml.safe_load(text)["sources"][0]["uri"]
    config_file.write_text(text.replace(uri, "ftp://camera"))
    assert "unknown scheme 'ftp'" in str(runner.invoke(app, ["check", "--config", str(config_file)]).exception)
    config_file.write_text(text.replace("images.npz", "gone.npz"))
    assert isinstance(runner.invoke(app, ["check", "--config", str(config_file)]).exception, DataError)


def test_a_wrong_log_level_is_a_configuration_error(config_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable and the levels are named."""
    monkeypatch.setenv("ROADCAST_LOG", "loud")
    failed = CliRunner().invoke(app, ["run", "--config", str(config_file)]).exception
    assert isinstance(failed, ConfigError)
    assert "ROADCAST_LOG" in str(failed)


def test_learning_says_how_the_head_was_chosen_and_what_is_hard(config_file: Path, tmp_path: Path) -> None:
    """Scores, cost, drift and hard examples that are still kept, for people and as JSON; before any lesson, that."""
    runner, state = CliRunner(), tmp_path / "state"
    command = ["learning", "--config", str(config_file)]
    assert "nothing was learnt" in str(runner.invoke(app, command).exception)
    store = ReplayStore(state / "replay.db", 10_000_000)
    store.add([Kept("main-7", 0.0, np.zeros((32, 32, 3), np.uint8))])
    store.close()
    choice = HeadChoice(
        chosen="personal",
        shared={"accuracy": 0.5},
        personal={"accuracy": 0.75},
        n_train=9,
        n_valid=3,
        tried={"linear": {"accuracy": 0.75}},
    )
    hard = [
        HardExample(sample=name, labelled=False, own="car", shared="bike", unsure=0.9, apart=0.25)
        for name in ("main-7", "main-8")
    ]
    cost = Cost(peak_mb=300, steps=40, step_ms=None, cpu_s=3, energy_j=None)
    result = TrainResult(choice=choice, examples=12, held=(1,) * 6, cost=cost, hard=tuple(hard), left_out=2)
    (state / LESSON).write_bytes(msgspec.json.encode(result))
    drift = DriftFile(total=3, alarms=[Alarm(4, "road", 0.25, 0.5)])
    (state / "drift.json").write_bytes(msgspec.json.encode(drift))
    said = json.loads(runner.invoke(app, [*command, "--json"], catch_exceptions=False).stdout)
    assert said["head"]["tried"] == {"linear": {"accuracy": 0.75}}
    assert (said["cost"]["peak_mb"], said["cost"]["energy_j"], said["drift_alarms"]) == (300, None, 3)
    assert [each["sample"] for each in said["hard"]] == ["main-7"], "the other is not kept any more"
    told = runner.invoke(app, command, catch_exceptions=False).stdout
    for line in (
        "serves: linear head",
        "linear: accuracy 0.75",
        "energy not measured",
        "left out: 2 samples",
        "04 h UTC, road",
        "main-7  car/bike",
    ):
        assert line in told
    assert "main-8" not in told


def learnt(state: Path, *hard: str) -> None:
    """Leave what a training job leaves: these samples are hard."""
    each = [HardExample(sample=name, labelled=False, own="car", shared="bike", unsure=0.9, apart=0.2) for name in hard]
    choice = HeadChoice(chosen="shared", shared={}, personal={}, n_train=0, n_valid=0)
    result = TrainResult(choice=choice, examples=1, held=(1,) * 6, hard=tuple(each))
    (state / LESSON).write_bytes(msgspec.json.encode(result))


def test_hard_examples_are_drawn_for_whoever_names_them(config_file: Path, tmp_path: Path) -> None:
    """Each that is kept as the very picture, in its colours and under its name, below the folder whatever the name."""
    red, names = np.zeros((32, 32, 3), np.uint8), ("main-7", "ward/refer/a.png", "../../out")
    red[..., 0] = 200
    store = ReplayStore(tmp_path / "state" / "replay.db", 10_000_000)
    store.add([Kept(name, 0.0, red) for name in names])
    store.close()
    learnt(tmp_path / "state", *names, "main-8")
    command = ["learning", "--config", str(config_file), "--pictures", str(tmp_path / "hard")]
    CliRunner().invoke(app, command, catch_exceptions=False)
    drawn = {str(path.relative_to(tmp_path / "hard")): path for path in (tmp_path / "hard").rglob("*.png")}
    assert drawn.keys() == {"main-7.png", "ward/refer/a.png.png", "out.png"}
    assert cv2.imread(str(drawn["main-7.png"]))[0, 0].tolist() == [0, 0, 200], "blue, green, red"
    (tmp_path / "file").write_text("")
    command[-1] = str(tmp_path / "file")
    assert "were not written" in str(CliRunner().invoke(app, command).exception)


def test_windows_of_readings_are_not_drawn(tmp_path: Path) -> None:
    """A forecaster's hard examples have no picture, and that is said."""
    config = device_config(tmp_path, task="speed", labels={"commissioning": str(series_pack(tmp_path, 60))})
    (tmp_path / "device.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    (tmp_path / "state").mkdir()
    learnt(tmp_path / "state", "main-7")
    command = ["learning", "--config", str(tmp_path / "device.yaml"), "--pictures", str(tmp_path / "hard")]
    assert "windows of readings" in str(CliRunner().invoke(app, command).exception)


def test_a_label_is_noted_where_the_agent_looks(config_file: Path, tmp_path: Path) -> None:
    """Of a sample that is not kept, of no class, or where no file is read, nothing is noted and the reason told."""
    runner, state = CliRunner(), tmp_path / "state"
    store = ReplayStore(state / "replay.db", 10_000_000)
    store.add([Kept("main-7", 0.0, np.zeros((32, 32, 3), np.uint8))])
    store.close()
    command = ["label", "main-7", "truck", "--config", str(config_file)]
    agent = LabelFile(state / "labels.csv")
    assert "no label of task 'vehicle'" in str(runner.invoke(app, [*command[:2], "zeppelin", *command[3:]]).exception)
    assert "'main-8'" in str(runner.invoke(app, ["label", "main-8", *command[2:]]).exception)
    assert agent.poll() == []
    runner.invoke(app, command, catch_exceptions=False)
    assert agent.poll() == [("main-7", "truck")]
    told = yaml.safe_load(config_file.read_text())
    told["labels"]["file"] = None
    config_file.write_text(yaml.safe_dump(told))
    assert "labels.file is null" in str(runner.invoke(app, command).exception)


def test_schema_is_a_json_schema() -> None:
    """For editors: every key of the configuration is in it."""
    done = CliRunner().invoke(app, ["schema"], catch_exceptions=False)
    schema = json.loads(done.stdout)
    assert set(schema["$defs"]["DeviceConfig"]["properties"]) == set(DeviceConfig.__struct_fields__)


def test_run_serves_and_says_what_was_counted(
    config_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Flags go before the file; it ends in order when it is told to."""
    turn = Agent.turn

    def until_frames(self: Agent) -> None:
        turn(self)
        if self.inference.counters.frames > 3:
            self.stop()

    monkeypatch.setattr(Agent, "turn", until_frames)
    monkeypatch.setattr(logging, "basicConfig", lambda **_: None)
    monkeypatch.setattr("signal.signal", lambda *_: None)
    command = ["run", "--config", str(config_file), "--state-dir", str(tmp_path / "other"), "--device", "cam-9"]
    done = CliRunner().invoke(app, [*command, "--json"], catch_exceptions=False)
    said = json.loads(done.stdout)
    assert said["device"] == "cam-9"
    assert said["frames"] > 3
    assert said["swap_skipped"] == 0
    assert (tmp_path / "other" / "replay.db").exists()
