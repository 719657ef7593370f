"""Writes the YAML of the server and of each device, as an installer would; owns no default of theirs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from roadcast.demo import fleet
from roadcast.demo.fleet import FLEET, Member
from roadcast.demo.partition import Shares

LINE = {"name": "across", "from": [0.0, 0.55], "to": [1.0, 0.55]}
LATENCY_FACTOR = 200.0
"""Eight devices, their trainers and two distillers share this machine's cores: latency tells nothing here."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """How fast the demo goes; a test goes faster.

    Attributes:
        deadline_s: how long a round takes reports.
        distil: the server's ``distil`` section.
        train: a device's ``train`` section.
        image_hz: pictures a second of each camera; reading rows a second of each sensor group is `row_hz`.
        clip_hz: pictures a second of the clip.
    """

    deadline_s: float = 60.0
    distil: Mapping[str, Any] = field(default_factory=lambda: {"strategy": "feddistill", "seed": 7, "parallel": 2})
    train: Mapping[str, Any] = field(default_factory=dict)
    image_hz: float = 8.0
    row_hz: float = 1.0
    clip_hz: float = 12.0


@dataclass(frozen=True)
class Places:
    """The demo's work folder."""

    root: Path

    @property
    def server_config(self) -> Path:
        """The server's YAML."""
        return self.root / "server.yaml"

    @property
    def server_state(self) -> Path:
        """The server's state."""
        return self.root / "server"

    @property
    def clip(self) -> Path:
        """Where the camera looks for its clip: it is put there once the camera has a model to count with."""
        return self.root / "clip.mp4"

    @property
    def heads(self) -> Path:
        """Personal heads that are kept for the evaluation."""
        return self.root / "heads"

    def device_config(self, name: str) -> Path:
        """A device's YAML."""
        return self.root / f"{name}.yaml"

    def device_state(self, name: str) -> Path:
        """A device's state."""
        return self.root / "devices" / name


def write_configs(places: Places, shares: Shares, pace: Pace, *, port: int, rounds: int) -> None:
    """Write every configuration, and make the keys that sign for the fleet."""
    from broker_server.config import read_config
    from broker_server.key_setup import begin

    broker = {"host": "127.0.0.1", "port": port}
    _write(places.server_config, _server(places, shares, pace, broker, rounds))
    root = begin(read_config(places.server_config), time.time()).newest_root
    for member in FLEET:
        tree = _device(member, places, shares, pace)
        _write(places.device_config(member.name), {**tree, "broker": broker, "trusted_root": str(root)})


def _server(places: Places, shares: Shares, pace: Pace, broker: dict[str, Any], rounds: int) -> dict[str, Any]:
    half = len(FLEET) // len(fleet.TASKS)
    schedule = {"limit": rounds, "quorum": half, "wait_for": half, "deadline_s": pace.deadline_s, "pause_s": 0.5}
    return {
        "fleet": fleet.NAME,
        "broker": broker,
        "state_dir": str(places.server_state),
        "keys_dir": str(places.root / "keys"),
        "tasks": {
            task: {
                "task": task,
                **{part: str(shares.server(task, part)) for part in ("anchors", "proxies", "validation")},
                "rounds": schedule,
            }
            for task in fleet.TASKS
        },
        "distil": dict(pace.distil),
    }


def _device(member: Member, places: Places, shares: Shares, pace: Pace) -> dict[str, Any]:
    live = {"name": "main", "uri": f"pack://{shares.device(member.name, 'live')}", "loop": True}
    live |= {"serving": "whole-sample", "rate_hz": pace.image_hz if member.is_camera else pace.row_hz}
    road = {"name": fleet.CLIP_SOURCE, "uri": f"file://{places.clip}", "rate_hz": pace.clip_hz, "loop": False}
    road |= {"serving": "moving-objects", "lines": [LINE]}
    return {
        "fleet": fleet.NAME,
        "device": member.name,
        "tier": member.tier,
        "task": member.task,
        "state_dir": str(places.device_state(member.name)),
        "sources": [live, road] if member.plays_clip else [live],
        "labels": {"commissioning": str(shares.device(member.name, "commissioning"))},
        "preprocess": dict(member.preprocess),
        "train": dict(pace.train),
        "probation": {"frames": 10, "wait_s": 5, "latency_factor": LATENCY_FACTOR},
        "report_interval_s": 2,
    }


def _write(path: Path, tree: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(tree), sort_keys=False), encoding="utf-8")
