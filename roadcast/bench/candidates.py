"""The ways to serve a task on this machine, each measured in a process of its own; owns no budget and no choice."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from devices.latency.fit import Candidate
from devices.latency.result import Result, read_result
from edge_protocol.errors import NotReadyError
from edge_protocol.manifest import VARIANTS
from edge_protocol.task import TIERS, TaskSpec, Tier
from export.folder import WEIGHTS, write_artifact

SPARE_S = 600.0
"""Beside the time that is measured: a plan of TensorRT takes minutes to build."""
Say = Callable[[str], None]


def measured(
    spec: TaskSpec, models: Path, *, seconds: float, threads: int, say: Say, work: Path
) -> list[Result | Candidate]:
    """Measure every student, precision and runner that a folder and this machine have.

    Args:
        spec: the task.
        models: a folder per tier, as ``roadcast release push`` takes it.
        seconds: measured at least, of each.
        threads: that one inference may use.
        say: is told what is measured.
        work: a folder for results.

    Returns:
        A result, or the rejected candidate that could not be measured, of each.

    Raises:
        NotReadyError: the folder holds none.
    """
    found: list[Result | Candidate] = []
    for tier, precision, runner, place in _ways(models):
        say(f"measuring {tier} {precision} on {runner}")
        out = work / f"{tier}-{precision}-{runner}.json"
        run = ["bench", "run", place, "--runner", runner, "--threads", threads, "--power", "--json", out]
        plan = ["--seconds", seconds, "--warm-up", min(seconds, 2.0)]
        failed = _run([str(part) for part in (*run, *plan)], seconds)
        if failed:
            student, reason = spec.students[tier], f"cannot be measured: {failed}"
            found.append(Candidate(tier=tier, student=student, precision=precision, runner=runner, rejected=(reason,)))
        else:
            found.append(read_result(out))
    if not found:
        raise NotReadyError(f"{models}: no folder of a tier ({', '.join(TIERS)}) that 'roadcast export build' wrote")
    return found


def export_here(spec: TaskSpec, folder: Path, say: Say) -> None:
    """Export every tier's student with fresh weights, plain and in INT8 for CPUs: their speed does not depend on them.

    Raises:
        NotReadyError: torch is not here.
    """
    if find_spec("torch") is None:
        raise NotReadyError(
            "torch, which exports students, is not here: give exported ones with --models, or --results"
        )
    from edge_models.students import build_student
    from export import build_artifact
    from export.passes.folder import write_variant
    from export.passes.gates import Limits
    from roadcast.data.samples import samples_for

    calibration, held = samples_for(spec, None)
    anything = Limits(sqnr_db=-np.inf, agreement=0.0, loss=np.inf)
    for tier in TIERS:
        say(f"exporting {tier}: {spec.students[tier]}")
        artifact = build_artifact(spec, tier, build_student(spec, tier), calibration[:4])
        write_artifact(folder / tier, artifact, spec, tier)
        write_variant(folder / tier, "int8-cpu", calibration=calibration, held=held, limits=anything, slowdown=None)


def _ways(models: Path) -> Iterator[tuple[Tier, str, str, Path]]:
    """Tier, precision, runner and folder; INT8 for a runtime is measured on that one alone."""
    runners = ["ort", *(["trt"] if find_spec("tensorrt") else [])]
    for tier in TIERS:
        for variant in ("", *VARIANTS):
            place = models / tier / variant
            if (place / WEIGHTS).is_file():
                only = {"": runners, "int8-cpu": ["ort"], "int8-trt": ["trt"]}[variant]
                yield from ((tier, variant or "fp32", runner, place) for runner in only if runner in runners)


def _run(arguments: list[str], seconds: float) -> str:
    """Run a command of this program; return why it failed, "" when it did not."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "roadcast", *arguments],
            capture_output=True,
            check=False,
            text=True,
            timeout=SPARE_S + 10 * seconds,
        )
    except subprocess.TimeoutExpired as error:
        return f"took more than {error.timeout:.0f} s"
    lines = done.stderr.strip().splitlines()
    return (lines[-1][:300] if lines else f"ended with code {done.returncode}") if done.returncode else ""
