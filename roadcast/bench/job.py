"""What a run is asked to be, as it is written down and sent to another machine; owns no model."""

from __future__ import annotations

from typing import Literal

import msgspec

from devices.latency.load import Plan


class Job(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a model is measured.

    Attributes:
        plan: how much, and how queries are issued.
        threads: that one inference may use.
        end_to_end: from a camera's JPEG, or a sensor's window, to an encoded message.
        runner: ONNX Runtime, or TensorRT.
    """

    plan: Plan
    threads: int = 1
    end_to_end: bool = False
    runner: Literal["ort", "trt"] = "ort"
