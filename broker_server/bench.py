"""What every step of a distillation works with: the task, its samples, the current students; owns reading them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from broker_server.candidate_files import load_student
from broker_server.distil_job import DistilJob, read_job
from broker_server.proxy_set import Asked, build, drawn, load_samples, mingle
from edge_models.samples import Samples
from edge_models.students import Student
from edge_models.tasks import load_task
from edge_protocol.errors import DistillationError
from edge_protocol.task import TIERS, TaskSpec, Tier


@dataclass(frozen=True, eq=False)
class Bench:
    """What every step of a job needs: the task, its samples, and the students that are current (none at first)."""

    job: DistilJob
    folder: Path
    spec: TaskSpec
    asked: Asked
    validation: Samples
    current: Mapping[Tier, Student]


def open_bench(folder: Path) -> Bench:
    """Load what the job in a folder names.

    Raises:
        RoadcastError: a pack, the task or a current student cannot be read.
    """
    job = read_job(folder)
    spec = load_task(job.task)
    anchors, validation = (load_samples(path, spec, labelled=True) for path in (job.anchors, job.validation))
    proxies = load_samples(job.proxies, spec)
    plan, salt = job.settings, bytes.fromhex(job.salt)
    asked = mingle(proxies, anchors, share=plan.trust_share, salt=salt)
    if job.proxy and sha256(build(asked.samples)).hexdigest() != job.proxy:
        raise DistillationError(
            f"{job.proxies} or {job.anchors}: changed since round {job.round} was called; restore it, or restart the "
            "server, whose next round asks about what is there now"
        )
    current = (
        {tier: load_student(Path(job.current) / f"{tier}.safetensors", spec, tier) for tier in TIERS}
        if job.current
        else {}
    )
    asked = drawn(asked, share=plan.trust_drawn, salt=salt, number=job.round)
    return Bench(job, folder, spec, asked, validation.take(validation.labelled), current)
