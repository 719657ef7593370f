"""Trains a whole student on a device's own samples, as methods that share weights, features or public answers need it.

Owns the losses' sum, the freezing and the loop; owns no rule (see `broker_server.strategies`) and no sample store.
One loop serves them all: cross-entropy or Gaussian likelihood on own samples, and as the settings ask a pull towards a
centre's weights (FedProx, Li et al. 2020; Ditto, Li et al. 2021), towards prototypes (FedProto, Tan et al. 2022) and
towards soft labels on public samples (the digest phase of FedMD, Li and Wang 2019), with trunk or head frozen (FedRep,
Collins et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional

from edge_models.augment import augment
from edge_models.head_fits import Tick, no_tick
from edge_models.local_settings import LocalSettings
from edge_models.losses import distillation_kl, forecast_kl, gaussian_nll
from edge_models.prototypes import Prototypes
from edge_models.students import Student
from edge_protocol.errors import DataError
from edge_protocol.task import ImageInput, TaskSpec

F4 = npt.NDArray[np.float32]
MAX_GRADIENT = 5.0


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """What a teacher says about public samples.

    Attributes:
        x: (M, *shape) float32, as the student takes it.
        value: (M, C) float32 probabilities; or (M, H) float32 means, in units of the sample's own spread.
        spread: None for classes; (M, H) float32 standard deviations > 0.
    """

    x: Tensor
    value: F4
    spread: F4 | None = None


@dataclass(frozen=True, eq=False)
class _Lesson:
    """Samples, and the loss of features, logits and the rows that were picked."""

    x: Tensor
    loss: Callable[[Tensor, Tensor, Tensor], Tensor]


def train_locally(
    student: Student,
    x: Tensor,
    targets: npt.NDArray[np.generic],
    spec: TaskSpec,
    settings: LocalSettings,
    *,
    centre: Student | None = None,
    prototypes: Prototypes | None = None,
    public: SoftLabels | None = None,
    tick: Tick = no_tick,
) -> Student:
    """Train a copy of a student through one phase; the same arguments give the same weights on the same machine.

    Args:
        student: where training starts; stays as it is.
        x: (N, *shape) float32, the device's own samples as the student takes them; N may be 0.
        targets: (N,) int64, -1 unlabelled; or (N, H) float32, NaN missing. Samples without any are left out.
        spec: the task.
        settings: how.
        centre: whose weights the proximal term pulls to; the student's own when None, as in FedProx. Ditto trains the
            device's personal student with the shared one as the centre.
        prototypes: what features are pulled to; a class without a prototype is not pulled.
        public: soft labels to learn beside the own samples, or instead of them when N is 0.
        tick: called after every step.

    Returns:
        The trained copy in evaluation mode; an untrained one when there is nothing to learn from.

    Raises:
        DataError: lengths differ, inputs hold NaN or infinity, a label is none of the task's, or prototypes of a
            forecast are asked for.
    """
    lessons = [
        lesson
        for lesson in (_own(x, targets, spec, settings, prototypes), _public(public, settings))
        if lesson is not None
    ]
    pupil = deepcopy(student)
    if lessons:
        _train(pupil, lessons, student if centre is None else centre, spec, settings, tick)
    return pupil.requires_grad_(requires_grad=True).eval()


def _train(
    pupil: Student, lessons: Sequence[_Lesson], centre: Student, spec: TaskSpec, settings: LocalSettings, tick: Tick
) -> None:
    generator = torch.Generator().manual_seed(settings.seed)
    layout = torch.channels_last if isinstance(spec.input, ImageInput) else torch.contiguous_format
    pupil.to(memory_format=layout)  # type: ignore[call-overload]  # torch's types lack this form
    pulled = _thawed(pupil, centre, settings)
    weights = [weight for weight, _ in pulled]
    optimiser = torch.optim.AdamW(weights, lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True)
    steps = min(settings.max_steps, settings.epochs * _batches_of(lessons[0], settings.batch))
    streams = [_picks(lesson, settings.batch, generator) for lesson in lessons]
    for _ in range(steps):
        picks = [next(stream) for stream in streams]
        batch = torch.cat([lesson.x[pick] for lesson, pick in zip(lessons, picks, strict=True)])
        batch = augment(batch, spec.input, generator) if settings.augment else batch
        answers = pupil(batch.contiguous(memory_format=layout))
        parts = zip(*(torch.split(part, [len(pick) for pick in picks]) for part in answers), strict=True)
        losses = [
            lesson.loss(features, logits, pick)
            for lesson, (features, logits), pick in zip(lessons, parts, picks, strict=True)
        ]
        optimiser.zero_grad()
        torch.stack(losses).sum().backward()  # type: ignore[no-untyped-call]
        if settings.proximal:
            _pull(pulled, settings.proximal)
        torch.nn.utils.clip_grad_norm_(weights, MAX_GRADIENT, foreach=True)
        optimiser.step()
        tick()


def _own(
    x: Tensor, targets: npt.NDArray[np.generic], spec: TaskSpec, settings: LocalSettings, prototypes: Prototypes | None
) -> _Lesson | None:
    """What the device's own labels teach; None when there are none."""
    if len(x) != len(targets):
        raise DataError(f"{len(x)} samples came with {len(targets)} targets; both must belong together")
    if settings.prototype and spec.kind == "forecast":
        raise DataError(f"task {spec.name!r} forecasts, and prototypes are of classes; set prototype to 0")
    truth = torch.from_numpy(targets.astype(np.int64 if spec.kind == "classify" else np.float32))
    known = truth >= 0 if spec.kind == "classify" else ~truth.isnan().all(dim=1)
    x, truth = x[known], truth[known]
    if not len(x):
        return None
    if not x.isfinite().all():
        raise DataError("the device's own samples hold NaN or infinity; leave such samples out before training")
    if spec.kind == "forecast":
        return _Lesson(x, lambda _, logits, pick: gaussian_nll(logits, truth[pick]))
    if int(truth.max()) >= spec.outputs:
        raise DataError(f"label {int(truth.max())} is none of the {spec.outputs} classes of task {spec.name!r}")
    if prototypes is None or not settings.prototype:
        return _Lesson(x, lambda _, logits, pick: functional.cross_entropy(logits, truth[pick]))
    points, held = torch.from_numpy(prototypes.means), torch.from_numpy(prototypes.held.astype(np.float32))

    def loss(features: Tensor, logits: Tensor, pick: Tensor) -> Tensor:
        label = truth[pick]
        away = (features - points[label]).square().mean(dim=1) * held[label]
        return functional.cross_entropy(logits, label) + settings.prototype * away.mean()

    return _Lesson(x, loss)


def _public(public: SoftLabels | None, settings: LocalSettings) -> _Lesson | None:
    """What a teacher's answers teach; None when there are none."""
    if public is None or not len(public.x) or not settings.soft:
        return None
    if len(public.x) != len(public.value):
        raise DataError(f"{len(public.x)} public samples came with {len(public.value)} soft labels")
    value = torch.from_numpy(public.value)
    if public.spread is None:
        return _Lesson(
            public.x,
            lambda _, logits, pick: settings.soft * distillation_kl(logits, value[pick], settings.temperature),
        )
    spread = torch.from_numpy(public.spread)
    return _Lesson(public.x, lambda _, logits, pick: settings.soft * forecast_kl(logits, value[pick], spread[pick]))


def _thawed(pupil: Student, centre: Student, settings: LocalSettings) -> list[tuple[Tensor, Tensor]]:
    """Freeze what the settings say; return each weight left to train beside the centre's."""
    pupil.train().requires_grad_(requires_grad=True)
    if settings.frozen != "nothing":
        part = pupil.trunk if settings.frozen == "trunk" else pupil.head
        part.eval().requires_grad_(requires_grad=False)
    pairs = zip(pupil.parameters(), centre.parameters(), strict=True)
    return [(weight, anchor.detach().clone()) for weight, anchor in pairs if weight.requires_grad]


@torch.no_grad()
def _pull(pulled: Sequence[tuple[Tensor, Tensor]], strength: float) -> None:
    """Add the gradient of strength/2 · |weights - centre|², without a graph of its own."""
    for weight, anchor in pulled:
        assert weight.grad is not None
        weight.grad.add_(weight - anchor, alpha=strength)


def _batches_of(lesson: _Lesson, size: int) -> int:
    return max(1, round(len(lesson.x) / size))


def _picks(lesson: _Lesson, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless indices in random order, each sample once before any twice, in batches of nearly one size."""
    while True:
        order = torch.randperm(len(lesson.x), generator=generator)
        yield from torch.tensor_split(order, _batches_of(lesson, size))
