"""Who is heard in a distillation: the strategy of the job, and its reports, each taken or refused with a reason.

Owns which reports a strategy takes; owns no rule. A strategy that asks for class means needs the feature spaces that
they are of: those of the trunks that the devices run, down to the last rounded weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
from torch import Tensor

from broker_server.bench import Bench
from broker_server.candidate_files import released_payload
from broker_server.distil_job import DistilJob
from broker_server.distiller import answer, inputs_of, shared_opinion
from broker_server.strategies import PROTOTYPE_RULES, HiddenAnchors, Strategy, make_strategy
from broker_server.strategies.prototype_teacher import PrototypeTeacher, Space
from edge_models.prototypes import class_prototypes
from edge_protocol.errors import RemoteProtocolError
from edge_protocol.ids import DeviceId
from edge_protocol.messages import FullReport, KnowledgeReport, PrototypeReport
from edge_protocol.task import TaskSpec, Tier
from edge_protocol.trunks import TrunkChange
from export.payload import served


@dataclass(frozen=True, eq=False)
class Hearing:
    """Who was heard: the strategy that took the reports, the round of each, why others were refused; fresh trunks."""

    strategy: Strategy | None
    rounds: Mapping[str, int]
    refused: Mapping[str, str]
    trunks: Mapping[DeviceId, TrunkChange] = field(default_factory=dict)


def hear(bench: Bench, x: Tensor) -> Hearing:
    """Hear the shared model and every device.

    Args:
        bench: of a job that begins at a release.
        x: (N, *shape) float32, the samples asked as students take them.
    """
    job, asked, spec = bench.job, bench.asked, bench.spec
    shared = shared_opinion(bench.current.values(), x, spec)
    hidden = HiddenAnchors(asked.hidden, asked.samples.targets[asked.hidden]) if len(asked.hidden) else None
    if job.settings.prototypes:
        kind, spaces = PROTOTYPE_RULES[job.settings.strategy], feature_spaces(bench, x)
        strategy: Strategy = PrototypeTeacher(kind, spec, job.release, spaces, shared, job.settings, hidden)
    else:
        strategy = make_strategy(job.settings, shared, hidden)
    rounds: dict[str, int] = {}
    refused: dict[str, str] = {}
    trunks: dict[DeviceId, TrunkChange] = {}
    for name in job.reports:
        device = DeviceId(Path(name).stem)
        try:
            report = msgspec.msgpack.decode((bench.folder / "reports" / name).read_bytes(), type=FullReport)
            _take(strategy, device, report, job, spec, len(asked.samples))
        except (RemoteProtocolError, msgspec.MsgspecError) as error:
            refused[str(device)] = str(error)
        else:
            rounds[device] = report.round
            if isinstance(report, KnowledgeReport) and report.trunk is not None and report.round == job.round:
                trunks[device] = report.trunk
    return Hearing(strategy, rounds, refused, trunks)


def _take(
    strategy: Strategy, device: DeviceId, report: FullReport, job: DistilJob, spec: TaskSpec, samples: int
) -> None:
    """Give a report to the strategy, when it still answers the job; what cannot have changed was checked as it came."""
    age = job.round - report.round
    if report.label_space != spec.label_space:
        raise RemoteProtocolError("wrong-label-space", f"labels are of {report.label_space}, not {spec.label_space}")
    if isinstance(strategy, PrototypeTeacher) and isinstance(report, PrototypeReport):
        strategy.hear(device, report, age)
    elif isinstance(strategy, PrototypeTeacher) or isinstance(report, PrototypeReport):
        raise RemoteProtocolError("wrong-kind", f"a {type(report).__name__} is none of {job.settings.strategy}'s")
    elif (report.proxy, report.votes.samples) != (job.proxy, samples):
        told = f"{report.votes.samples} samples of proxy set {report.proxy[:12]}"
        raise RemoteProtocolError("wrong-proxy", f"report answers {told}, not {samples} of {job.proxy[:12]}")
    else:
        strategy.add(device, report.votes, age)


def feature_spaces(bench: Bench, x: Tensor) -> dict[Tier, Space]:
    """What the trunks that devices run make of the server's samples; without tiers whose running weights are not here.

    Args: as for `hear`.
    """
    job, spec = bench.job, bench.spec
    known = bench.asked.anchors.take(np.flatnonzero(bench.asked.anchors.labelled))
    labels, anchors, spaces = known.targets.astype(np.int64), inputs_of(known, spec), {}
    for tier, student in bench.current.items():
        payload = released_payload(job.current, tier)
        if sha256(payload).hexdigest() != job.base.get(tier):
            continue
        model = served(student, payload)
        own = class_prototypes(answer(model, anchors)[0], labels, spec.outputs, k=1)
        spaces[tier] = Space(answer(model, x)[0], own)
    return spaces
