"""Training students on what a teacher says, on small simulated samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from broker_server.distil_job import DistilSettings
from broker_server.distiller import (
    anchor_lesson,
    answer,
    distil,
    first_student,
    inputs_of,
    opinion_of_logits,
    score,
    teacher_lesson,
)
from broker_server.strategies.base import Opinion
from edge_models.losses import distillation_kl, forecast_kl
from edge_models.samples import Samples
from edge_models.students import build_student
from edge_models.tasks import load_task, plugin_of
from edge_protocol.task import TaskSpec

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")
SETTINGS = DistilSettings(first_epochs=8, epochs=8, seed=3)


def simulate(spec: TaskSpec, n: int, seed: int) -> Samples:
    """Draw labelled samples."""
    return plugin_of(spec).simulate(spec, np.random.default_rng(seed), n)


def quiet(epoch: int, epochs: int, loss: float) -> None:
    """Check progress without printing it."""
    assert 1 <= epoch <= epochs
    assert np.isfinite(loss)


def test_the_first_release_learns_from_anchors() -> None:
    """A student trained from scratch beats chance by far on samples it has not seen."""
    settings = DistilSettings(first_epochs=12, augment=False)
    student = first_student(VEHICLE, "nano", simulate(VEHICLE, 160, 0), settings, quiet)
    valid = simulate(VEHICLE, 100, 1)
    assert not student.training
    assert score(student, inputs_of(valid, VEHICLE), valid, VEHICLE)["accuracy"] > 0.5


def test_distillation_brings_a_classifier_nearer_to_the_teacher() -> None:
    """The divergence from a teacher who knows the truth falls, and the student it started from is unchanged."""
    proxies, anchors = simulate(VEHICLE, 128, 0), simulate(VEHICLE, 32, 1)
    truth = np.full((128, 6), 0.02, np.float32)
    truth[np.arange(128), proxies.targets] = 0.9
    x, student = inputs_of(proxies, VEHICLE), build_student(VEHICLE, "nano")
    before = {name: value.clone() for name, value in student.state_dict().items()}
    settings = DistilSettings(epochs=20, augment=False)
    candidate = distil(student, teacher_lesson(x, Opinion(truth), 1.0), anchors, VEHICLE, settings, quiet)
    divergence = [
        distillation_kl(torch.from_numpy(answer(model, x)[1]), torch.from_numpy(truth), 1.0)
        for model in (student, candidate)
    ]
    assert divergence[1] < 0.7 * divergence[0]
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize("tier", ["nano", "small", "base"])
def test_distillation_brings_a_forecaster_nearer_to_the_teacher(tier: str) -> None:
    """One teacher teaches every architecture of the task."""
    proxies, anchors = simulate(SPEED, 256, 0), simulate(SPEED, 64, 1)
    target = np.nan_to_num(proxies.targets).astype(np.float32)
    teacher = Opinion(target, np.full_like(target, 0.3))
    x, student = inputs_of(proxies, SPEED), build_student(SPEED, tier)
    candidate = distil(student, teacher_lesson(x, teacher, 1.0), anchors, SPEED, SETTINGS, quiet)
    divergence = [
        forecast_kl(torch.from_numpy(answer(model, x)[1]), torch.from_numpy(target), torch.full((256, 3), 0.3))
        for model in (student, candidate)
    ]
    assert divergence[1] < divergence[0]


def test_distillation_is_reproducible_by_seed() -> None:
    """The same seed gives the same weights bit for bit, another seed others."""
    proxies, anchors = simulate(SPEED, 64, 0), simulate(SPEED, 32, 1)
    x = inputs_of(proxies, SPEED)
    teacher = opinion_of_logits(answer(build_student(SPEED, "nano", 5), x)[1], SPEED)
    weights = [
        distil(
            build_student(SPEED, "nano"),
            teacher_lesson(x, teacher, 1.0),
            anchors,
            SPEED,
            DistilSettings(epochs=2, seed=seed),
            quiet,
        ).head.weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_batch_larger_than_the_set_is_no_error() -> None:
    """Three anchors and five proxies still make a lesson."""
    proxies, anchors = simulate(SPEED, 5, 0), simulate(SPEED, 3, 1)
    x = inputs_of(proxies, SPEED)
    student = build_student(SPEED, "nano")
    lesson = teacher_lesson(x, opinion_of_logits(answer(student, x)[1], SPEED), 1.0)
    assert distil(student, lesson, anchors, SPEED, DistilSettings(epochs=2), quiet).head.weight.isfinite().all()


@pytest.mark.parametrize(("most", "epochs"), [(400, 4), (12, 3), (2, 1)])
def test_steps_are_bounded(most: int, epochs: int) -> None:
    """A large set gets fewer passes, never more steps than allowed; 128 samples are four steps a pass."""
    seen: list[int] = []
    settings = DistilSettings(first_epochs=4, max_steps=most)
    first_student(SPEED, "nano", simulate(SPEED, 128, 0), settings, lambda epoch, *_: seen.append(epoch))
    assert seen == list(range(1, epochs + 1))


def test_anchor_lessons_leave_out_the_unlabelled() -> None:
    """Only labelled anchors are taught."""
    samples = simulate(VEHICLE, 10, 0)
    samples.targets[:4] = -1
    assert len(anchor_lesson(samples, VEHICLE).x) == 6


def test_answers_do_not_depend_on_the_batch() -> None:
    """More samples than one batch give the same answers as one at a time."""
    student, samples = build_student(SPEED, "small"), simulate(SPEED, 300, 0)
    x = inputs_of(samples, SPEED)
    features, logits = answer(student, x)
    assert features.shape == (300, 64)
    np.testing.assert_allclose(answer(student, x[280:281])[1], logits[280:281], atol=1e-5)


def test_opinions_of_logits() -> None:
    """Classes become probabilities that sum to 1, forecasts a mean and a spread above 0."""
    rng = np.random.default_rng(0)
    classes = opinion_of_logits(rng.normal(size=(4, 6)).astype(np.float32), VEHICLE)
    np.testing.assert_allclose(classes.value.sum(1), 1, rtol=1e-5)
    assert classes.spread is None
    forecast = opinion_of_logits(np.full((4, 6), -50, np.float32), SPEED)
    assert forecast.spread is not None
    assert (forecast.spread > 0).all()
