"""The process that distils: ``python -m broker_server.distil_worker JOB_DIR``.

Owns reading the job, the order of the steps, and the files it leaves (see `distil_job`); the learning is `distiller`'s.
Progress goes to standard output as one JSON object a line; exit code 0, or 1 with `error.json`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec
import torch
from torch import Tensor

from broker_server.bench import Bench, open_bench
from broker_server.candidate_files import (
    export_candidate,
    leave_candidate,
    released_payload,
    save_tensors,
    write_file,
)
from broker_server.candidate_variants import leave_variant
from broker_server.cohorts import Mask, cohorts_of, compare
from broker_server.distil_job import DistilResult, DistilSettings, Failure, Paired, Scores, read_job
from broker_server.distiller import (
    anchor_lesson,
    answer,
    inputs_of,
    teacher_lesson,
)
from broker_server.hearing import Hearing, hear
from broker_server.round_manifest import MANIFEST, describe, encoded, input_hashes
from broker_server.strategies import Strategy
from broker_server.strategies.base import F4
from broker_server.tier_training import Say, share_trunks, teach
from broker_server.training import Lesson, compute_device
from broker_server.trunks import save_drift
from devices.packs import open_pack
from edge_models.students import Student
from edge_models.tasks import plugin_of
from edge_protocol.errors import RoadcastError
from edge_protocol.task import TIERS, Tier
from export import BuiltArtifact
from export.payload import served

EXPORT_BATCH = 8


def run_job(job_dir: Path, say: Say) -> DistilResult:
    """Carry out a job and write its files; the manifest and `result.json` come last.

    Raises:
        RoadcastError: it cannot be done; nothing but candidate files is left behind.
    """
    (job_dir / "error.json").unlink(missing_ok=True)
    bench = open_bench(job_dir)
    inputs, device = input_hashes(job_dir, bench.job), _machine(bench.job.settings.device)
    x, valid = inputs_of(bench.asked.samples, bench.spec), inputs_of(bench.validation, bench.spec)
    hearing = hear(bench, x) if bench.current else Hearing(None, {}, {})
    strategy = hearing.strategy
    lessons = _lessons(bench, strategy, x)
    fused, told = share_trunks(bench, hearing.trunks, say)
    plugin, masks = plugin_of(bench.spec), _cohorts(bench)
    metrics: dict[Tier, dict[str, Scores]] = {}
    cohorts: dict[Tier, dict[str, Paired]] = {}
    parameters: dict[Tier, int] = {}
    for tier in TIERS:
        training = teach(tier, bench, lessons, say, fused.get(tier))
        candidate = training.average.cpu()
        base = released_payload(bench.job.current, tier)
        artifact = _leave(tier, bench, candidate, base, (x.numpy(), valid.numpy()), say)
        if strategy is not None:
            save_tensors(job_dir / "candidate" / tier / "training.safetensors", training.tensors())
        if tier in fused:
            write_file(job_dir / "candidate" / tier / "drift.safetensors", save_drift(fused[tier].drift))
        parameters[tier] = artifact.parameters
        both = {"current": (bench.current.get(tier), base), "candidate": (candidate, artifact.weights)}
        said = {which: answer(served(one, payload), valid)[1] for which, (one, payload) in both.items() if one}
        truth, scale = bench.validation.targets, bench.validation.scale
        metrics[tier] = {which: plugin.score(bench.spec, logits, truth, scale) for which, logits in said.items()}
        if bench.current:
            cohorts[tier] = compare(said["current"], said["candidate"], bench.validation, bench.spec, masks)
        say({"stage": "scored", "tier": tier, **metrics[tier]})
    result = DistilResult(
        headline=plugin.headline,
        higher_is_better=plugin.higher_is_better,
        metrics=metrics,
        teacher=_teacher_facts(strategy),
        devices=dict(hearing.refused),
        parameters=parameters,
        cohorts=cohorts,
        trunks=told,
        validation=inputs[bench.job.validation],
    )
    manifest = describe(job_dir, bench.job, result, inputs=inputs, heard=hearing.rounds, device=device)
    write_file(job_dir / MANIFEST, encoded(manifest))
    write_file(job_dir / "result.json", msgspec.json.encode(result))
    return result


def _leave(tier: Tier, bench: Bench, candidate: Student, base: bytes, inputs: tuple[F4, F4], say: Say) -> BuiltArtifact:
    """Write a tier's candidate: artifact, student, and the variants that keep their limits.

    Args:
        tier: which.
        bench: of the job.
        candidate: the student.
        base: payload of the current release.
        inputs: of the proxies and of the validation samples, as students take them.
        say: is told which variants are missing, and why.
    """
    asked, valid = inputs
    plan, spec, folder = bench.job.settings, bench.spec, bench.folder / "candidate" / tier
    artifact = export_candidate(
        bench.folder.parent / "templates", candidate, spec, tier, asked[:EXPORT_BATCH], form=plan.payload, base=base
    )
    leave_candidate(folder, candidate, artifact)
    for variant in plan.variants:
        held = valid, bench.validation
        missing = leave_variant(folder, variant, spec, artifact, calibration=asked, held=held)
        say({"stage": "variant", "tier": tier, "variant": variant, "missing": missing})
    return artifact


def _cohorts(bench: Bench) -> dict[str, Mask]:
    """Cohorts of the validation samples, which are compared when there is something to beat."""
    return cohorts_of(bench.validation, bench.spec, open_pack(Path(bench.job.validation))) if bench.current else {}


def _teacher_facts(strategy: Strategy | None) -> Scores:
    """How many reports the teacher was made of, and what share each device got."""
    if strategy is None:
        return {"reports": 0.0}
    return {"reports": float(len(strategy))} | {f"share/{device}": share for device, share in strategy.trust().items()}


def _lessons(bench: Bench, strategy: Strategy | None, x: Tensor) -> list[Lesson]:
    """What every tier is taught: the teacher's opinion beside the anchors; the anchors alone for the first release."""
    plan, asked = bench.job.settings, bench.asked
    if strategy is None:
        return [anchor_lesson(asked.anchors, bench.spec, weight=1.0, batch=plan.batch)]
    rows = torch.from_numpy(asked.proxies)
    teacher = strategy.teacher().take(asked.proxies)
    return [
        teacher_lesson(x[rows], teacher, temperature=plan.temperature, batch=plan.batch),
        anchor_lesson(asked.anchors, bench.spec, weight=plan.anchor_weight, batch=max(1, plan.batch // 2)),
    ]


def _machine(name: str) -> str:
    """What the training runs on, as the manifest names it."""
    device = compute_device(name)
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def _deterministic(settings: DistilSettings) -> None:
    """Have torch do the same sums in the same order every time; what it cannot do so is an error, on CUDA a warning."""
    torch.set_num_threads(settings.threads)
    fast = compute_device(settings.device).type == "cuda"
    torch.use_deterministic_algorithms(mode=True, warn_only=fast)


def _print(event: Mapping[str, object]) -> None:
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def main(arguments: list[str], say: Say = _print) -> int:
    """Run the job in the folder named by the only argument; return the exit code."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m broker_server.distil_worker JOB_DIR\n")
        return 2
    job_dir = Path(arguments[0])
    try:
        _deterministic(read_job(job_dir).settings)
        run_job(job_dir, say)
    except (RoadcastError, OSError, MemoryError, RuntimeError) as error:
        failure = Failure(type(error).__name__, str(error))
        say({"stage": "failed", "kind": failure.kind, "message": failure.message})
        if job_dir.is_dir():
            write_file(job_dir / "error.json", msgspec.json.encode(failure))
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
