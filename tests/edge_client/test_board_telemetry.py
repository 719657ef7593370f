"""The board's readings reach the centre."""

from __future__ import annotations

from pathlib import Path
from queue import Queue

import pytest

from devices.telemetry.sampler import Sampler
from edge_client.board_telemetry import TELLING, BoardTelemetry
from edge_protocol import messages as m
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.fakes.boards import fake_board


def test_a_recorded_board_s_samples_become_messages(tmp_path: Path) -> None:
    """One an interval, until it is told to stop."""
    heard: Queue[m.Telemetry] = Queue()
    watch = BoardTelemetry(Sampler(fake_board("jetson-orin-nx-r36.4.4", tmp_path)), 0.01, heard.put)
    watch.start()
    first, second = heard.get(timeout=20), heard.get(timeout=20)
    watch.stop()
    assert first.values["temperature_celsius.tj"] == second.values["temperature_celsius.tj"] == 61.25
    assert first.values["board_power_watts"] == pytest.approx(11.651)


def test_what_tells_how_much_is_kept_is_withheld_under_privacy(tmp_path: Path) -> None:
    """Room and writes of the disk stay on the device; heat does not."""
    heard: Queue[m.Telemetry] = Queue()
    sampler = Sampler(fake_board("jetson-orin-nx-r36.4.4", tmp_path), state_dir=tmp_path)
    for withheld in ((), TELLING):
        watch = BoardTelemetry(sampler, 0.01, heard.put, withheld=withheld)
        watch.start()
        told = heard.get(timeout=20).values
        watch.stop()
        assert ("state_free_bytes" in told) == (not withheld)
        assert "temperature_celsius.tj" in told
        while not heard.empty():
            heard.get()


def test_metrics_are_written_until_the_disk_refuses(tmp_path: Path) -> None:
    """The file holds the sample that was sent; a folder that goes away ends the file, not the messages."""
    heard: Queue[m.Telemetry] = Queue()
    sampler = Sampler(fake_board("raspberry-pi-4", tmp_path / "board"))
    metrics = tmp_path / "metrics"
    metrics.mkdir()
    watch = BoardTelemetry(sampler, 0.01, heard.put, metrics / "roadcast.prom")
    watch.start()
    for _ in range(2):
        heard.get(timeout=20)
    assert 'roadcast_temperature_celsius{zone="cpu"} 62.318' in (metrics / "roadcast.prom").read_text()
    metrics.rename(tmp_path / "gone")
    while not heard.empty():
        heard.get()
    for _ in range(3):
        heard.get(timeout=20)
    watch.stop()
    assert not metrics.exists()


def test_the_agent_tells_how_its_board_is_doing(tmp_path: Path) -> None:
    """This machine's memory and the room of its state directory arrive at the centre."""
    rig = DeviceRig(device_config(tmp_path))
    try:
        rig.until(lambda: rig.centre.of(m.Telemetry), "telemetry")
        (told, *_) = rig.centre.of(m.Telemetry)
        assert told.values["memory_total_bytes"] > 1 << 28
        assert told.values["state_free_bytes"] > 0
        rig.until(
            lambda: any("camera_frame_age_seconds" in name for t in rig.centre.of(m.Telemetry) for name in t.values),
            "the age of a camera's last frame",
        )
    finally:
        rig.close()
