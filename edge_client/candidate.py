"""A release loaded beside the one that answers frames; owns no thread and no decision."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
from safetensors.numpy import load

from devices.runners.base import Runner
from devices.runners.ort_runner import OrtRunner
from edge_models.samples import F4
from edge_protocol.errors import DeploymentError, RoadcastError
from edge_protocol.manifest import Artifact
from export.golden import check_golden

Blob = Callable[[str], Path]
"""Where the blob of a hash is."""


class Bytes(NamedTuple):
    """An artifact's files."""

    template: bytes
    weights: bytes
    golden: bytes


@dataclass(eq=False, slots=True)
class Candidate:
    """A loaded release.

    Attributes:
        release: its counter.
        artifact: its files.
        runner: its student, whose golden answers are right.
        golden: inputs of the golden answers, (N, *shape) float32.
        board: the state of the board that a plan was made for, or tried; "" when none was. The installer's thread alone
            reads and sets it.
        note: why it is not in TensorRT; "" when it is, or is not to be.
    """

    release: int
    artifact: Artifact
    runner: Runner
    golden: F4
    board: str = ""
    note: str = ""


def read_files(artifact: Artifact, blob: Blob) -> Bytes:
    """Read an artifact's files.

    Raises:
        OSError: one is missing.
    """
    return Bytes(*(blob(ref.sha256).read_bytes() for ref in (artifact.template, artifact.weights, artifact.golden)))


def load_release(release: int, artifact: Artifact, blob: Blob, threads: int) -> Candidate:
    """Load a release into ONNX Runtime, and check its golden answers.

    Raises:
        RoadcastError: a file is of another student, or the student fails, or answers otherwise than it must.
        OSError: a file is missing.
    """
    files = read_files(artifact, blob)
    runner = OrtRunner(files.template, files.weights, threads=threads)
    try:
        check_golden(runner, files.golden)
    except RoadcastError:
        runner.close()
        raise
    except Exception as error:  # a runtime's own errors share no base class
        runner.close()
        raise DeploymentError(f"release {release} fails on its golden inputs: {error!r}") from error
    return Candidate(release, artifact, runner, load(files.golden)["inputs"].astype(np.float32))
