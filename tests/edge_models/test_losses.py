"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch

from edge_models.losses import (
    distillation_kl,
    forecast_kl,
    gaussian_nll,
)

NAN = math.nan


def test_distillation_kl_by_hand() -> None:
    """Two classes, T = 1: KL((0.8, 0.2) ‖ (0.5, 0.5)) in nats."""
    loss = distillation_kl(torch.zeros(1, 2), torch.tensor([[0.8, 0.2]]), 1.0)
    assert loss.item() == pytest.approx(0.8 * math.log(1.6) + 0.2 * math.log(0.4), rel=1e-5)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 8.0])
def test_distillation_kl_is_zero_only_at_the_teacher(temperature: float) -> None:
    """A student that says what the teacher says has no loss at any temperature; another has some."""
    teacher = torch.tensor([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]])
    assert distillation_kl(teacher.log(), teacher, temperature).item() == pytest.approx(0, abs=1e-6)
    assert distillation_kl(teacher.log().flip(1), teacher, temperature).item() > 0.01


def test_distillation_gradient_keeps_its_size_over_temperatures() -> None:
    """T² cancels the 1/T² that softening takes from the gradient, for small logits (Hinton et al. 2015, §2.1)."""
    norms = []
    for temperature in (4.0, 16.0):
        logits = torch.zeros(1, 3, requires_grad=True)
        teacher = torch.softmax(torch.tensor([[0.2, 0.0, -0.2]]), 1)
        distillation_kl(logits, teacher, temperature).backward()
        norms.append(logits.grad.norm().item())
    assert norms[0] == pytest.approx(norms[1], rel=0.02)


def test_distillation_takes_a_teacher_that_is_certain() -> None:
    """Probabilities of exactly 0 give a finite loss and gradient."""
    logits = torch.zeros(1, 3, requires_grad=True)
    distillation_kl(logits, torch.tensor([[1.0, 0.0, 0.0]]), 2.0).backward()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_gaussian_nll_by_hand_without_the_missing() -> None:
    """Error 2 at spread e, the other horizon missing: ½·4/e² + 1, and no gradient through what is missing."""
    outputs = torch.tensor([[1.0, 7.0, 1.0, 0.5]], requires_grad=True)
    loss = gaussian_nll(outputs, torch.tensor([[3.0, NAN]]))
    assert loss.item() == pytest.approx(2 / math.e**2 + 1, rel=1e-5)
    loss.backward()
    assert outputs.grad is not None
    assert outputs.grad.isfinite().all()
    assert outputs.grad[0, 1] == 0
    assert outputs.grad[0, 3] == 0


def test_gaussian_nll_of_nothing_is_zero() -> None:
    """A batch in which nothing was measured teaches nothing, and is no NaN."""
    outputs = torch.ones(2, 4, requires_grad=True)
    loss = gaussian_nll(outputs, torch.full((2, 2), NAN))
    loss.backward()
    assert loss.item() == 0
    assert outputs.grad is not None
    assert not outputs.grad.any()


def test_forecast_kl_is_least_at_the_teacher() -> None:
    """A student with the teacher's mean and spread is better than one with either of them changed."""
    mean, spread = torch.tensor([[0.5]]), torch.tensor([[0.4]])

    def loss(shift: float, factor: float) -> float:
        outputs = torch.tensor([[0.5 + shift, math.log(0.4 * factor)]])
        return forecast_kl(outputs, mean, spread).item()

    assert loss(0, 1) < min(loss(0.1, 1), loss(-0.1, 1), loss(0, 1.3), loss(0, 0.7))
