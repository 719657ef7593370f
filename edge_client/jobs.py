"""What passes between the agent and its training subprocess: files in a folder, no pickle; owns no process, no torch.

::

    job.json        TrainJob                           written by the agent
    result.json     TrainResult                        written last: when it is there, all of it is
    personal.safetensors                               HeadWeights
    votes.safetensors    odds, or mean and spread                     only when a proxy set was given
    prototypes.safetensors    means (C, 64) float32, counts (C,) int64    only when `prototype_k` was
    trunk.msgpack                                      TrunkChange     only when one was asked for and could be made
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load

from devices.preprocess import PreprocessConfig
from devices.runners.payload import read_payload
from edge_client.costs import Cost
from edge_client.disk import write_atomic
from edge_client.hard_examples import HardExample
from edge_client.installed import HeadChoice
from edge_models.head_weights import HeadType, HeadWeights
from edge_protocol.errors import DataError, IncompatibleError, RoadcastError, StoreError
from edge_protocol.task import TaskSpec, Tier
from edge_protocol.trunks import TrunkAsk

T = TypeVar("T")
TRUNK = "trunk.msgpack"
"""How the trunk changed, in a job's folder."""


class TrainJob(msgspec.Struct, frozen=True, kw_only=True):
    """One training job.

    Attributes:
        spec: the task.
        preprocess: the device's own.
        template, weights: paths of the release's files.
        replay: path of the replay store.
        proxy: path of the proxy set to answer; None to refit the personal head only.
        prototype_k: least samples of a class whose mean features are to be told; None to tell none.
        epochs: passes at most.
        max_samples: that are learned from, labelled ones first.
        heads: types of personal head to choose from.
        nice, memory_mb: what the subprocess grants itself.
        watts: what the board draws, where only its installer knows.
        seed: of everything random but privacy's noise.
        sigma: of that noise, see `edge_models.private_odds`; 0 for a report without.
        tier: of the release's student.
        trunk: how to train its trunk; None to leave it.
    """

    spec: TaskSpec
    preprocess: PreprocessConfig
    template: str
    weights: str
    replay: str
    proxy: str | None
    epochs: int
    max_samples: int
    nice: int
    memory_mb: int
    heads: tuple[HeadType, ...] = ("bias", "linear")
    watts: float | None = None
    seed: int = 0
    sigma: float = 0.0
    prototype_k: int | None = None
    tier: Tier = "nano"
    trunk: TrunkAsk | None = None


class TrainResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a job.

    Attributes:
        choice: personal or shared head, and their scores.
        examples: labelled samples; noisy where privacy is on.
        held: 1 for classes with examples, likewise; empty for forecasts.
        cost: what it took.
        hard: samples that the device is least sure of; they stay on it.
        no_trunk: why the trunk's change that was asked for is not there; "" otherwise.
        left_out: samples that no head could be fitted on, for what the trunk makes of them is not finite.
    """

    choice: HeadChoice
    examples: int
    held: tuple[int, ...]
    cost: Cost | None = None
    hard: tuple[HardExample, ...] = ()
    no_trunk: str = ""
    left_out: int = 0


def write_job(folder: Path, job: TrainJob) -> None:
    """Write a job down.

    Raises:
        StoreError: the disk refused.
    """
    write_atomic(folder / "job.json", msgspec.json.encode(job))


def read_job(folder: Path) -> TrainJob:
    """Read a job.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    return _read(folder / "job.json", TrainJob)


def read_result(folder: Path, name: str = "result.json") -> TrainResult:
    """Read a result; the last one of a device is ``lesson.json`` in its state directory.

    Raises:
        StoreError: there is none, or it is damaged.
    """
    return _read(folder / name, TrainResult)


def shared_head(weights: bytes) -> HeadWeights:
    """The shared head of a release, out of its weights payload.

    Raises:
        IncompatibleError: the payload holds none.
    """
    try:
        tensors = read_payload(weights)
        return HeadWeights(tensors["head.weight"].astype(np.float32), tensors["head.bias"].astype(np.float32))
    except KeyError as error:
        raise IncompatibleError(f"weights payload holds no shared head: {error}") from error


def proxy_raw(path: Path, spec: TaskSpec) -> npt.NDArray[np.generic]:
    """The raw samples of a proxy set: (N, *raw_shape).

    Raises:
        DataError: it is another task's, or no proxy set.
    """
    try:
        raw = load(path.read_bytes())["raw"]
    except (KeyError, SafetensorError, OSError) as error:
        raise DataError(f"proxy set {path.parent.name[:12]} cannot be read: {error}") from error
    if raw.shape[1:] != spec.input.raw_shape:
        raise DataError(f"proxy samples are {raw.shape[1:]}, task {spec.name!r} takes {spec.input.raw_shape}")
    return raw


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError, RoadcastError) as error:
        raise StoreError(f"training file {path}: {error}") from error
