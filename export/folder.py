"""An artifact as a folder: names of its files, writing and reading them. Needs neither torch nor onnx.

The distiller's candidates and ``roadcast export`` use the same layout.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from edge_protocol.errors import NotReadyError, StoreError
from edge_protocol.task import TaskSpec, Tier

if TYPE_CHECKING:
    from export.artifact import BuiltArtifact

STATE = "state.safetensors"
"""The student's fp32 state dict, from which a later build or distillation starts."""
TEMPLATE = "template.onnx"
WEIGHTS = "weights.safetensors"
GOLDEN = "golden.safetensors"
CARD = "artifact.json"


class Card(msgspec.Struct, frozen=True):
    """What a folder's files are.

    Attributes:
        task: the whole task.
        tier: which boards it fits.
        parameters: number of weights.
        parity: largest difference from PyTorch per output, as the gate measured it.
        precision: of its numbers, such as ``fp32``.
    """

    task: TaskSpec
    tier: Tier
    parameters: int
    parity: dict[str, float]
    precision: str = "fp32"


def write_artifact(
    folder: Path, artifact: BuiltArtifact, spec: TaskSpec, tier: Tier, *, precision: str = "fp32"
) -> Card:
    """Write an artifact's files into a folder, which is made when it is not there.

    Raises:
        StoreError: the disk refuses.
    """
    parity = {"features": artifact.parity.features, "logits": artifact.parity.logits}
    card = Card(spec, tier, artifact.parameters, parity, precision)
    text = msgspec.json.format(msgspec.json.encode(card))
    parts = {TEMPLATE: artifact.template, WEIGHTS: artifact.weights, GOLDEN: artifact.golden, CARD: text}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in parts.items():
            (folder / name).write_bytes(data)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written: {error.strerror or error}; give another folder") from error
    return card


def read_card(folder: Path) -> Card:
    """Read what a folder's files are.

    Raises:
        NotReadyError: no card, or not one.
    """
    try:
        return msgspec.json.decode(read_part(folder, CARD), type=Card)
    except (msgspec.DecodeError, ValueError) as error:
        raise NotReadyError(f"{folder / CARD} is not an artifact's card: {error}; build the artifact again") from error


def read_part(folder: Path, name: str) -> bytes:
    """Read one of a folder's files.

    Raises:
        NotReadyError: it is not there or cannot be read.
    """
    try:
        return (folder / name).read_bytes()
    except OSError as error:
        raise NotReadyError(
            f"{folder / name}: {error.strerror}; make it with 'roadcast export build -o {folder}'"
        ) from error
