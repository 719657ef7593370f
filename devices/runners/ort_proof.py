"""Which execution provider really ran a model: read from ONNX Runtime's own record of one run, never from a list.

`InferenceSession.get_providers` says what was asked for; a node that a provider cannot run falls back to another one
without a word.
"""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import onnxruntime

from edge_protocol.errors import DeviceError


class _Event(msgspec.Struct):
    """One entry of the record; nodes say who ran them."""

    cat: str = ""
    args: dict[str, Any] = {}


def providers_that_ran(
    open_session: Callable[[Path], onnxruntime.InferenceSession], inputs: Mapping[str, Any]
) -> dict[str, float]:
    """Run once under the profiler and return the share of nodes that each provider ran.

    Args:
        open_session: makes the session, given where the record is to be written.
        inputs: by name.

    Raises:
        DeviceError: this runtime recorded nothing.
    """
    with tempfile.TemporaryDirectory() as folder:
        session = open_session(Path(folder) / "run")
        session.run(None, dict(inputs))
        record = Path(session.end_profiling()).read_bytes()
    events = msgspec.json.decode(record, type=list[_Event])
    ran = Counter(str(event.args["provider"]) for event in events if event.cat == "Node" and "provider" in event.args)
    if not ran:
        raise DeviceError("ONNX Runtime recorded no node, so it is not known what ran the model: use a newer one")
    return {provider: count / ran.total() for provider, count in sorted(ran.items())}
