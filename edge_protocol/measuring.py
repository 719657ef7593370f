"""A server asks how fast a device's student answers, and what the device says; owns no bytes and no measuring."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from edge_protocol.fields import Count, Name, Text, Values, check_finite

MOST_SECONDS = 30.0


class Measure(msgspec.Struct, frozen=True, array_like=True, tag="measure"):
    """Measure the student that answers frames now, once; answered by a `Measured` that names this message."""

    task: Name
    seconds: Annotated[float, Meta(gt=0, le=MOST_SECONDS)]


class Measured(msgspec.Struct, frozen=True, array_like=True, tag="measured"):
    """How fast a device's student answers, or why that was not measured.

    Attributes:
        asked: message id of the `Measure`.
        release: counter of the release that was measured.
        ran: what answers frames and was measured, as the runner names it from having run: an execution provider, or
            TensorRT's version and the GPU of a plan; "" without a measurement.
        queries: measured, of one sample each, after a warm-up.
        values: `p50_ms`, `p90_ms`, `p95_ms`, `p99_ms`, `max_ms`; `p95_bound_ms`, `p99_bound_ms` where 99 % confidence
            allows one; `cpu_p50_ms`; `contended`, wall over CPU time, not of a plan.
        reason: why there are no values; "" when there are.
    """

    task: Name
    asked: Annotated[bytes, Meta(min_length=16, max_length=16)]
    release: Count
    ran: Name
    queries: Count
    values: Values
    reason: Text = ""

    def __post_init__(self) -> None:
        check_finite(self.values)
