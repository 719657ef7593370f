"""Trains one student per device, all at once: the same weights as one after the other, in a fifth of the time.

Owns weights, optimiser and the order of batches; owns no data and no rule. Every weight has a first axis of devices
(`torch.func.vmap`); AdamW is elementwise and gradients are clipped per device, so no device feels another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy

import torch
from torch import Tensor
from torch.func import functional_call, vmap

from broker_server.strategies.weights import Array
from edge_models.losses import gaussian_nll
from edge_models.samples import F4
from edge_models.schedules import one_cycle
from edge_models.students import Student
from edge_models.students.arrays import with_arrays

MAX_GRADIENT = 5.0
KEPT = 0.99
Part = tuple[Tensor, Tensor]
"""Windows (N, steps, 4) and targets (N, H), NaN missing, both float32."""


class Stack:
    """One student per device.

    Args:
        student: where all begin; not changed.
        devices: how many.
        seed: of the batches.
        rate: learning rate of AdamW at its height.
        batch: windows a step and device.
    """

    def __init__(self, student: Student, devices: int, *, seed: int, rate: float, batch: int) -> None:
        self._student, self._rate, self._batch = deepcopy(student).train(), rate, batch
        self._weights = {
            name: value.detach().expand(devices, *value.shape).clone().requires_grad_()
            for name, value in student.named_parameters()
        }
        self._mean = {name: value.detach().clone() for name, value in self._weights.items()}
        self._generator = torch.Generator().manual_seed(seed)
        self._steps = 0
        self.forget()

    def forget(self) -> None:
        """Start with a fresh optimiser, as a device does that keeps nothing between rounds."""
        self._optimiser = torch.optim.AdamW(self._weights.values(), lr=self._rate, weight_decay=1e-4)

    @torch.no_grad()
    def load(self, state: Mapping[str, Array]) -> None:
        """Give every device these weights; the optimiser's memory stays."""
        for name, value in state.items():
            self._weights[name].copy_(torch.as_tensor(value))

    def learn(self, parts: Sequence[Part], steps: int, *, cycle: bool) -> None:
        """Take steps on each device's own part, at a constant rate or over one cycle of it."""
        for step in range(steps):
            for group in self._optimiser.param_groups:
                group["lr"] = self._rate * (one_cycle(step / steps) if cycle else 1.0)
            picks = [torch.randint(len(x), (self._batch,), generator=self._generator) for x, _ in parts]
            x = torch.stack([x[pick] for (x, _), pick in zip(parts, picks, strict=True)])
            y = torch.stack([y[pick] for (_, y), pick in zip(parts, picks, strict=True)])
            self._descend(x, y)

    def _descend(self, x: Tensor, y: Tensor) -> None:
        self._optimiser.zero_grad()
        vmap(self._loss)(self._weights, x, y).sum().backward()  # type: ignore[no-untyped-call]
        gradients = [weight.grad for weight in self._weights.values() if weight.grad is not None]
        length = torch.stack([gradient.flatten(1).square().sum(1) for gradient in gradients]).sum(0).sqrt()
        kept = (MAX_GRADIENT / (length + 1e-6)).clamp(max=1.0)
        for gradient in gradients:
            gradient.mul_(kept.view(-1, *[1] * (gradient.dim() - 1)))
        self._optimiser.step()
        self._steps += 1
        share = 1 - min(KEPT, self._steps / (self._steps + 10))
        with torch.no_grad():
            for name, mean in self._mean.items():
                mean.lerp_(self._weights[name], share)

    def _loss(self, weights: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return gaussian_nll(functional_call(self._student, weights, (x,))[1], y)

    def states(self) -> list[dict[str, Array]]:
        """Each device's weights as they are."""
        return self._unstacked(self._weights)

    def averages(self) -> list[Student]:
        """Each device's student with the running mean of its weights (Polyak and Juditsky 1992)."""
        return [with_arrays(self._student, state) for state in self._unstacked(self._mean)]

    @staticmethod
    def _unstacked(stacked: Mapping[str, Tensor]) -> list[dict[str, Array]]:
        arrays = {name: value.detach().numpy() for name, value in stacked.items()}
        devices = len(next(iter(arrays.values())))
        return [{name: value[at].copy() for name, value in arrays.items()} for at in range(devices)]


@torch.inference_mode()
def answers(student: Student, x: Tensor) -> tuple[F4, F4]:
    """Features (N, 64) and forecasts (N, 2H), float32."""
    pairs = [student(block) for block in torch.split(x, 8192)]
    return torch.cat([features for features, _ in pairs]).numpy(), torch.cat([logits for _, logits in pairs]).numpy()
