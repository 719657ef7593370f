"""Types of fields that many messages share, with their bounds; owns no message."""

from __future__ import annotations

from math import isfinite
from typing import Annotated

from msgspec import Meta

from edge_protocol.errors import LocalProtocolError

Name = Annotated[str, Meta(max_length=64)]
Text = Annotated[str, Meta(max_length=512)]
Seconds = Annotated[float, Meta(ge=0, le=1e12)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Values = Annotated[dict[Name, float], Meta(max_length=1024)]
Counts = Annotated[dict[Name, Count], Meta(max_length=256)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


def check_finite(values: dict[str, float]) -> None:
    """Refuse NaN and infinity.

    Raises:
        LocalProtocolError: ``not-finite``.
    """
    for name, value in values.items():
        if not isfinite(value):
            raise LocalProtocolError("not-finite", f"{name!r} is {value}; leave out what was not measured")
