"""Facts of this board that need no library: for people and for the server's registry; owns no reading that changes."""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edge_client.config import DeviceConfig
from edge_client.core import Profile
from edge_protocol.task import TaskSpec


def profile(config: DeviceConfig, spec: TaskSpec, root: Path = Path("/")) -> Profile:
    """Describe the device; `root` is where ``proc`` and ``sys`` are."""
    return Profile(
        fleet=config.fleet_id,
        device=config.device_id,
        tier=config.tier,
        spec=spec,
        report_interval_s=config.report_interval_s,
        board=_board(root)[:64],
        software=_version("roadcast"),
        runtime=f"onnxruntime {_version('onnxruntime')}"[:64],
        cores=os.cpu_count() or 0,
        memory_bytes=_memory_bytes(root),
    )


def _board(root: Path) -> str:
    try:
        return (root / "proc/device-tree/model").read_text(encoding="utf-8", errors="replace").strip("\0\n ")
    except OSError:
        return f"{platform.system()} {platform.machine()}"


def _memory_bytes(root: Path) -> int:
    try:
        lines = (root / "proc/meminfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith("MemTotal:")), 0)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "unknown"
