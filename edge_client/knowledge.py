"""From a finished training job to the report that travels: quantised votes; owns no training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from edge_client.jobs import TrainResult
from edge_models.samples import F4
from edge_protocol.arrays import pack
from edge_protocol.errors import LocalProtocolError, StoreError
from edge_protocol.messages import ClassVotes, ForecastVotes, KnowledgeReport, RoundCall
from edge_protocol.task import TaskSpec

_FULL = 255
_LARGEST = float(np.finfo(np.float16).max)
_LEAST = float(np.finfo(np.float16).tiny)


def read_report(folder: Path, result: TrainResult, *, spec: TaskSpec, call: RoundCall, release: int) -> KnowledgeReport:
    """Make the report that answers a round.

    Args:
        folder: of the job.
        result: what the job wrote.
        spec: the task.
        call: the round.
        release: whose trunk the job used.

    Raises:
        StoreError: the votes are missing, damaged or not finite.
    """
    path = folder / "votes.safetensors"
    try:
        votes = _votes(load(path.read_bytes()), result)
    except (OSError, SafetensorError, KeyError, LocalProtocolError) as error:
        raise StoreError(f"votes of round {call.number} in {path}: {error}") from error
    return KnowledgeReport(spec.name, spec.label_space, call.number, release, call.proxy.sha256, result.examples, votes)


def _votes(arrays: dict[str, npt.NDArray[np.generic]], result: TrainResult) -> ClassVotes | ForecastVotes:
    density = pack(_byte(arrays["density"]))
    if "probabilities" in arrays:
        probabilities = arrays["probabilities"]
        best = probabilities.argmax(1)
        confidence = np.take_along_axis(probabilities, best[:, None], 1)[:, 0]
        held = pack(np.array(result.held, np.uint8))
        return ClassVotes(pack(best.astype(np.uint8)), pack(_byte(confidence)), density, held)
    mean = arrays["mean"].astype(np.float32).clip(-_LARGEST, _LARGEST).astype(np.float16)
    spread = arrays["spread"].astype(np.float32).clip(_LEAST, _LARGEST).astype(np.float16)
    return ForecastVotes(pack(mean), pack(spread), density)


def _byte(share: npt.NDArray[np.generic] | F4) -> npt.NDArray[np.uint8]:
    """Shares in [0, 1] as bytes; what is not finite is worth nothing."""
    finite = np.nan_to_num(share.astype(np.float32), nan=0.0)
    byte: npt.NDArray[np.uint8] = np.rint(finite.clip(0, 1) * _FULL).astype(np.uint8)
    return byte
