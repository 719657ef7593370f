"""The methods that are compared on sensors, each trained from the same start by the same number of local steps.

Owns the methods; owns neither data nor table. Methods that share their training form a family, which is trained once.
A device's steps: `rounds` times `steps` in all, of which `head` go to the personal head where there is one. A step of a
head costs about a fiftieth of one of the whole student; it counts as a whole one all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.learning.series import DeviceSeries, Windows, scores
from benchmarks.learning.stacked import Stack, answers
from broker_server.strategies.fedavg import FedAvg
from broker_server.strategies.trunk_sharing import Drift, TrunkSharing
from broker_server.strategies.weights import Array
from edge_models.fit import labelled
from edge_models.head_fits import FitSettings, MlpSettings, fit_mlp
from edge_models.head_weights import HeadWeights
from edge_models.samples import F4
from edge_models.students import Student, build_student
from edge_models.students.arrays import arrays_of, with_arrays
from edge_protocol.ids import DeviceId
from edge_protocol.task import Tier

TIER: Tier = "small"
"""The tier of the GRU."""
SETTLING = 0.5
"""Share of the shared weights' running mean over rounds that is kept: momentum overshoots, the mean does not."""
Scores = list[dict[str, list[float]]]
"""Of each device: errors by name, each over horizons."""


@dataclass(frozen=True)
class Budget:
    """What every method may spend.

    Attributes:
        rounds, steps: rounds, and local steps of a device in each.
        head: of all its steps, those of a personal head.
        central: steps of the one student that sees all devices' windows.
        batch, rate: windows a step, and AdamW's learning rate at its height.
    """

    rounds: int = 20
    steps: int = 75
    head: int = 300
    central: int = 6000
    batch: int = 128
    rate: float = 3e-3

    @property
    def total(self) -> int:
        """Local steps of a device."""
        return self.rounds * self.steps

    @property
    def trunk(self) -> int:
        """Local steps that are left beside a personal head."""
        return self.total - self.head


def plain(fleet: Sequence[DeviceSeries], seed: int, budget: Budget) -> dict[str, Scores]:
    """Nothing changes; everything is as usual at that time."""
    del seed, budget
    return {
        "persistence": [_scored(device, np.zeros_like(device.test.targets)) for device in fleet],
        "seasonal": [_scored(device, device.usual(device.test)) for device in fleet],
    }


def local(fleet: Sequence[DeviceSeries], seed: int, budget: Budget) -> dict[str, Scores]:
    """Each device its own student, no exchange."""
    return {"local GRU": [_of(device, student) for device, student in _alone(fleet, seed, budget, budget.total)]}


def local_personal(fleet: Sequence[DeviceSeries], seed: int, budget: Budget) -> dict[str, Scores]:
    """The ablation of sharing: the same personal head on a trunk that never met another device."""
    pairs = _alone(fleet, seed, budget, budget.trunk)
    return {"local + personal": [_Heads(device, student, seed, budget).personal() for device, student in pairs]}


def fedavg(fleet: Sequence[DeviceSeries], seed: int, budget: Budget) -> dict[str, Scores]:
    """One student, averaged by examples after every round (McMahan et al. 2017)."""
    student, stack = _start(fleet, seed, budget)
    parts = [device.history.part for device in fleet]
    state = arrays_of(student)
    for _ in range(budget.rounds):
        stack.load(state)
        stack.forget()
        stack.learn(parts, budget.steps, cycle=False)
        rule = FedAvg(state)
        for at, (sent, (x, _)) in enumerate(zip(stack.states(), parts, strict=True)):
            rule.add(DeviceId(f"d{at}"), sent, len(x))
        state = rule.result()
    return {"FedAvg GRU": [_of(device, with_arrays(student, state)) for device in fleet]}


def shared(fleet: Sequence[DeviceSeries], seed: int, budget: Budget) -> dict[str, Scores]:
    """Ours: clipped changes with momentum, then each device's own head, and its choice between the two."""
    student = shared_student(fleet, seed, budget)
    heads = [_Heads(device, student, seed, budget) for device in fleet]
    return {
        "shared": [_of(device, student) for device in fleet],
        "shared + personal": [head.personal() for head in heads],
        "chosen": [head.chosen() for head in heads],
    }


def shared_student(fleet: Sequence[DeviceSeries], seed: int, budget: Budget) -> Student:
    """What the rounds of trunk sharing end with; heads are averaged too, as the start of every personal one."""
    student, stack = _start(fleet, seed, budget)
    parts = [device.history.part for device in fleet]
    state, drift, settled = arrays_of(student), Drift(), arrays_of(student)
    for done in range(budget.rounds):
        stack.load(state)
        first, last = (budget.trunk * at // budget.rounds for at in (done, done + 1))
        stack.learn(parts, last - first, cycle=False)
        rule = TrunkSharing(state, drift)
        for at, sent in enumerate(stack.states()):
            rule.add(DeviceId(f"d{at}"), sent)
        state, drift = rule.result(), rule.drift()
        settled = {name: _towards(settled[name], value) for name, value in state.items()}
    return with_arrays(student, settled)


def central(fleet: Sequence[DeviceSeries], seed: int, budget: Budget) -> dict[str, Scores]:
    """The ceiling: one student that sees every device's windows, without and with personal heads."""
    student = build_student(fleet[0].task.spec, TIER, seed)
    stack = Stack(student, 1, seed=seed, rate=budget.rate, batch=budget.batch)
    parts = [device.history.part for device in fleet]
    stack.learn([(torch.cat([x for x, _ in parts]), torch.cat([y for _, y in parts]))], budget.central, cycle=True)
    (student,) = stack.averages()
    return {
        "central": [_of(device, student) for device in fleet],
        "central + personal": [_Heads(device, student, seed, budget).personal() for device in fleet],
    }


FAMILIES: Mapping[str, Callable[[Sequence[DeviceSeries], int, Budget], dict[str, Scores]]] = {
    family.__name__: family for family in (plain, local, local_personal, fedavg, shared, central)
}


class _Heads:
    """A device's personal head on a student, fitted on its history."""

    def __init__(self, device: DeviceSeries, student: Student, seed: int, budget: Budget) -> None:
        self._device, self._student = device, student
        settings = FitSettings(mlp=MlpSettings(steps=budget.head, batch=budget.batch, seed=seed))
        state, side = arrays_of(student), device.side(device.history)
        shared = HeadWeights(np.asarray(state["head.weight"], np.float32), np.asarray(state["head.bias"], np.float32))
        features, _ = answers(student, device.history.x)
        inputs, targets = labelled(np.hstack([features, side]), device.history.targets)
        self._head = fit_mlp(inputs, targets, shared.widened(side.shape[1]), settings)

    def personal(self) -> dict[str, list[float]]:
        return _scored(self._device, self._answers(self._device.test)[1])

    def chosen(self) -> dict[str, list[float]]:
        """The test scores of the head that was better on the rows kept back; a tie is the shared one's."""
        device = self._device
        errors = [
            float(np.nanmean(scores(device.choice, change, device.task.least)["mae"]))
            for change in self._answers(device.choice)
        ]
        return _scored(device, self._answers(device.test)[int(errors[1] < errors[0])])

    def _answers(self, windows: Windows) -> tuple[F4, F4]:
        """Changes (N, H) that the shared and the personal head forecast."""
        features, forecasts = answers(self._student, windows.x)
        personal = self._head.apply(features, self._device.side(windows))
        horizons = windows.targets.shape[1]
        return forecasts[:, :horizons], personal[:, :horizons]


def _start(fleet: Sequence[DeviceSeries], seed: int, budget: Budget) -> tuple[Student, Stack]:
    student = build_student(fleet[0].task.spec, TIER, seed)
    return student, Stack(student, len(fleet), seed=seed, rate=budget.rate, batch=budget.batch)


def _alone(fleet: Sequence[DeviceSeries], seed: int, budget: Budget, steps: int) -> list[tuple[DeviceSeries, Student]]:
    _, stack = _start(fleet, seed, budget)
    stack.learn([device.history.part for device in fleet], steps, cycle=True)
    return list(zip(fleet, stack.averages(), strict=True))


def _of(device: DeviceSeries, student: Student) -> dict[str, list[float]]:
    return _scored(device, answers(student, device.test.x)[1][:, : device.test.targets.shape[1]])


def _scored(device: DeviceSeries, change: F4) -> dict[str, list[float]]:
    return scores(device.test, change, device.task.least)


def _towards(mean: Array, value: Array) -> Array:
    return SETTLING * np.asarray(mean, np.float32) + (1 - SETTLING) * np.asarray(value, np.float32)
