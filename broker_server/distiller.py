"""Turns a teacher's opinion into students: lessons, rounds of training, answering and scoring; owns no file.

One teacher for all tiers. A step takes proxies under the teacher's opinion (T²-scaled KL, Hinton et al. 2015) and
anchors under their labels; what a step is, and what lasts from round to round, is `training`'s.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from broker_server.distil_job import DistilSettings, Scores
from broker_server.strategies.base import F4, Fusion, Opinion
from broker_server.training import Lesson, Training
from devices.preprocess import Preprocess
from edge_models.losses import distillation_kl, forecast_kl, gaussian_nll, split_forecast
from edge_models.samples import Samples
from edge_models.schedules import one_cycle
from edge_models.students import Student
from edge_models.tasks import plugin_of
from edge_protocol.task import ImageInput, TaskSpec

ANSWER_BATCH = 256
Pace = Callable[[int], float]
"""Learning rate of a step, from its number within the round."""
Progress = Callable[[int, float], None]
"""Called with the steps taken within the round and the mean loss since the last call."""


def inputs_of(samples: Samples, spec: TaskSpec) -> Tensor:
    """Samples as the student takes them, (N, *shape) float32."""
    if isinstance(spec.input, ImageInput):
        return torch.from_numpy(Preprocess(spec.input).batch(samples.raw.astype(np.uint8, copy=False)))
    return torch.from_numpy(samples.raw.astype(np.float32))


def anchor_lesson(anchors: Samples, spec: TaskSpec, *, weight: float, batch: int) -> Lesson:
    """What the server's own labels teach."""
    known = anchors.take(np.flatnonzero(anchors.labelled))
    x = inputs_of(known, spec)
    if spec.kind == "forecast":
        return Lesson(x, torch.from_numpy(known.targets.astype(np.float32)), gaussian_nll, weight, batch)
    return Lesson(x, torch.from_numpy(known.targets.astype(np.int64)), functional.cross_entropy, weight, batch)


def teacher_lesson(x: Tensor, teacher: Opinion, *, temperature: float, batch: int) -> Lesson:
    """What the teacher says about the proxies."""
    if teacher.spread is None:
        truth = torch.from_numpy(teacher.value)
        return Lesson(x, truth, lambda logits, p: distillation_kl(logits, p, temperature), 1.0, batch)
    said = torch.from_numpy(np.stack([teacher.value, teacher.spread], axis=1))
    return Lesson(x, said, lambda outputs, rows: forecast_kl(outputs, rows[:, 0], rows[:, 1]), 1.0, batch)


def train(
    training: Training,
    lessons: Sequence[Lesson],
    settings: DistilSettings,
    steps: int,
    pace: Pace,
    *,
    done: int = 0,
    progress: Progress,
) -> None:
    """Take the steps of a round that are still to be taken.

    Args:
        training: is moved on.
        lessons: of each of which a step takes a batch.
        settings: how.
        steps: of the round.
        pace: learning rate.
        done: steps of this round that were taken before.
        progress: called every `checkpoint_steps` steps and at the end.
    """
    here = [lesson.to(training.device) for lesson in lessons]
    total, since = 0.0, 0
    for at in range(done, steps):
        total += training.learn(here, rate=pace(at), ema=settings.ema, seed=settings.seed, vary=settings.augment)
        since += 1
        if since == settings.checkpoint_steps or at + 1 == steps:
            progress(at + 1, total / since)
            total, since = 0.0, 0


def cycled(peak: float, steps: int) -> Pace:
    """One cycle over all steps of a training that begins from nothing."""
    return lambda at: peak * one_cycle(at / steps)


def constant(rate: float) -> Pace:
    """The same learning rate at every step."""
    return lambda _: rate


@torch.inference_mode()
def answer(student: Student, x: Tensor) -> tuple[F4, F4]:
    """Return features (N, K) and logits (N, outputs), float32, in evaluation mode."""
    student.eval()
    device = next(student.parameters()).device
    parts = [student(batch.to(device)) for batch in torch.split(x, ANSWER_BATCH)]
    features, logits = (torch.cat(column).cpu().numpy() for column in zip(*parts, strict=True))
    return features, logits


def opinion_of_logits(logits: F4, spec: TaskSpec) -> Opinion:
    """What logits say: probabilities, or mean and spread."""
    tensor = torch.from_numpy(logits)
    if spec.kind == "classify":
        return Opinion(tensor.softmax(1).numpy())
    mean, log_spread = split_forecast(tensor)
    return Opinion(mean.numpy(), log_spread.exp().numpy())


def shared_opinion(students: Iterable[Student], x: Tensor, spec: TaskSpec) -> Opinion:
    """What the shared model says: the mean over the students of all tiers."""
    fusion = Fusion()
    for student in students:
        fusion.add(opinion_of_logits(answer(student, x)[1], spec), 1.0)
    return fusion.result()


def score(student: Student, x: Tensor, samples: Samples, spec: TaskSpec) -> Scores:
    """Scores on labelled samples, headline first."""
    return plugin_of(spec).score(spec, answer(student, x)[1], samples.targets, samples.scale)
