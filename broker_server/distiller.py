"""Turns a teacher's opinion into students: training, answering and scoring; owns no file, no report and no process.

One teacher for all tiers. A step takes proxies under the teacher's opinion (T²-scaled KL, Hinton et al. 2015) and
anchors under their labels; the candidate is the exponential moving average of the weights (Tarvainen, Valpola 2017).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from broker_server.distil_job import DistilSettings, Scores
from broker_server.strategies.base import F4, Opinion
from devices.preprocess import Preprocess
from edge_models.augment import augment
from edge_models.losses import distillation_kl, forecast_kl, gaussian_nll, split_forecast
from edge_models.samples import Samples
from edge_models.students import Student, build_student
from edge_models.tasks import plugin_of
from edge_protocol.task import ImageInput, TaskSpec, Tier

ANSWER_BATCH = 256
MAX_GRADIENT = 5.0
Loss = Callable[[Tensor, Tensor], Tensor]
Progress = Callable[[int, int, float], None]
"""Called after each epoch with the epoch, the number of epochs, and the mean loss."""


@dataclass(frozen=True, eq=False)
class Lesson:
    """Samples and what a student should answer on them.

    Attributes:
        x: (N, *shape) float32, as the student takes it.
        truth: whose rows belong to x's: labels (N,), targets (N, H), or a teacher's (N, …).
        loss: of logits and rows of `truth`.
        weight: of this lesson in the total loss.
    """

    x: Tensor
    truth: Tensor
    loss: Loss
    weight: float = 1.0


def inputs_of(samples: Samples, spec: TaskSpec) -> Tensor:
    """Samples as the student takes them, (N, *shape) float32."""
    if isinstance(spec.input, ImageInput):
        return torch.from_numpy(Preprocess(spec.input).batch(samples.raw.astype(np.uint8, copy=False)))
    return torch.from_numpy(samples.raw.astype(np.float32))


def anchor_lesson(anchors: Samples, spec: TaskSpec, weight: float = 1.0) -> Lesson:
    """What the server's own labels teach."""
    known = anchors.take(np.flatnonzero(anchors.labelled))
    x = inputs_of(known, spec)
    if spec.kind == "forecast":
        return Lesson(x, torch.from_numpy(known.targets.astype(np.float32)), gaussian_nll, weight)
    return Lesson(x, torch.from_numpy(known.targets.astype(np.int64)), functional.cross_entropy, weight)


def teacher_lesson(x: Tensor, teacher: Opinion, temperature: float) -> Lesson:
    """What the teacher says about the proxies."""
    if teacher.spread is None:
        return Lesson(x, torch.from_numpy(teacher.value), lambda logits, p: distillation_kl(logits, p, temperature))
    said = torch.from_numpy(np.stack([teacher.value, teacher.spread], axis=1))
    return Lesson(x, said, lambda outputs, rows: forecast_kl(outputs, rows[:, 0], rows[:, 1]))


def first_student(
    spec: TaskSpec, tier: Tier, anchors: Samples, settings: DistilSettings, progress: Progress
) -> Student:
    """Train a tier's student from scratch on the anchors: the first release."""
    lesson = anchor_lesson(anchors, spec)
    student = build_student(spec, tier, settings.seed)
    return train(
        student, [lesson], spec, settings, settings.first_epochs, settings.first_learning_rate, progress=progress
    )


def distil(
    student: Student, teacher: Lesson, anchors: Samples, spec: TaskSpec, settings: DistilSettings, progress: Progress
) -> Student:
    """Teach the current student of a tier what the teacher says; return the candidate, leave the student as it is."""
    lessons = [teacher, anchor_lesson(anchors, spec, settings.anchor_weight)]
    return train(student, lessons, spec, settings, settings.epochs, settings.learning_rate, progress=progress)


def train(
    student: Student,
    lessons: Sequence[Lesson],
    spec: TaskSpec,
    settings: DistilSettings,
    epochs: int,
    learning_rate: float,
    *,
    progress: Progress,
) -> Student:
    """Train a copy of a student; an epoch is one pass over the first lesson, the others keep step.

    Returns:
        The moving average of the weights, in evaluation mode.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    pupil, average = deepcopy(student).train(), deepcopy(student)
    pupil.to(memory_format=_layout(spec))  # type: ignore[call-overload]  # torch's types lack this form
    steps = max(1, len(lessons[0].x) // settings.batch)
    epochs = max(1, min(epochs, settings.max_steps // steps))
    steps = min(steps, settings.max_steps)
    optimiser = torch.optim.AdamW(pupil.parameters(), lr=learning_rate, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, total_steps=epochs * steps, pct_start=0.2)
    sizes = [settings.batch, *(settings.batch // 2 for _ in lessons[1:])]
    streams = [_batches(lesson, size, generator) for lesson, size in zip(lessons, sizes, strict=True)]
    for epoch in range(epochs):
        total = 0.0
        for _ in range(steps):
            picks = [next(stream) for stream in streams]
            loss = _loss(pupil, lessons, picks, spec, generator if settings.augment else None)
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(pupil.parameters(), MAX_GRADIENT)
            optimiser.step()
            schedule.step()
            _follow(average, pupil, min(settings.ema, schedule.last_epoch / (schedule.last_epoch + 10)))
            total += loss.item()
        progress(epoch + 1, epochs, total / steps)
    return average.eval()


def _loss(
    pupil: Student, lessons: Sequence[Lesson], picks: Sequence[Tensor], spec: TaskSpec, vary: torch.Generator | None
) -> Tensor:
    """Answer the picked samples of all lessons in one batch; return the weighted sum of their losses."""
    x = torch.cat([lesson.x[pick] for lesson, pick in zip(lessons, picks, strict=True)])
    x = augment(x, spec.input, vary) if vary else x
    _, logits = pupil(x.contiguous(memory_format=_layout(spec)))
    parts = torch.split(logits, [len(pick) for pick in picks])
    losses = [
        lesson.weight * lesson.loss(part, lesson.truth[pick])
        for lesson, pick, part in zip(lessons, picks, parts, strict=True)
    ]
    return torch.stack(losses).sum()


def _layout(spec: TaskSpec) -> torch.memory_format:
    """Images lie channels last: a third less time on a CPU."""
    return torch.channels_last if isinstance(spec.input, ImageInput) else torch.contiguous_format


@torch.no_grad()
def _follow(average: Student, pupil: Student, decay: float) -> None:
    """Move the average towards the pupil; early on by more, so that it forgets where it began."""
    for mean, value in zip(average.state_dict().values(), pupil.state_dict().values(), strict=True):
        mean.copy_(torch.lerp(value, mean, decay) if mean.is_floating_point() else value)


def _batches(lesson: Lesson, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Endless indices in random order, each sample once before any twice."""
    size = min(size, len(lesson.x))
    while True:
        order = torch.randperm(len(lesson.x), generator=generator)
        yield from torch.split(order[: len(order) // size * size], size)


@torch.inference_mode()
def answer(student: Student, x: Tensor) -> tuple[F4, F4]:
    """Return features (N, K) and logits (N, outputs), float32, in evaluation mode."""
    student.eval()
    parts = [student(batch) for batch in torch.split(x, ANSWER_BATCH)]
    features, logits = (torch.cat(column).numpy() for column in zip(*parts, strict=True))
    return features, logits


def opinion_of_logits(logits: F4, spec: TaskSpec) -> Opinion:
    """What logits say: probabilities, or mean and spread."""
    tensor = torch.from_numpy(logits)
    if spec.kind == "classify":
        return Opinion(tensor.softmax(1).numpy())
    mean, log_spread = split_forecast(tensor)
    return Opinion(mean.numpy(), log_spread.exp().numpy())


def score(student: Student, x: Tensor, samples: Samples, spec: TaskSpec) -> Scores:
    """Scores on labelled samples, headline first."""
    return plugin_of(spec).score(spec, answer(student, x)[1], samples.targets, samples.scale)
