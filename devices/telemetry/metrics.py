"""Names and units of readings, and their Prometheus text. Pure; owns no reading.

A reading's name is that of its metric, and after a dot what it is a reading of: ``temperature_celsius.cpu``. Units are
base units and stand at the end of the name, as Prometheus asks. What could not be read is absent, never 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final, Literal, NamedTuple

from devices.telemetry.scene import FAULTS

_PREFIX: Final = "roadcast_"
_VIEW: Final = "What is wrong with a camera's view: " + ", ".join(
    f"{number} {fault}" for number, fault in enumerate(("nothing", *FAULTS))
)


class Metric(NamedTuple):
    """One metric: what a reading of it is of (a Prometheus label, or None for the whole board), its kind, and help."""

    label: str | None
    kind: Literal["gauge", "counter"]
    help: str


METRICS: Final[dict[str, Metric]] = {
    "temperature_celsius": Metric("zone", "gauge", "Temperature of a thermal zone."),
    "temperature_headroom_celsius": Metric(None, "gauge", "Kelvin until the first zone reaches its limit."),
    "power_watts": Metric("rail", "gauge", "Power of a supply rail."),
    "board_power_watts": Metric(None, "gauge", "Power of the whole board."),
    "board_power_estimated": Metric(None, "gauge", "1 when the board's power is a sum of rails, not measured."),
    "over_current": Metric("rail", "gauge", "1 while a rail's critical-current alarm is on."),
    "throttled": Metric(None, "gauge", "1 while the board is being slowed down."),
    "throttle_events_total": Metric(None, "counter", "Over-current and thermal events since the start."),
    "cpu_load_ratio": Metric(None, "gauge", "Share of the processor's time since the last sample that was busy."),
    "gpu_load_ratio": Metric(None, "gauge", "Share of the GPU's time that is busy."),
    "gpu_clock_hertz": Metric(None, "gauge", "Clock of the GPU."),
    "memory_total_bytes": Metric(None, "gauge", "Memory of the board."),
    "memory_available_bytes": Metric(None, "gauge", "Memory that programs may still take."),
    "disk_written_bytes_total": Metric("disk", "counter", "Bytes written to a disk since the start."),
    "disk_written_bytes_per_second": Metric("disk", "gauge", "Bytes a second written since the last sample."),
    "disk_wear_ratio": Metric("disk", "gauge", "Share of a disk's life that is used up."),
    "state_free_bytes": Metric(None, "gauge", "Room on the disk that holds the state directory."),
    "state_total_bytes": Metric(None, "gauge", "Size of the disk that holds the state directory."),
    "clock_synchronized": Metric(None, "gauge", "1 when something keeps the clock right."),
    "camera_frame_age_seconds": Metric("camera", "gauge", "Seconds since the last good frame of a camera."),
    "camera_frame_period_seconds": Metric("camera", "gauge", "Seconds from one frame to the next, where that is set."),
    "logger_row_age_seconds": Metric("logger", "gauge", "Seconds since a logger's last row."),
    "logger_row_period_seconds": Metric("logger", "gauge", "Seconds from one row to the next."),
    "camera_view_fault": Metric("camera", "gauge", _VIEW),
}


def exposition(values: Mapping[str, float]) -> str:
    """Prometheus' text format (version 0.0.4) of a sample; readings that are not in `METRICS` are left out."""
    lines: list[str] = []
    for name, metric in METRICS.items():
        found = [(of, value) for of, value in _readings(name, values) if math.isfinite(value)]
        if found:
            lines += [f"# HELP {_PREFIX}{name} {metric.help}", f"# TYPE {_PREFIX}{name} {metric.kind}"]
            lines += [f"{_PREFIX}{name}{_label(metric, of)} {value!r}" for of, value in found]
    return "".join(f"{line}\n" for line in lines)


def _readings(name: str, values: Mapping[str, float]) -> list[tuple[str, float]]:
    if METRICS[name].label is None:
        return [("", values[name])] if name in values else []
    start = f"{name}."
    return [(key.removeprefix(start), value) for key, value in values.items() if key.startswith(start)]


def _label(metric: Metric, of: str) -> str:
    if metric.label is None:
        return ""
    escaped = of.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
    return f'{{{metric.label}="{escaped}"}}'
