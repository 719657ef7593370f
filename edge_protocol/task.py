"""A task: what a model answers, from what input, and which student fits which tier; plain data, no file and no network.

Task files are YAML (`edge_models/tasks/*.yaml`). A new task is such a file and a small plug-in: nothing here changes.
"""

from __future__ import annotations

from hashlib import sha256
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from edge_protocol.errors import ConfigError
from edge_protocol.ids import TaskId, check_id

FEATURES = 64
"""K, the width of the feature vector that every student puts out (64 for 512 costs 0.7 points: FedTGP, 2024)."""

Tier = Literal["nano", "small", "base"]
TIERS: tuple[Tier, ...] = ("nano", "small", "base")
Serving = Literal["whole-sample", "moving-objects"]


class ImageInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="image"):
    """Images: (N, channels, height, width) float32 after preprocessing; (height, width, channels) uint8 RGB before.

    Attributes:
        height, width: pixels.
        channels: 3 (RGB) or 1 (grey).
        mean, std: per channel, of values in [0, 1]; what the shared model expects.
    """

    height: Annotated[int, Meta(ge=8, le=1024)]
    width: Annotated[int, Meta(ge=8, le=1024)]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    channels: Literal[1, 3] = 3

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample as the student takes it."""
        return (self.channels, self.height, self.width)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of one stored sample (uint8)."""
        return (self.height, self.width, self.channels)


class SeriesInput(msgspec.Struct, frozen=True, forbid_unknown_fields=True, tag="series"):
    """Windows of readings: (N, steps, 4) float32.

    Channels: the value in units of the sensor's own spread, 1 where measured, sin and cos of the time of day.

    Attributes:
        steps: readings in a window.
        interval_s: seconds between two readings.
    """

    steps: Annotated[int, Meta(ge=1, le=1024)]
    interval_s: Annotated[float, Meta(gt=0)]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of one sample as the student takes it."""
        return (self.steps, 4)

    @property
    def raw_shape(self) -> tuple[int, ...]:
        """Shape of one stored sample (float32): the same, for a window is normalised when it is cut."""
        return self.shape


class TaskSpec(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a model answers.

    Attributes:
        name: the task's name in topics.
        title: for people.
        kind: ``classify`` into `labels`, or ``forecast`` mean and spread at `horizons`.
        labels: class names, in the order of the logits.
        horizons: steps ahead, in the order of the logits; the outputs are all means, then all log-spreads.
        unit: unit of a forecast value, such as ``mph``.
        input: what a sample is.
        side: names of the device's own tabular inputs, seen only by its personal head.
        serving: how a frame becomes an answer.
        interval_s: seconds that one result covers.
        students: name of the student of each tier.
        plugin: module with the task's own functions.
    """

    name: str
    title: str
    kind: Literal["classify", "forecast"]
    input: ImageInput | SeriesInput
    students: dict[Tier, str]
    plugin: str
    labels: tuple[str, ...] = ()
    horizons: tuple[int, ...] = ()
    unit: str = ""
    side: tuple[str, ...] = ()
    serving: Serving = "whole-sample"
    interval_s: Annotated[float, Meta(gt=0)] = 60.0

    def __post_init__(self) -> None:
        check_id(self.name, "task")
        if (self.kind == "classify") != (len(self.labels) >= 2) or (self.kind == "forecast") != bool(self.horizons):  # noqa: PLR2004
            raise ConfigError(
                f"task {self.name!r}: classify needs two or more 'labels' and no 'horizons', "
                "forecast needs 'horizons' and no 'labels'"
            )
        if set(self.students) != set(TIERS):
            raise ConfigError(f"task {self.name!r}: 'students' must name one for each tier: {', '.join(TIERS)}")

    @property
    def task_id(self) -> TaskId:
        """The name as it appears in topics."""
        return TaskId(self.name)

    @property
    def outputs(self) -> int:
        """Width of the logits: classes, or mean and log-spread per horizon."""
        return len(self.labels) or 2 * len(self.horizons)

    @property
    def label_space(self) -> str:
        """16 hex digits that name what the outputs mean; two sides that differ in it must not exchange reports."""
        meaning = msgspec.msgpack.encode((self.name, self.kind, self.labels, self.horizons, self.unit, self.input))
        return sha256(meaning).hexdigest()[:16]
