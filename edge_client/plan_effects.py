"""What the device's brain wants done about plans for TensorRT, and what it is told; beside `effects`, owns no doing."""

from __future__ import annotations

import msgspec


class BuildPlan(msgspec.Struct, frozen=True):
    """Load the checked candidate into TensorRT where the device is to use it; answered by `Planned`."""

    release: int


class Exchange(msgspec.Struct, frozen=True):
    """Answer frames with the plan that was made for the running release since it was installed."""

    release: int


class Planned(msgspec.Struct, frozen=True):
    """A release is in TensorRT, or was not to be; `note` says why ONNX Runtime serves although it was to be."""

    release: int
    note: str = ""
