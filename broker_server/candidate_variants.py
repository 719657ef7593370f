"""Variants of a candidate's artifact, each through its gates, or not at all; owns their place in its folder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import msgspec

from broker_server.candidate_files import write_file
from broker_server.strategies.base import F4
from edge_models.samples import Samples
from edge_protocol.errors import RoadcastError
from edge_protocol.task import TaskSpec
from export import BuiltArtifact
from export.graph import inlined
from export.passes.folder import REPORT
from export.passes.ship import to_artifact
from export.passes.variants import Slowdown, Variant, build_variant, cpu_slowdown

CALIBRATED = 256
Say = Callable[[Mapping[str, object]], None]


def leave_variant(
    folder: Path,
    variant: Variant,
    spec: TaskSpec,
    artifact: BuiltArtifact,
    *,
    calibration: F4,
    held: tuple[F4, Samples],
    slowdown: Slowdown = cpu_slowdown,
) -> str:
    """Build a variant of a candidate, and write it below the candidate's folder when it keeps its limits.

    A variant that fails costs the release nothing: devices take the plain artifact then.

    Args:
        folder: of the candidate's tier.
        variant: which.
        spec: the task.
        artifact: the plain one.
        calibration: (N, *shape) float32, samples of the task; the first 256 count.
        held: others, as the student takes them, and with their targets: what the judge judges on.
        slowdown: compares CPU times.

    Returns:
        Why it is not there; "" when it is.

    Raises:
        OSError: the disk refuses.
    """
    full, x = inlined(artifact.template, artifact.weights), calibration[:CALIBRATED]
    place = folder / variant
    place.mkdir(exist_ok=True)
    for old in place.iterdir():  # of a worker that was killed
        old.unlink()
    try:
        made, report = build_variant(variant, spec, full, calibration=x, held=held, slowdown=slowdown)
        write_file(place / REPORT, msgspec.json.format(msgspec.json.encode(report)))
        if made is None:
            return report.reason
        built = to_artifact(full, made, x[:8], artifact.parameters)
    except RoadcastError as error:
        return str(error)
    write_file(place / "template.onnx", built.template)
    write_file(place / "golden.safetensors", built.golden)
    write_file(place / "weights.safetensors", built.weights)
    return ""
