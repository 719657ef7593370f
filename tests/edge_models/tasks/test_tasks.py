"""Tasks are files: shipped ones load, a fourth needs no change of the core, wrong ones say what is wrong."""

from __future__ import annotations

import subprocess
import sys
import traceback
from pathlib import Path

import msgspec
import numpy as np
import pytest

from edge_models.tasks import load_task, plugin_of, task_names
from edge_protocol.errors import ConfigError, DataError
from edge_protocol.task import FEATURES, TIERS

WEATHER = """
name: weather
title: Weather at a mast camera
kind: classify
labels: [dry, wet, snow, fog]
input: {type: image, height: 24, width: 40, channels: 1, mean: [0.5], std: [0.25]}
side: [humidity]
students: {nano: residual, small: depthwise, base: mixer}
plugin: weather_plugin
"""
WEATHER_PLUGIN = """
import numpy as np
from edge_models.kinds.classify import headline, higher_is_better, score, simulate

def side(record):
    return np.array([float(record["humidity"]) / 100], np.float32)
"""


@pytest.fixture
def weather(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A fourth task: one YAML file and a plug-in of three lines, outside the project."""
    (tmp_path / "weather_plugin.py").write_text(WEATHER_PLUGIN)
    (tmp_path / "weather.yaml").write_text(WEATHER)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "weather_plugin", raising=False)
    return tmp_path / "weather.yaml"


def test_the_shipped_tasks_are_what_they_promise() -> None:
    """Vehicle has six classes, speed three horizons of a five-minute series, clinic side inputs."""
    assert task_names() == ("clinic", "speed", "vehicle")
    vehicle, speed, clinic = (load_task(name) for name in ("vehicle", "speed", "clinic"))
    assert vehicle.labels == ("bike", "car", "juggernaut", "minibus", "pickup", "truck")
    assert (vehicle.input.shape, vehicle.serving) == ((3, 32, 32), "moving-objects")
    assert (speed.horizons, speed.outputs, speed.unit, speed.input.shape) == ((3, 6, 12), 6, "mph", (12, 4))
    assert clinic.side


@pytest.mark.parametrize("name", ["vehicle", "speed", "clinic"])
def test_every_plugin_simulates_what_it_can_score(name: str) -> None:
    """Simulated samples have the task's shapes, are labelled, and score; the headline comes first."""
    spec = load_task(name)
    plugin = plugin_of(spec)
    samples = plugin.simulate(spec, np.random.default_rng(0), 40)
    assert samples.raw.shape == (40, *spec.input.raw_shape)
    assert samples.labelled.all()
    assert samples.side.shape[1] == len(spec.side) == len(plugin.side({}))
    logits = np.zeros((40, spec.outputs), np.float32)
    assert next(iter(plugin.score(spec, logits, samples.targets, samples.scale))) == plugin.headline


def test_a_fourth_task_is_a_file_and_a_plugin(weather: Path) -> None:
    """A new task loads, simulates, scores and gets a student of each tier without a change of the core."""
    import torch  # noqa: PLC0415 - the other tests of this file show that tasks need none

    from edge_models.students import build_student  # noqa: PLC0415

    spec = load_task(weather)
    plugin = plugin_of(spec)
    assert plugin.side({"humidity": "50"}).tolist() == [0.5]
    samples = plugin.simulate(spec, np.random.default_rng(0), 6)
    assert samples.raw.shape == (6, 24, 40, 1)
    x = torch.from_numpy(samples.raw.transpose(0, 3, 1, 2).astype(np.float32) / 255)
    for tier in TIERS:
        features, logits = build_student(spec, tier).eval()(x)
        assert features.shape == (6, FEATURES)
        assert "accuracy" in plugin.score(spec, logits.detach().numpy(), samples.targets)


def test_an_unknown_task_is_told_apart_from_a_missing_file() -> None:
    """A typing error gets a suggestion, anything else the list of tasks."""
    with pytest.raises(ConfigError, match="did you mean 'vehicle'"):
        load_task("vehicel")
    with pytest.raises(ConfigError, match="clinic, speed, vehicle"):
        load_task("/nowhere/x.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("labels:", "lables:", "did you mean 'labels'"),
        ("labels: [dry, wet, snow, fog]", "labels: [dry]", "two or more"),
        ("height: 24", "height: 2", "height"),
        ("{nano: residual, small", "{nano: residual, smal", "students"),
        ("name: weather", "name: we/ather", "must be 1 to 64"),
    ],
)
def test_a_wrong_task_file_says_which_key(weather: Path, old: str, new: str, message: str) -> None:
    """Unknown keys, bad values and illegal names are named."""
    weather.write_text(WEATHER.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        load_task(weather)


def test_a_plugin_must_exist_and_be_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing module and one without the needed functions are told apart."""
    spec = load_task("vehicle")
    with pytest.raises(ConfigError, match="cannot be imported"):
        plugin_of(msgspec.structs.replace(spec, plugin="no_such_plugin"))
    (tmp_path / "half_plugin.py").write_text("headline = 'accuracy'\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match=r"lacks higher_is_better, score, side, simulate"):
        plugin_of(msgspec.structs.replace(spec, plugin="half_plugin"))


def test_clinic_readings_that_are_missing_are_not_zero() -> None:
    """A usual value and a missing one differ by the measured flag; text is refused, and no log shows it."""
    side = plugin_of(load_task("clinic")).side
    assert side({"age": "50"}).tolist() == [0, 1, 0, 0, 0, 0]
    assert side({"age": "", "temperature": "38.4"}) == pytest.approx([0, 0, 2, 1, 0, 0])
    for bad in ("warm", "nan", "inf", "39 (Ms Doe)"):
        with pytest.raises(DataError, match="temperature") as refused:
            side({"temperature": bad})
        assert bad not in str(refused.value)
        assert "Doe" not in "".join(traceback.format_exception(refused.value))


def test_tasks_and_windows_load_no_torch() -> None:
    """The half of edge_models that a serving device loads does not bring torch."""
    code = (
        "import sys; from edge_models.tasks import *; import edge_models.windows;"
        "[plugin_of(load_task(n)) for n in task_names()]; print('torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"
