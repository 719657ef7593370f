"""Who is in the demo's fleet: eight devices, two tasks, three tiers each, every camera under conditions of its own."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from edge_protocol.task import Tier

NAME = "demo"
CAMERA_TASK, SENSOR_TASK = "vehicle", "speed"
TASKS = (CAMERA_TASK, SENSOR_TASK)
CONDITIONS = ("clean", "night", "fog", "blur", "low_resolution", "warm")
"""What proxies and held-out images are taken under, in equal shares; see `roadcast.simulated.conditions`."""
CLIP_SOURCE = "road"


@dataclass(frozen=True, kw_only=True)
class Member:
    """One device of the demo.

    Attributes:
        conditions: share of each condition in what the camera sees; empty for a sensor.
        preprocess: the device's own correction of its camera.
        plays_clip: whether it also counts on the video clip.
    """

    name: str
    task: str
    tier: Tier
    conditions: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    preprocess: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    plays_clip: bool = False

    @property
    def is_camera(self) -> bool:
        """Whether it looks at pictures."""
        return self.task == CAMERA_TASK


FLEET: tuple[Member, ...] = (
    Member(
        name="cam-north",
        task=CAMERA_TASK,
        tier="nano",
        conditions={"night": 0.5, "blur": 0.25, "clean": 0.25},
    ),
    Member(
        name="cam-east",
        task=CAMERA_TASK,
        tier="small",
        conditions={"fog": 0.5, "night": 0.25, "clean": 0.25},
        plays_clip=True,
    ),
    Member(
        name="cam-south",
        task=CAMERA_TASK,
        tier="base",
        conditions={"low_resolution": 0.5, "warm": 0.25, "clean": 0.25},
    ),
    Member(
        name="cam-west",
        task=CAMERA_TASK,
        tier="nano",
        conditions={"warm": 0.5, "fog": 0.25, "clean": 0.25},
        preprocess={"gains": [0.85, 1.0, 1.4]},
    ),
    Member(name="loop-north", task=SENSOR_TASK, tier="nano"),
    Member(name="loop-east", task=SENSOR_TASK, tier="small"),
    Member(name="loop-south", task=SENSOR_TASK, tier="base"),
    Member(name="loop-west", task=SENSOR_TASK, tier="nano"),
)


def cameras() -> list[Member]:
    """The members that look at pictures."""
    return [member for member in FLEET if member.is_camera]


def sensors() -> list[Member]:
    """The members that read series."""
    return [member for member in FLEET if not member.is_camera]
