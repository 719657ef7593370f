"""Tasks: shapes that follow from the specification, and contradictions that are refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from edge_protocol.errors import ConfigError, LocalProtocolError
from edge_protocol.task import ImageInput, SeriesInput, TaskSpec
from tests.vectors.make import manifest

CLASSIFY = manifest().task
FORECAST = TaskSpec(
    name="speed",
    title="Speed",
    kind="forecast",
    input=SeriesInput(steps=12, interval_s=300.0),
    students=CLASSIFY.students,
    plugin="edge_models.kinds.forecast",
    horizons=(3, 6, 12),
    unit="mph",
)


def test_shapes_follow_from_the_input() -> None:
    """Images are stored channels last and fed channels first; windows are fed as they are stored."""
    image = CLASSIFY.input
    assert isinstance(image, ImageInput)
    assert (image.shape, image.raw_shape) == ((3, 32, 32), (32, 32, 3))
    assert FORECAST.input.shape == FORECAST.input.raw_shape == (12, 4)


def test_outputs_are_classes_or_two_a_horizon() -> None:
    """A forecaster answers mean and log-spread for each horizon."""
    assert (CLASSIFY.outputs, FORECAST.outputs) == (3, 6)
    assert FORECAST.task_id == "speed"


def test_the_label_space_follows_the_meaning_only() -> None:
    """Another order of labels is another label space; another title or student is not."""
    replace = msgspec.structs.replace
    assert replace(CLASSIFY, title="x", plugin="y").label_space == CLASSIFY.label_space
    assert replace(CLASSIFY, labels=("car", "bike", "truck")).label_space != CLASSIFY.label_space
    assert len(CLASSIFY.label_space) == 16


@pytest.mark.parametrize(
    ("base", "changes", "message"),
    [
        (CLASSIFY, {"labels": ("one",)}, "two or more"),
        (CLASSIFY, {"horizons": (1,)}, "two or more"),
        (FORECAST, {"horizons": ()}, "needs 'horizons'"),
        (FORECAST, {"labels": ("a", "b")}, "no 'labels'"),
        (CLASSIFY, {"students": {"nano": "x"}}, "one for each tier"),
    ],
)
def test_a_contradiction_is_refused(base: TaskSpec, changes: dict[str, Any], message: str) -> None:
    """Labels and horizons must fit the kind, and each tier needs a student."""
    with pytest.raises(ConfigError, match=message):
        msgspec.structs.replace(base, **changes)


def test_a_task_name_must_fit_into_a_topic() -> None:
    """A name with a slash is refused."""
    with pytest.raises(LocalProtocolError, match="task 'a/b'"):
        msgspec.structs.replace(CLASSIFY, name="a/b")
