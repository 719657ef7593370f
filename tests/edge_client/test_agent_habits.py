"""Sensors' habits from the commissioning pack to the answers, through the real agent and its real trainer."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from devices.packs import save_pack
from edge_client.config import DeviceConfig
from edge_client.stored import read_stored
from edge_models.habits import sensor_numbers
from edge_models.head_weights import HeadWeights
from edge_protocol import messages as m
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.edge_models.test_habits import NAMES, SPEED, days, road_pack
from tests.fakes.small_centre import artifact_files

TRAINER = (sys.executable, "-m", "edge_client.trainer")


def road(folder: Path) -> DeviceConfig:
    """Two sensors with four days of history, which go on for a fifth."""
    values, times = days(5)
    for name, rows in (("history", slice(0, 4 * 288)), ("live", slice(4 * 288, None))):
        pack = road_pack(values[rows], times[rows])
        save_pack(folder / f"{name}.npz", pack, title=name)
    source = {"name": "road", "uri": f"pack://{folder / 'live.npz'}", "rate_hz": 20, "loop": True}
    return device_config(folder, task="speed", labels={"commissioning": str(folder / "history.npz")}, sources=[source])


def served(rig: DeviceRig) -> HeadWeights | None:
    """The head that answers frames."""
    bundle = rig.agent.inference.bundle
    return bundle.head if bundle else None


@pytest.mark.timeout(600)
def test_a_device_serves_its_sensors_with_their_habits_also_after_a_restart(tmp_path: Path) -> None:
    """Fitted on the release's trunk; the head and its habits come back from one file, and what is live is kept."""
    rig = DeviceRig(road(tmp_path), trainer=TRAINER)
    gathered = len(rig.agent.replay)
    rig.centre.release(1, {"nano": artifact_files("speed")}, task="speed")
    rig.until(lambda: rig.agent.core.running.release == 1, "release 1", within_s=300)
    head = served(rig)
    assert head is not None
    assert head.habits is not None
    assert set(head.habits.numbers.tolist()) == set(sensor_numbers(NAMES)[:, 0].tolist())
    heard = len(rig.centre.of(m.IntervalResult))
    rig.until(lambda: len(rig.centre.of(m.IntervalResult)) > heard + 20, "results")
    last = rig.centre.of(m.IntervalResult)[-1].values
    assert all(20 < value < 80 for value in last.values()), "what such sensors read"
    rig.until(lambda: len(rig.agent.replay) > gathered, "matured windows")
    rig.close()
    assert np.isfinite(read_stored(tmp_path / "state" / "replay.db", SPEED).samples.side).all()
    again = DeviceRig(rig.config, rig.broker, trainer=TRAINER)
    loaded = served(again)
    assert loaded is not None
    assert loaded.to_bytes() == head.to_bytes()
    again.close()
