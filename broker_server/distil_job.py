"""The folder that a distillation starts from and ends in: plain files, no torch, so that both processes read it alike.

::

    job.json                 what to do
    reports/<device>.report  what each device said (the message's own MessagePack)
    candidate/<tier>/        state, training, weights, golden .safetensors, template.onnx; drift.safetensors of trunks
    checkpoint/<tier>.safetensors   where a killed worker goes on
    manifest.json            hashes of all this, and versions: see `round_manifest`
    result.json              what came of it          or  error.json  why nothing did
    ../templates/            graphs that every release of a student shares, traced once
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Literal, TypeVar

import msgspec
from msgspec import Meta

from edge_protocol.errors import DistillationError
from edge_protocol.ids import DeviceId, check_id
from edge_protocol.messages import FullReport, KnowledgeReport
from edge_protocol.task import Tier
from edge_protocol.trunks import Batch, Rate, Share, Steps, TrunkAsk

T = TypeVar("T")
VOTE_STRATEGIES = ("dsfl", "feddf", "feddistill", "fedmd", "mean", "self")
PROTOTYPE_STRATEGIES = ("fedproto", "fedtgp")
"""Rules that ask devices for class means, and for no answer on proxies."""
Scores = dict[str, float]


class DistilSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How reports become students; the ``distil`` section of the server's configuration.

    Attributes:
        strategy: rule that fuses reports into a teacher; see `broker_server.strategies`. A task may name its own.
        payload: form of the weights that devices fetch: INT8 steps, or twice the bytes in fp16.
        variants: built of each candidate beside the plain artifact, and released where they keep their limits.
        first_steps: of the optimiser, per student, on the anchors for the first release.
        steps: of the optimiser, per student, in a round.
        temperature: T of the distillation loss.
        learning_rate: of every round: training goes on from round to round, its pace does not start anew.
        first_learning_rate: peak of the one cycle that the first release is trained in.
        batch: proxies in a step; half as many anchors join them.
        anchor_weight: weight of the anchors' own loss beside the teacher's.
        trust_share: share of the anchors that is hidden among the proxies, and never trained on, to learn trust from.
        trust_drawn: share of those hidden anchors that count in a round; every round draws anew.
        shared_share: share of the teacher that the shared model always holds.
        device_cap: largest share of a class (or of a forecast) that one device can hold.
        half_life: rounds after which an old report counts half.
        ema: decay of the averaged weights that become the candidate, once training has run long enough for it.
        augment: whether samples are varied under the teacher's label.
        device: ``cpu``, ``cuda``, or ``auto``: a CUDA device when there is one.
        checkpoint_steps: steps between two checkpoints that a killed worker goes on from.
        seed: of everything random.
        threads: CPU threads of the worker.
    """

    strategy: str = "feddistill"
    payload: Literal["int8", "fp16"] = "int8"
    variants: tuple[Literal["int8-cpu", "int8-trt"], ...] = ()
    first_steps: Annotated[int, Meta(ge=1)] = 400
    steps: Annotated[int, Meta(ge=1)] = 150
    temperature: Annotated[float, Meta(gt=0)] = 1.0
    learning_rate: Annotated[float, Meta(gt=0)] = 2e-3
    first_learning_rate: Annotated[float, Meta(gt=0)] = 4e-3
    batch: Annotated[int, Meta(ge=2)] = 64
    anchor_weight: Annotated[float, Meta(ge=0)] = 0.5
    trust_share: Annotated[float, Meta(ge=0, lt=1)] = 1 / 3
    trust_drawn: Annotated[float, Meta(gt=0, le=1)] = 0.5
    shared_share: Annotated[float, Meta(ge=0, lt=1)] = 0.3
    device_cap: Annotated[float, Meta(gt=0, le=1)] = 0.5
    half_life: Annotated[float, Meta(gt=0)] = 2.0
    ema: Annotated[float, Meta(ge=0, lt=1)] = 0.995
    augment: bool = True
    device: Literal["auto", "cpu", "cuda"] = "auto"
    checkpoint_steps: Annotated[int, Meta(ge=1)] = 50
    seed: Annotated[int, Meta(ge=0)] = 0
    threads: Annotated[int, Meta(ge=1)] = 1

    @property
    def prototypes(self) -> bool:
        """Whether rounds ask for class means instead of votes on proxies."""
        return self.strategy in PROTOTYPE_STRATEGIES


class TrunkSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How devices share their trunks inside a tier; the ``rounds.trunk`` section of a task. Devices must allow it too.

    Attributes:
        steps, batch, learning_rate, norm: what devices are asked for, see `edge_protocol.trunks.TrunkAsk`.
        momentum: share of what earlier rounds agreed on that is kept.
        least: devices of a tier below which their changes do not count: a mean of one would be that device's own.
    """

    steps: Steps = 150
    batch: Batch = 128
    learning_rate: Rate = 3e-3
    norm: Share = 0.5
    momentum: Annotated[float, Meta(ge=0, lt=1)] = 0.0
    least: Annotated[int, Meta(ge=1)] = 2

    @property
    def ask(self) -> TrunkAsk:
        """The part that devices are told."""
        return TrunkAsk(self.steps, self.batch, self.learning_rate, self.norm)


class DistilJob(msgspec.Struct, frozen=True, kw_only=True):
    """One distillation.

    Attributes:
        task: name of the task, or path of its YAML file.
        round: number of the round; ages of reports are counted from it.
        release: counter of the current release, 0 when there is none.
        settings: how.
        anchors, proxies, validation: packs: labelled, unlabelled, labelled.
        proxy: hash of the proxy blob that reports must have answered; "" for the first release.
        salt: hex, secret: where the hidden anchors stand among the proxies.
        current: folder with ``<tier>.safetensors`` (and maybe ``<tier>.training.safetensors`` and
            ``<tier>.weights.safetensors``) of the current release; None to train on the anchors from scratch.
        base: tier → SHA-256 of the current release's weights payload.
        environment: versions of whoever wrote the job: checkpoints of other versions are not gone on from.
        reports: file names under ``reports/``; filled in by `write_job`.
        trunk: how devices' changes of their trunks are fused; None to leave them.
    """

    task: str
    round: int
    release: int
    settings: DistilSettings
    anchors: str
    proxies: str
    validation: str
    proxy: str = ""
    salt: str = ""
    current: str | None = None
    base: dict[str, str] = {}
    environment: dict[str, str] = {}
    reports: tuple[str, ...] = ()
    trunk: TrunkSettings | None = None


class Paired(msgspec.Struct, frozen=True, kw_only=True):
    """How the current and the candidate student answer the same samples of a cohort.

    Attributes:
        samples: how many.
        current, candidate: mean score of each: accuracy, or mean absolute error.
        loss: mean of how much worse the candidate is, sample by sample; below 0 when it is better.
        doubt: standard error of `loss`.
        spread: the larger standard error of the two scores, each by itself.
    """

    samples: int
    current: float
    candidate: float
    loss: float
    doubt: float
    spread: float = 0.0


class DistilResult(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a distillation; the files lie under ``candidate/``.

    Attributes:
        headline: score that decides, first in each of the score tables.
        higher_is_better: which way it should go.
        metrics: tier → ``current`` and ``candidate`` → scores on server validation; no ``current`` for a first release.
        teacher: ``reports``, how many it was made of, and ``share/<device>``, how much each device counted in it, 0 to
            1, where the strategy weighs devices.
        devices: device → why its report was refused.
        parameters: tier → number of weights.
        cohorts: tier → cohort → how it fares; empty for a first release.
        trunks: device → "" when its change of the trunk counts, else why not; without devices that sent none.
        validation: SHA-256 of the validation pack.
    """

    headline: str
    higher_is_better: bool
    metrics: dict[Tier, dict[str, Scores]]
    teacher: Scores
    devices: dict[str, str]
    parameters: dict[Tier, int]
    cohorts: dict[Tier, dict[str, Paired]] = {}
    trunks: dict[str, str] = {}
    validation: str = ""


def write_job(job_dir: Path, job: DistilJob, reports: Mapping[DeviceId, FullReport]) -> None:
    """Lay out a job; `job.json` comes last, so a folder with it is complete.

    Raises:
        DistillationError: the disk refused.
    """
    try:
        job_dir.mkdir(parents=True, exist_ok=True, mode=0o700)  # the salt is nobody else's
        (job_dir / "reports").mkdir(exist_ok=True)
        for name, data in _files(job, reports).items():
            (job_dir / name).write_bytes(data)
    except OSError as error:
        raise DistillationError(f"{job_dir}: cannot write the distillation job: {error}") from error


def votes_of(report: FullReport) -> FullReport:
    """A report without its change of the trunk: an old one is a change of an old release, and only its votes count."""
    return msgspec.structs.replace(report, trunk=None) if isinstance(report, KnowledgeReport) else report


def same_job(job_dir: Path, job: DistilJob, reports: Mapping[DeviceId, FullReport]) -> bool:
    """Whether a folder holds exactly this job, byte for byte, so that its checkpoints are of it."""
    try:
        return all((job_dir / name).read_bytes() == data for name, data in _files(job, reports).items())
    except OSError:
        return False


def _files(job: DistilJob, reports: Mapping[DeviceId, FullReport]) -> dict[str, bytes]:
    names = {check_id(device, "device"): f"{device}.report" for device in sorted(reports)}
    files = {f"reports/{name}": msgspec.msgpack.encode(reports[DeviceId(device)]) for device, name in names.items()}
    return files | {"job.json": msgspec.json.encode(msgspec.structs.replace(job, reports=tuple(names.values())))}


def read_job(job_dir: Path) -> DistilJob:
    """Read `job.json`.

    Raises:
        DistillationError: it is missing or broken.
    """
    return _read(job_dir / "job.json", DistilJob)


def read_result(job_dir: Path) -> DistilResult:
    """Read what the worker found.

    Raises:
        DistillationError: it failed (the message is the worker's own) or left nothing.
    """
    if (job_dir / "error.json").exists():
        failure = _read(job_dir / "error.json", Failure)
        raise DistillationError(f"{job_dir.name}: {failure.message} ({failure.kind})")
    return _read(job_dir / "result.json", DistilResult)


class Failure(msgspec.Struct, frozen=True):
    """`error.json`: the error's class and message."""

    kind: str
    message: str


def _read(path: Path, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except OSError as error:
        raise DistillationError(f"{path}: the distillation left no {path.name}: {error}") from error
    except msgspec.MsgspecError as error:
        raise DistillationError(f"{path}: not a {kind.__name__}: {error}") from error
