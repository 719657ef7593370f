"""`client check` and the doctor refuse what `run` would."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edge_client.build import build_parts
from edge_client.configured import check_configuration
from edge_client.replay import ReplayStore
from edge_models.tasks import load_task
from edge_protocol.errors import ConfigError
from tests.edge_client.device_rig import device_config, image_pack, series_pack

LINE = {"name": "a", "from": [0.0, 0.5], "to": [1.0, 0.5]}


@pytest.mark.parametrize(
    ("task", "change", "said"),
    [
        ("speed", {"privacy": {"epsilon_per_report": 2.0}}, "only classifiers can report with privacy"),
        ("speed", {"privacy": {"prototype_k": 10}}, "or class means"),
        ("vehicle", {"privacy": {"prototype_k": 667}}, "need train.max_samples of 4002, not 4000"),
        ("vehicle", {"serving": "whole-sample", "lines": [LINE]}, "has lines"),
        ("clinic", {"lines": [LINE]}, "has lines"),
    ],
)
def test_what_a_task_does_not_bear_is_refused_by_check_as_by_run(
    tmp_path: Path, task: str, change: dict[str, Any], said: str
) -> None:
    """Privacy of a forecaster, class means that no job can meet, lines where nothing is counted: before a start."""
    pack = series_pack(tmp_path) if task == "speed" else image_pack(tmp_path)
    source = {"name": "main", "uri": f"pack://{pack}"} | {k: v for k, v in change.items() if k != "privacy"}
    asked = {k: v for k, v in change.items() if k == "privacy"}
    config = device_config(tmp_path, task=task, sources=[source], **asked)
    with pytest.raises(ConfigError, match=said):
        check_configuration(config)
    replay = ReplayStore(tmp_path / "replay.db", 1_000_000)
    with pytest.raises(ConfigError, match=said):
        build_parts(config, load_task(task), replay, lambda _: None)
    replay.close()


def test_what_a_task_bears_passes(tmp_path: Path) -> None:
    """A classifier with privacy, a forecaster without, a camera with lines where moving objects are counted."""
    camera = [{"name": "main", "uri": f"pack://{image_pack(tmp_path)}", "serving": "moving-objects", "lines": [LINE]}]
    for privacy in ({"epsilon_per_report": 2.0}, {"prototype_k": 666}):
        private = device_config(tmp_path, sources=camera, privacy=privacy)
        assert check_configuration(private).name == "vehicle"
    sensors = [{"name": "main", "uri": f"pack://{series_pack(tmp_path)}"}]
    assert check_configuration(device_config(tmp_path, task="speed", sources=sensors)).name == "speed"
