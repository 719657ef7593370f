"""Students: six architectures with one signature, small enough for their tier, that learn what is simulated."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
import torch
from torch.nn import functional

from edge_models.samples import Samples
from edge_models.students import build_student
from edge_models.tasks import load_task, plugin_of
from edge_protocol.errors import ConfigError
from edge_protocol.task import FEATURES, TIERS, TaskSpec, Tier

torch.set_num_threads(1)
EVERY = [(name, tier) for name in ("vehicle", "speed", "clinic") for tier in TIERS]


def batch(spec: TaskSpec, samples: Samples) -> torch.Tensor:
    """Return samples as a student takes them."""
    if spec.kind == "forecast":
        return torch.from_numpy(samples.raw)
    return torch.from_numpy((samples.raw.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.25)


@pytest.mark.parametrize(("name", "tier"), EVERY)
def test_every_student_has_features_and_a_head(name: str, tier: Tier) -> None:
    """Features are 64 wide, logits are the head's answer to them, and each row is answered by itself."""
    spec = load_task(name)
    student = build_student(spec, tier).eval()
    x = torch.randn(3, *spec.input.shape)
    features, logits = student(x)
    assert features.shape == (3, FEATURES)
    assert logits.shape == (3, spec.outputs)
    assert torch.equal(student.head(features), logits)
    assert torch.allclose(student(x[1:2])[1], logits[1:2], atol=1e-5)


@pytest.mark.parametrize("name", ["vehicle", "speed"])
def test_students_are_small_and_really_different(name: str) -> None:
    """The tiers have three architectures between them, 15 to 150 thousand weights each."""
    spec = load_task(name)
    sizes = [sum(p.numel() for p in build_student(spec, tier).parameters()) for tier in TIERS]
    assert all(15_000 <= size <= 150_000 for size in sizes)
    assert len(set(spec.students.values())) == 3
    assert len({str(build_student(spec, tier).trunk) for tier in TIERS}) == 3


@pytest.mark.parametrize(("name", "tier"), EVERY[:6])
def test_every_student_learns(name: str, tier: Tier) -> None:
    """A hundred steps on simulated samples lower the loss on others by far more than noise."""
    spec = load_task(name)
    samples = plugin_of(spec).simulate(spec, np.random.default_rng(0), 384)
    x, targets = batch(spec, samples), torch.from_numpy(samples.targets)
    student = build_student(spec, tier)

    def loss(rows: slice) -> torch.Tensor:
        logits = student(x[rows])[1]
        if spec.kind == "classify":
            return functional.cross_entropy(logits, targets[rows])
        measured = torch.isfinite(targets[rows])
        return ((logits[:, :3] - targets[rows].nan_to_num()) ** 2)[measured].mean()

    before = loss(slice(320, None)).item()
    optimiser = torch.optim.Adam(student.parameters(), 2e-3)
    for step in range(100):
        optimiser.zero_grad()
        loss(slice(64 * (step % 5), 64 * (step % 5) + 64)).backward()
        optimiser.step()
    student.eval()
    assert loss(slice(320, None)).item() < 0.85 * before


def test_seeds_decide_the_weights_and_nothing_else() -> None:
    """One seed gives the same weights twice, another others, and the global generator is left alone."""
    spec = load_task("vehicle")
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = (build_student(spec, "nano", seed).head.weight for seed in (1, 1, 2))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_student_that_does_not_fit_is_named() -> None:
    """An unknown student, or a sensor's for a camera, is refused with those that fit."""
    spec = load_task("vehicle")
    for wrong in ("gru", "transformer"):
        task = msgspec.structs.replace(spec, students={**spec.students, "nano": wrong})
        with pytest.raises(ConfigError, match="depthwise, residual, mixer"):
            build_student(task, "nano")
