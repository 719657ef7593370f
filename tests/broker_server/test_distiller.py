"""Training students on what a teacher says, on small simulated samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from broker_server.distil_job import DistilSettings
from broker_server.distiller import (
    anchor_lesson,
    answer,
    constant,
    cycled,
    inputs_of,
    opinion_of_logits,
    score,
    teacher_lesson,
    train,
)
from broker_server.strategies.base import Opinion
from broker_server.training import Lesson, Training
from edge_models.losses import distillation_kl, forecast_kl
from edge_models.samples import Samples
from edge_models.students import Student, build_student
from edge_models.tasks import load_task, plugin_of
from edge_protocol.task import TaskSpec

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")
CPU = torch.device("cpu")


def simulate(spec: TaskSpec, n: int, seed: int) -> Samples:
    """Draw labelled samples."""
    return plugin_of(spec).simulate(spec, np.random.default_rng(seed), n)


def taught(
    student: Student, lessons: list[Lesson], spec: TaskSpec, steps: int, *, seed: int = 0, augment: bool = False
) -> Student:
    """Take some steps at a constant pace; return the average."""
    training = Training(student, spec, CPU)
    settings = DistilSettings(seed=seed, augment=augment)
    train(training, lessons, settings, steps, constant(settings.learning_rate), progress=lambda *_: None)
    return training.average


def test_the_first_release_learns_from_anchors() -> None:
    """A student trained from scratch beats chance by far on samples it has not seen."""
    training = Training(build_student(VEHICLE, "nano"), VEHICLE, CPU)
    lesson = anchor_lesson(simulate(VEHICLE, 160, 0), VEHICLE, weight=1.0, batch=32)
    settings = DistilSettings(augment=False)
    train(training, [lesson], settings, 60, cycled(4e-3, 60), progress=lambda *_: None)
    valid = simulate(VEHICLE, 100, 1)
    assert not training.average.training
    assert score(training.average, inputs_of(valid, VEHICLE), valid, VEHICLE)["accuracy"] > 0.5


def test_distillation_brings_a_classifier_nearer_to_the_teacher() -> None:
    """The divergence from a teacher who knows the truth falls, and the student it started from is unchanged."""
    proxies, anchors = simulate(VEHICLE, 128, 0), simulate(VEHICLE, 32, 1)
    truth = np.full((128, 6), 0.02, np.float32)
    truth[np.arange(128), proxies.targets] = 0.9
    x, student = inputs_of(proxies, VEHICLE), build_student(VEHICLE, "nano")
    before = {name: value.clone() for name, value in student.state_dict().items()}
    lessons = [
        teacher_lesson(x, Opinion(truth), temperature=2.0, batch=32),
        anchor_lesson(anchors, VEHICLE, weight=0.5, batch=16),
    ]
    candidate = taught(student, lessons, VEHICLE, 80)
    divergence = [
        distillation_kl(torch.from_numpy(answer(model, x)[1]), torch.from_numpy(truth), 1.0)
        for model in (student, candidate)
    ]
    assert divergence[1] < 0.7 * divergence[0]
    assert all(torch.equal(value, before[name]) for name, value in student.state_dict().items())


@pytest.mark.parametrize("tier", ["nano", "small", "base"])
def test_distillation_brings_a_forecaster_nearer_to_the_teacher(tier: str) -> None:
    """One teacher teaches every architecture of the task."""
    proxies = simulate(SPEED, 256, 0)
    target = np.nan_to_num(proxies.targets).astype(np.float32)
    x, student = inputs_of(proxies, SPEED), build_student(SPEED, tier)
    lesson = teacher_lesson(x, Opinion(target, np.full_like(target, 0.3)), temperature=1.0, batch=32)
    candidate = taught(student, [lesson], SPEED, 60)
    divergence = [
        forecast_kl(torch.from_numpy(answer(model, x)[1]), torch.from_numpy(target), torch.full((256, 3), 0.3))
        for model in (student, candidate)
    ]
    assert divergence[1] < divergence[0]


def test_distillation_is_reproducible_by_seed() -> None:
    """The same seed gives the same weights bit for bit, another seed others."""
    x = inputs_of(simulate(SPEED, 64, 0), SPEED)
    teacher = opinion_of_logits(answer(build_student(SPEED, "nano", 5), x)[1], SPEED)
    lesson = teacher_lesson(x, teacher, temperature=1.0, batch=16)
    weights = [
        taught(build_student(SPEED, "nano"), [lesson], SPEED, 6, seed=seed, augment=True).head.weight
        for seed in (1, 1, 2)
    ]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_a_batch_larger_than_the_set_is_no_error() -> None:
    """Three anchors and five proxies still make a lesson."""
    x = inputs_of(simulate(SPEED, 5, 0), SPEED)
    student = build_student(SPEED, "nano")
    lessons = [
        teacher_lesson(x, opinion_of_logits(answer(student, x)[1], SPEED), temperature=1.0, batch=64),
        anchor_lesson(simulate(SPEED, 3, 1), SPEED, weight=1.0, batch=32),
    ]
    assert taught(student, lessons, SPEED, 3).head.weight.isfinite().all()


def test_progress_is_told_every_so_many_steps_and_at_the_end() -> None:
    """Ten steps, four of them behind already, told every fourth: after 8 and after 10."""
    lesson = anchor_lesson(simulate(SPEED, 40, 0), SPEED, weight=1.0, batch=8)
    told: list[int] = []
    settings = DistilSettings(checkpoint_steps=4)
    training = Training(build_student(SPEED, "nano"), SPEED, CPU)
    train(training, [lesson], settings, 10, constant(1e-3), done=4, progress=lambda at, _: told.append(at))
    assert (told, training.step) == ([8, 10], 6)


def test_a_cycle_peaks_at_the_rate_asked_for() -> None:
    """Over a hundred steps the pace peaks at the peak, and a single step is no error."""
    pace = cycled(4e-3, 100)
    assert max(pace(at) for at in range(100)) == pytest.approx(4e-3, rel=1e-3)
    assert 0 < cycled(4e-3, 1)(0) < 4e-3


def test_anchor_lessons_leave_out_the_unlabelled() -> None:
    """Only labelled anchors are taught."""
    samples = simulate(VEHICLE, 10, 0)
    samples.targets[:4] = -1
    assert len(anchor_lesson(samples, VEHICLE, weight=1.0, batch=8).x) == 6


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
