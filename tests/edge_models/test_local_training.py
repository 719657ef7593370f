"""Training whole students on a device's own samples."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from torch import Tensor

from edge_models.local_settings import LocalSettings
from edge_models.local_training import SoftLabels, train_locally
from edge_models.losses import gaussian_nll
from edge_models.prototypes import Prototypes
from edge_models.students import Student, build_student
from edge_models.students.arrays import arrays_of
from edge_models.tasks import load_task, plugin_of
from edge_protocol.errors import DataError
from edge_protocol.task import TaskSpec

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")
SETTINGS = LocalSettings(epochs=6, batch=16, augment=False)


def samples(spec: TaskSpec, n: int = 96, seed: int = 0) -> tuple[Tensor, np.ndarray]:
    """Simulated samples as a student takes them, and their targets."""
    drawn = plugin_of(spec).simulate(spec, np.random.default_rng(seed), n)
    raw = torch.from_numpy(drawn.raw.astype(np.float32))
    return (raw.permute(0, 3, 1, 2) / 255 - 0.5 if spec.kind == "classify" else raw), drawn.targets


def answers(student: Student, x: Tensor) -> tuple[Tensor, Tensor]:
    """Features and logits."""
    with torch.inference_mode():
        features, logits = student(x)
    return features, logits


def moved(one: Student, other: Student) -> float:
    """Distance between the weights of two students."""
    pairs = zip(one.parameters(), other.parameters(), strict=True)
    return float(sum(((a - b) ** 2).sum().item() for a, b in pairs) ** 0.5)


def changed(one: Student, other: Student) -> set[str]:
    """Names of what differs, batch statistics included."""
    after = arrays_of(other)
    return {name for name, value in arrays_of(one).items() if not np.array_equal(value, after[name])}


def test_a_classifier_learns_its_own_samples() -> None:
    """Most are right after a few passes; the student it started from is unchanged, and the copy is ready to serve."""
    x, targets = samples(VEHICLE)
    student = build_student(VEHICLE, "nano")
    before = arrays_of(student)
    trained = train_locally(student, x, targets, VEHICLE, msgspec.structs.replace(SETTINGS, epochs=20))
    assert (answers(trained, x)[1].argmax(1).numpy() == targets).mean() > 0.8
    assert not trained.training
    assert all(weight.requires_grad for weight in trained.parameters())
    np.testing.assert_equal(arrays_of(student), before)


def test_a_forecaster_learns_its_own_samples() -> None:
    """The likelihood rises, though some horizons were not measured."""
    x, targets = samples(SPEED)
    student = build_student(SPEED, "nano").eval()
    trained = train_locally(student, x, targets, SPEED, msgspec.structs.replace(SETTINGS, augment=True))
    truth = torch.from_numpy(targets)
    assert np.isnan(targets).any()
    assert gaussian_nll(answers(trained, x)[1], truth) < gaussian_nll(answers(student, x)[1], truth) - 0.1


def test_the_seed_decides() -> None:
    """The same seed gives the same weights bit for bit, variations included; another one does not."""
    x, targets = samples(VEHICLE, 32)
    student = build_student(VEHICLE, "nano")
    runs = [
        train_locally(student, x, targets, VEHICLE, LocalSettings(epochs=2, batch=16, seed=seed)) for seed in (1, 1, 2)
    ]
    assert changed(runs[0], runs[1]) == set()
    assert changed(runs[0], runs[2])


def test_unlabelled_samples_are_left_out() -> None:
    """Whatever an unlabelled sample holds, the trained weights are the same; with none labelled nothing is learnt."""
    x, targets = samples(VEHICLE, 32)
    student = build_student(VEHICLE, "nano")
    settings = msgspec.structs.replace(SETTINGS, epochs=1)
    more, sparse = torch.cat([x, torch.full_like(x[:5], torch.nan)]), np.append(targets, [-1] * 5)
    plain, mixed = (train_locally(student, *pair, VEHICLE, settings) for pair in ((x, targets), (more, sparse)))
    assert changed(plain, mixed) == set()
    assert changed(student, train_locally(student, x, np.full(32, -1), VEHICLE, settings)) == set()


def test_a_huge_mu_keeps_the_weights_near_the_start() -> None:
    """FedProx: a stronger pull moves less, and a huge one hardly at all."""
    x, targets = samples(VEHICLE)
    student = build_student(VEHICLE, "nano")
    far, near, nearest = (
        moved(
            student,
            train_locally(student, x, targets, VEHICLE, msgspec.structs.replace(SETTINGS, proximal=mu, weight_decay=0)),
        )
        for mu in (0.0, 1.0, 1e4)
    )
    assert near < 0.6 * far
    assert nearest < 0.3 * far


def test_ditto_pulls_a_personal_student_to_the_shared_one() -> None:
    """With another student as the centre, the personal one ends nearer to it than without."""
    x, targets = samples(VEHICLE)
    shared, personal = build_student(VEHICLE, "nano", seed=1), build_student(VEHICLE, "nano", seed=2)
    alone = train_locally(personal, x, targets, VEHICLE, SETTINGS)
    pulled = train_locally(
        personal, x, targets, VEHICLE, msgspec.structs.replace(SETTINGS, proximal=1.0), centre=shared
    )
    assert moved(pulled, shared) < moved(alone, shared)


@pytest.mark.parametrize("spec", [VEHICLE, SPEED])
def test_a_frozen_part_stays_as_it_is(spec: TaskSpec) -> None:
    """Nothing of it changes, its batch statistics included, and the other part learns."""
    x, targets = samples(spec, 48)
    student = build_student(spec, "nano")
    for frozen, other in (("trunk", "head."), ("head", "trunk.")):
        trained = train_locally(student, x, targets, spec, msgspec.structs.replace(SETTINGS, frozen=frozen))
        names = changed(student, trained)
        assert names
        assert all(name.startswith(other) for name in names)


def test_prototypes_draw_the_features_of_their_class() -> None:
    """With the pull, features of the classes that have a prototype lie nearer to it than without."""
    x, targets = samples(VEHICLE)
    means = np.random.default_rng(0).normal(0, 2, (6, 64)).astype(np.float32)
    away = []
    for pull in (0.0, 10.0):
        settings = msgspec.structs.replace(SETTINGS, prototype=pull)
        prototypes = Prototypes(means, np.array([1, 1, 1, 0, 0, 0], np.uint8))
        trained = train_locally(build_student(VEHICLE, "nano"), x, targets, VEHICLE, settings, prototypes=prototypes)
        away.append(((answers(trained, x)[0].numpy() - means[targets]) ** 2).mean(1)[targets < 3].mean())
    assert away[1] < 0.8 * away[0]


def test_a_class_without_a_prototype_is_not_pulled() -> None:
    """Prototypes of classes that the device has no sample of change nothing, wherever the others would lie."""
    x, targets = samples(VEHICLE, 48)
    few = targets % 3
    settings = msgspec.structs.replace(SETTINGS, prototype=10.0)
    others = Prototypes(np.full((6, 64), 9, np.float32), np.array([0, 0, 0, 1, 1, 1], np.uint8))
    student = build_student(VEHICLE, "nano")
    plain, pulled = (
        train_locally(student, x, few, VEHICLE, settings, prototypes=prototypes) for prototypes in (None, others)
    )
    assert moved(plain, pulled) < 1e-3 * moved(plain, student)


@pytest.mark.parametrize("own", [0, 32])
def test_soft_labels_are_learnt_with_and_without_own_samples(own: int) -> None:
    """FedMD's digest: the student comes to answer the public samples as the teacher does."""
    x, targets = samples(VEHICLE, 96)
    teacher = np.full((96, 6), 0.02, np.float32)
    teacher[np.arange(96), targets] = 0.9
    settings = msgspec.structs.replace(SETTINGS, epochs=60 if own else 20)
    student = build_student(VEHICLE, "nano")
    mine, labels = samples(VEHICLE, own or 1, seed=1)
    trained = train_locally(student, mine[:own], labels[:own], VEHICLE, settings, public=SoftLabels(x, teacher))
    assert (answers(trained, x)[1].argmax(1).numpy() == targets).mean() > 0.8


def test_soft_forecasts_are_learnt() -> None:
    """Mean and spread of a teacher of forecasts are learnt alike."""
    x, targets = samples(SPEED)
    mean = np.nan_to_num(targets).astype(np.float32)
    public = SoftLabels(x, mean, np.full_like(mean, 0.5))
    student = build_student(SPEED, "nano").eval()
    trained = train_locally(student, x[:0], targets[:0], SPEED, SETTINGS, public=public)
    errors = [np.abs(answers(model, x)[1][:, :3].numpy() - mean).mean() for model in (student, trained)]
    assert errors[1] < errors[0]


def test_steps_are_bounded() -> None:
    """One step of many is all that is taken, and it moves no weight by more than about the learning rate."""
    x, targets = samples(VEHICLE)
    student = build_student(VEHICLE, "nano")
    settings = msgspec.structs.replace(SETTINGS, epochs=50, max_steps=1, weight_decay=0)
    trained = train_locally(student, x, targets, VEHICLE, settings)
    pairs = zip(student.parameters(), trained.parameters(), strict=True)
    most = max((a - b).abs().max().item() for a, b in pairs)
    assert 0 < most < 1.01 * settings.learning_rate


def test_bad_input_is_refused() -> None:
    """Lengths, NaN, strange labels and prototypes of forecasts are errors that say what is wrong."""
    x, targets = samples(VEHICLE, 8)
    student = build_student(VEHICLE, "nano")
    with pytest.raises(DataError, match="belong together"):
        train_locally(student, x, targets[:-1], VEHICLE, SETTINGS)
    with pytest.raises(DataError, match="label 6"):
        train_locally(student, x, np.full(8, 6), VEHICLE, SETTINGS)
    with pytest.raises(DataError, match="NaN"):
        train_locally(student, x * torch.nan, targets, VEHICLE, SETTINGS)
    with pytest.raises(DataError, match="soft labels"):
        train_locally(student, x, targets, VEHICLE, SETTINGS, public=SoftLabels(x, np.full((7, 6), 1 / 6, np.float32)))
    windows, changes = samples(SPEED, 8)
    with pytest.raises(DataError, match="prototypes"):
        train_locally(
            build_student(SPEED, "nano"), windows, changes, SPEED, msgspec.structs.replace(SETTINGS, prototype=1.0)
        )
