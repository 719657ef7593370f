"""Losses of devices and of the distiller, as functions of tensors; own no weights, no optimiser and no data."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

LOG_SPREAD_RANGE = (-5.0, 3.0)
"""Log-spreads are clamped to this range: no forecast claims to be sharper than 0.7 % of its sensor's spread."""


def distillation_kl(student_logits: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """T² · KL(teacher_T ‖ student_T), averaged over the batch (Hinton et al. 2015).

    T² keeps the gradient's size when T changes. The teacher's probabilities are softened by p^(1/T), normalised.

    Args:
        student_logits: (N, C).
        teacher: (N, C) probabilities.
        temperature: T > 0.
    """
    soft = functional.softmax(teacher.clamp_min(1e-6).log() / temperature, dim=1)
    student = functional.log_softmax(student_logits / temperature, dim=1)
    return functional.kl_div(student, soft, reduction="batchmean") * temperature**2


def gaussian_nll(outputs: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood of Gaussian forecasts, averaged over what was measured; 0 when nothing was.

    Args:
        outputs: (N, 2H): means, then log-spreads.
        targets: (N, H); NaN where nothing was measured.
    """
    mean, log_spread = split_forecast(outputs)
    measured = ~targets.isnan()
    error = torch.where(measured, targets, mean) - mean
    losses = 0.5 * (error * (-log_spread).exp()) ** 2 + log_spread
    return (losses * measured).sum() / measured.sum().clamp_min(1)


def forecast_kl(outputs: Tensor, teacher_mean: Tensor, teacher_spread: Tensor) -> Tensor:
    """KL(teacher ‖ student) of Gaussians, up to the teacher's own entropy, averaged: NLL distillation.

    Args:
        outputs: (N, 2H): the student's means, then log-spreads.
        teacher_mean: (N, H).
        teacher_spread: (N, H) > 0.
    """
    mean, log_spread = split_forecast(outputs)
    squares = (teacher_mean - mean) ** 2 + teacher_spread**2
    return (0.5 * squares * (-2 * log_spread).exp() + log_spread).mean()


def split_forecast(outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Cut (N, 2H) forecast outputs into means (N, H) and clamped log-spreads (N, H)."""
    mean, log_spread = outputs.chunk(2, dim=1)
    return mean, log_spread.clamp(*LOG_SPREAD_RANGE)
