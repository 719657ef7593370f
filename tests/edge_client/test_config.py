"""A device's configuration: what is wrong is said with key and remedy."""

from __future__ import annotations

import socket
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from devices.boards import Machine
from devices.packs import ImagePack, save_pack
from edge_client import board
from edge_client.build import build_parts, read_root
from edge_client.config import DeviceConfig
from edge_client.notify import notify
from edge_client.replay import ReplayStore
from edge_models.tasks import load_task
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError, DataError
from tests.edge_client.device_rig import device_config, image_pack, series_pack

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")
EXAMPLE = """
fleet: demo
device: cam-1
tier: nano
task: vehicle
broker: {host: 127.0.0.1, port: 1883, keepalive_s: 15}
trusted_root: /etc/roadcast/root.json
state_dir: /var/lib/roadcast
sources:
  - {name: main, uri: "pack:///data/cam-1.npz", rate_hz: 20, loop: true, serving: whole-sample}
  - {name: road, uri: "file:///data/clip.mp4", rate_hz: 25, loop: false, serving: moving-objects,
     lines: [{name: a, from: [0.0, 0.5], to: [1.0, 0.5]}]}
labels: {commissioning: /data/cam-1-train.npz, file: labels.csv}
preprocess: {gains: [1.1, 1.0, 0.9], equalise: false}
replay: {budget_bytes: 20000000}
train: {epochs: 30, memory_mb: 1024, nice: 10}
probation: {frames: 20, latency_factor: 3.0}
report_interval_s: 2
"""


def test_the_documented_example_is_read_and_flags_go_before_environment_before_file() -> None:
    """Flag > environment > file > default."""
    environment = {"ROADCAST__DEVICE": "cam-2", "ROADCAST__TRAIN__NICE": "3"}
    config = load_config(
        EXAMPLE, DeviceConfig, where="device.yaml", environment=environment, flags={"device": "cam-3", "task": None}
    )
    assert (config.device_id, config.fleet_id, config.train.nice, config.replay.every_s) == ("cam-3", "demo", 3, 1.0)
    assert config.sources[1].lines[0].end == (1.0, 0.5)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"device": "server"}, "server's own name"),
        ({"device": "a/b"}, "device"),
        ({"privacy": {"epsilon_per_report": 9.0, "epsilon_total": 8.0}}, "exceeds"),
        ({"privacy": {"epsilon_per_report": 1.0, "prototype_k": 10}}, "have no noise"),
        ({"privacy": {"prototype_k": 2}}, "prototype_k"),
        ({"privacy": {"epsilon_per_report": 1.0}, "train": {"trunk_steps": 5}}, "no noise covers a trunk's change"),
        ({"train": {"trunk_steps": 5000}}, "trunk_steps"),
        ({"trusted_root": ""}, "trusted_root"),
        ({"sources": []}, "sources"),
        ({"sources": [{"name": "a", "uri": "x"}] * 2}, "same name"),
        ({"sources": [{"name": "a b", "uri": "x"}]}, "source"),
        ({"replay": {"budget": 3}}, "did you mean 'budget_bytes'"),
        ({"tier": "huge"}, "tier"),
        ({"report_interval_s": 0}, "report_interval_s"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    """The message holds the key, and the file before it."""
    with pytest.raises(ConfigError, match=said):
        device_config(tmp_path, **change)


def test_a_root_comes_from_a_file_or_stands_in_the_configuration(tmp_path: Path) -> None:
    """Both are read; a missing file, and one that is no root or signs nothing, are named with the remedy."""
    inline = device_config(tmp_path)
    (tmp_path / "root.json").write_text(inline.trusted_root)
    root = read_root(device_config(tmp_path, trusted_root=str(tmp_path / "root.json")))
    assert root == read_root(inline) == inline.trusted_root.encode()
    (tmp_path / "other.json").write_text("{}")
    unsigned = inline.trusted_root.replace('"sig":"', '"sig":"00')
    for wrong in (str(tmp_path / "none.json"), str(tmp_path / "other.json"), unsigned):
        with pytest.raises(ConfigError, match=r"trusted_root: .*bring the newest tuf"):
            read_root(device_config(tmp_path, trusted_root=wrong))


def built(folder: Path, **changes: Any) -> Any:
    """The parts of a configuration."""
    config = device_config(folder, **changes)
    replay = ReplayStore(folder / "replay.db", config.replay.budget_bytes)
    try:
        return build_parts(config, load_task(config.task), replay, lambda _: None), len(replay)
    finally:
        replay.close()


def test_a_task_s_own_inputs_are_asked_of_its_sources(tmp_path: Path) -> None:
    """The columns of a clinic's pack by name, the records of a folder; a vehicle's camera looks at neither."""
    clinic = load_task("clinic")
    side = np.arange(6, dtype=np.float32)[None]
    pack = ImagePack.of(np.zeros((1, 32, 32, 3), np.uint8), classes=(), side=side, side_names=clinic.side[::-1])
    save_pack(tmp_path / "ward.npz", pack, title="ward")
    cv2.imwrite(str(tmp_path / "a.png"), np.full((32, 32, 3), 90, np.uint8))
    (tmp_path / "a.json").write_text('{"age": 61}')
    sources = [{"name": "p", "uri": f"pack://{tmp_path}/ward.npz"}, {"name": "f", "uri": f"folder://{tmp_path}"}]

    def first(task: str) -> list[Any]:
        parts, _ = built(tmp_path, task=task, sources=sources)
        frames = [feed.opener().read(5.0) for feed in parts.feeds]
        return [None if frames[0].side is None else frames[0].side.tolist(), frames[1].record]

    assert first("clinic") == [[5, 4, 3, 2, 1, 0], {"age": "61"}]
    assert first("vehicle") == [None, None]


def test_parts_fit_task_and_source(tmp_path: Path) -> None:
    """A camera counts at lines or answers whole samples; the commissioning pack fills the replay store."""
    pack = str(image_pack(tmp_path, 30))
    line = {"name": "a", "from": [0.0, 0.5], "to": [1.0, 0.5]}
    sources = [
        {"name": "whole", "uri": f"pack://{pack}", "serving": "whole-sample"},
        {"name": "road", "uri": f"pack://{pack}", "lines": [line]},
    ]
    parts, kept = built(tmp_path, sources=sources, labels={"commissioning": pack})
    assert [type(feed.pipeline).__name__ for feed in parts.feeds] == ["WholeSample", "Objects"]
    assert kept == 30


def test_sources_that_do_not_fit_are_named(tmp_path: Path) -> None:
    """Lines without moving objects, readings from a camera, images for a sensor."""
    pack, series = image_pack(tmp_path, 4), series_pack(tmp_path, 40)
    line = {"name": "a", "from": [0.0, 0.5], "to": [1.0, 0.5]}
    source = {"name": "main", "uri": f"pack://{pack}", "serving": "whole-sample", "lines": [line]}
    with pytest.raises(ConfigError, match="lines"):
        built(tmp_path, sources=[source])
    with pytest.raises(ConfigError, match="no readings"):
        built(tmp_path, task="speed", sources=[{"name": "main", "uri": f"pack://{pack}"}])
    sensors = [{"name": "road", "uri": f"pack://{series}"}]
    with pytest.raises(ConfigError, match="only classifiers"):
        built(tmp_path, task="speed", sources=sensors, privacy={"epsilon_per_report": 1.0})
    with pytest.raises(ConfigError, match="class means"):
        built(tmp_path, task="speed", sources=sensors, privacy={"prototype_k": 10})
    with pytest.raises(DataError, match="needs a series"):
        built(tmp_path, task="speed", sources=sensors, labels={"commissioning": str(pack)})
    (tmp_path / "fresh").mkdir()
    parts, kept = built(tmp_path / "fresh", task="speed", sources=sensors)
    assert (len(parts.feeds), kept) == (1, 0)


def test_a_logger_may_have_other_sensors_than_the_pack(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The device starts; the new one is named, and its scale is learned."""
    series = series_pack(tmp_path, 40)
    history = series_pack(tmp_path, 40, sensors=2, name="history.npz")
    sensors = [{"name": "road", "uri": f"pack://{series}"}]
    parts, kept = built(tmp_path, task="speed", sources=sensors, labels={"commissioning": str(history)})
    assert (len(parts.feeds), kept > 0) == (1, True)
    assert "no sensor loop2:" in caplog.text


def test_the_board_is_described_from_its_own_files(tmp_path: Path) -> None:
    """The device tree names a Jetson; without one, system and machine are told."""
    (tmp_path / "proc/device-tree").mkdir(parents=True)
    (tmp_path / "proc/device-tree/model").write_text("NVIDIA Jetson Orin Nano\0")
    (tmp_path / "proc/meminfo").write_text("MemTotal:        8000 kB\nMemFree: 1 kB\n")
    config = device_config(tmp_path)
    told = board.profile(config, VEHICLE, Machine(tmp_path))
    assert (told.board, told.memory_bytes) == ("NVIDIA Jetson Orin Nano", 8000 * 1024)
    assert (told.software, told.runtime) == (version("roadcast"), f"onnxruntime {version('onnxruntime')}")
    bare = board.profile(config, VEHICLE, Machine(tmp_path / "none"))
    assert bare.memory_bytes == 0
    assert bare.board


def test_systemd_is_told_when_it_asks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A datagram to the socket that it names; nothing without one, and nothing raised when it is gone."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        notify("WATCHDOG=1")
        assert systemd.recv(100) == b"WATCHDOG=1"
    monkeypatch.setenv("NOTIFY_SOCKET", "@roadcast-test-nobody-listens")
    notify("STOPPING=1")
