"""From a finished training job to the report that travels: quantised votes; owns no training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from edge_client.jobs import TrainResult
from edge_models.samples import F4
from edge_protocol.errors import LocalProtocolError, StoreError
from edge_protocol.messages import KnowledgeReport, RoundCall
from edge_protocol.task import TaskSpec
from edge_protocol.votes import Votes, class_votes, forecast_votes


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


def _votes(arrays: dict[str, F4], result: TrainResult) -> Votes:
    if "odds" in arrays:
        return class_votes(arrays["odds"], np.array(result.held, np.uint8))
    return forecast_votes(arrays["mean"], arrays["spread"], arrays["familiarity"])
