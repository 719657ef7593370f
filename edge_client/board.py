"""Facts of this board, for people and for the server's registry; owns no reading that changes."""

from __future__ import annotations

import os
import platform

import onnxruntime

from devices.boards import Machine
from devices.boards.host import read_memory, read_model
from edge_client.config import DeviceConfig
from edge_client.core import Profile
from edge_client.planner import wants_tensorrt
from edge_protocol import __version__
from edge_protocol.task import TaskSpec


def profile(config: DeviceConfig, spec: TaskSpec, machine: Machine | None = None) -> Profile:
    """Describe the device; `machine` is the board that this runs on when None."""
    here = machine or Machine()
    model = read_model(here) or f"{platform.system()} {platform.machine()}"
    return Profile(
        fleet=config.fleet_id,
        device=config.device_id,
        tier=config.tier,
        spec=spec,
        report_interval_s=config.report_interval_s,
        board=model[:64],
        software=__version__,
        runtime=f"onnxruntime {onnxruntime.__version__}"[:64],
        cores=os.cpu_count() or 0,
        memory_bytes=read_memory(here).total or 0,
        variants=_variants(config, here),
        prototypes=config.privacy.prototype_k is not None,
    )


def _variants(config: DeviceConfig, machine: Machine) -> tuple[str, ...]:
    """Variants of an artifact that it takes before the plain one."""
    if config.precision == "plain":
        return ()
    return ("int8-trt",) if wants_tensorrt(config.runner, machine) else ("int8-cpu",)
