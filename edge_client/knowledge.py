"""From a finished job to its report: votes, maybe with a trunk's change, or class means; owns no training."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load

from edge_client.jobs import TRUNK, TrainResult
from edge_models.samples import F4
from edge_protocol.errors import LocalProtocolError, StoreError
from edge_protocol.messages import KnowledgeReport, PrototypeCall, PrototypeReport, RoundCall
from edge_protocol.prototypes import told_arrays
from edge_protocol.task import TaskSpec, Tier
from edge_protocol.trunks import TrunkChange
from edge_protocol.votes import ClassVotes, Votes, class_votes, forecast_votes


def read_report(
    folder: Path,
    result: TrainResult,
    *,
    spec: TaskSpec,
    call: RoundCall,
    release: int,
    before: Votes | None = None,
) -> KnowledgeReport:
    """Make the report that answers a round.

    Args:
        folder: of the job.
        result: what the job wrote.
        spec: the task.
        call: the round.
        release: whose trunk the job used.
        before: what the server has of this device on the same proxies; what hardly moved since stays (`class_votes`).

    Raises:
        StoreError: the votes are missing, damaged or not finite, or the trunk's change is damaged.
    """
    path = folder / "votes.safetensors"
    try:
        votes = _votes(load(path.read_bytes()), result, before)
    except (OSError, SafetensorError, KeyError, LocalProtocolError) as error:
        raise StoreError(f"votes of round {call.number} in {path}: {error}") from error
    head = (spec.name, spec.label_space, call.number, release, call.proxy.sha256, result.examples)
    return KnowledgeReport(*head, votes, _trunk(folder / TRUNK))


def _trunk(path: Path) -> TrunkChange | None:
    """The change that a job left, if any."""
    try:
        return msgspec.msgpack.decode(path.read_bytes(), type=TrunkChange)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreError(f"the trunk's change in {path}: {error}") from error


def read_prototypes(folder: Path, *, spec: TaskSpec, tier: Tier, call: PrototypeCall, release: int) -> PrototypeReport:
    """Make the report that answers a round without proxies; arguments as for `read_report`.

    Raises:
        StoreError: the class means are missing, damaged or not finite in half precision.
    """
    path = folder / "prototypes.safetensors"
    try:
        arrays = load(path.read_bytes())
        told = told_arrays(arrays["means"], arrays["counts"])
        return PrototypeReport(spec.name, spec.label_space, call.number, release, tier, *told)
    except (OSError, SafetensorError, KeyError, LocalProtocolError) as error:
        raise StoreError(f"class means of round {call.number} in {path}: {error}") from error


def _votes(arrays: dict[str, F4], result: TrainResult, before: Votes | None) -> Votes:
    if "odds" in arrays:
        odds = arrays["odds"]
        if not isinstance(before, ClassVotes) or (before.samples, before.held.shape[0]) != odds.shape:
            before = None
        return class_votes(odds, np.array(result.held, np.uint8), before)
    return forecast_votes(arrays["mean"], arrays["spread"])
