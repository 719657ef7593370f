"""What a run is asked to be, as it is written down and sent to another machine; owns no model."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from devices.latency.load import Plan

PublishTo = Literal["memory", "broker"]
RunnerName = Literal["ort", "ort-cuda", "ort-tensorrt", "trt", "torch", "torch-compile"]
Driver = Literal["roadcast", "loadgen"]
MOST_SOAK_S = 30 * 86_400.0


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is measured.

    Attributes:
        plan: how much, and how queries are issued.
        threads: that one inference may use.
        end_to_end: a frame's whole way, from a camera's JPEG, or a sensor's window, to a message that is handed over.
        source: where pictures are captured, as in a device's configuration; empty: they are simulated.
        publish: who takes messages: a transport in memory, or a broker of its own.
        runner: ONNX Runtime on the CPU, with its CUDA or TensorRT provider; TensorRT itself; PyTorch, maybe compiled.
        driver: who issues the queries: our own loop, or MLPerf LoadGen.
        soak_s: keep it busy for so many seconds, and watch the board; 0: measure as the plan says.
        power: measure what the board draws.
    """

    plan: Plan
    threads: int = 1
    end_to_end: bool = False
    source: str = ""
    publish: PublishTo = "memory"
    runner: RunnerName = "ort"
    driver: Driver = "roadcast"
    soak_s: Annotated[float, Meta(ge=0, le=MOST_SOAK_S)] = 0.0
    power: bool = False
