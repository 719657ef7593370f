"""The training of one student as it goes on from round to round: weights, their average, and the optimiser's memory.

Owns that state, its file form, and what one step is; owns no lesson and no teacher. A round that began with a fresh
optimiser and a new schedule would spend half its steps on recovering from that (ADR-0010). A step is a function of the
seed and of its number alone, so training that was cut short goes on bit for bit as if it had not been.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from copy import deepcopy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException

from edge_models.augment import augment
from edge_models.students import Student, build_student
from edge_protocol.errors import DistillationError, NotReadyError
from edge_protocol.task import ImageInput, TaskSpec, Tier

LOG = logging.getLogger(__name__)
MAX_GRADIENT = 5.0
WEIGHT_DECAY = 1e-2
ORDER, VARIATION = 0, 1
"""What a seed is drawn for: the order of a pass, the variations of a step."""
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclass(frozen=True, eq=False)
class Lesson:
    """Samples and what a student should answer on them.

    Attributes:
        x: (N, *shape) float32, as the student takes it.
        truth: whose rows belong to x's: labels (N,), targets (N, H), or a teacher's (N, …).
        loss: of logits and rows of `truth`.
        weight: of this lesson in the total loss.
        batch: samples in a step.
    """

    x: Tensor
    truth: Tensor
    loss: Loss
    weight: float
    batch: int

    def to(self, device: torch.device) -> Lesson:
        """The same lesson on a device."""
        return Lesson(self.x.to(device), self.truth.to(device), self.loss, self.weight, self.batch)

    def picks(self, seed: int, step: int) -> Tensor:
        """Which samples a step takes: each once before any twice, in an order that the seed fixes."""
        size = min(self.batch, len(self.x))
        steps = len(self.x) // size
        generator = torch.Generator().manual_seed(mixed(seed, ORDER, step // steps))
        at = step % steps * size
        return torch.randperm(len(self.x), generator=generator)[at : at + size]


class Training:
    """A student in training; `average` is the model that it stands for (Tarvainen & Valpola 2017).

    Args:
        student: where it begins; not changed.
        spec: the task.
        device: where it runs.
        fast: in bfloat16 where that is safe, by a compiled student where there is a compiler; None for where that pays,
            on a CUDA device. What is written down is float32 either way, and one kind goes on with what the other left.
    """

    def __init__(self, student: Student, spec: TaskSpec, device: torch.device, *, fast: bool | None = None) -> None:
        self.spec, self.device, self.step = spec, device, 0
        layout = torch.channels_last if isinstance(spec.input, ImageInput) else torch.contiguous_format
        self._layout = layout
        self.pupil = deepcopy(student).train().to(device)
        self.pupil.to(memory_format=layout)  # type: ignore[call-overload]  # torch's types lack this form
        self.average = deepcopy(student).eval().to(device)
        self.fast = device.type == "cuda" if fast is None else fast
        self._forward = torch.compile(self.pupil) if self.fast else self.pupil
        self._parameters = list(self.pupil.parameters())
        self._optimiser = torch.optim.AdamW(self._parameters, weight_decay=WEIGHT_DECAY, foreach=True)

    def learn(self, lessons: Sequence[Lesson], *, rate: float, ema: float, seed: int, vary: bool) -> float:
        """Take one step on a batch of every lesson; return the loss."""
        picks = [lesson.picks(seed, self.step).to(self.device) for lesson in lessons]
        x = torch.cat([lesson.x[pick] for lesson, pick in zip(lessons, picks, strict=True)])
        if vary:
            generator = torch.Generator(self.device).manual_seed(mixed(seed, VARIATION, self.step))
            x = augment(x, self.spec.input, generator)
        with self._precision():
            logits = self._logits(x.contiguous(memory_format=self._layout))
        parts = torch.split(logits.float(), [len(pick) for pick in picks])
        losses = [
            lesson.weight * lesson.loss(part, lesson.truth[pick])
            for lesson, pick, part in zip(lessons, picks, parts, strict=True)
        ]
        loss = torch.stack(losses).sum()
        self._descend(loss, rate)
        self.step += 1
        self._follow(min(ema, self.step / (self.step + 10)))
        return float(loss.item())

    def _logits(self, x: Tensor) -> Tensor:
        """The pupil's answers; compilation comes with the first ones, and a machine may have no compiler for it."""
        logits: Tensor
        try:
            _, logits = self._forward(x)
        except TorchDynamoException as error:
            reason = str(error).partition("\n")[0]
            LOG.warning("the student is not compiled, so it learns slower: %s (install gcc and g++)", reason)
            self._forward = self.pupil
            _, logits = self.pupil(x)
        return logits

    def _descend(self, loss: Tensor, rate: float) -> None:
        self._optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self._parameters, MAX_GRADIENT)
        for group in self._optimiser.param_groups:
            group["lr"] = rate
        self._optimiser.step()

    def _precision(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, torch.bfloat16) if self.fast else nullcontext()

    @torch.no_grad()
    def _follow(self, decay: float) -> None:
        """Move the average towards the pupil; early on by more, so that it forgets where it began."""
        for mean, value in zip(self.average.state_dict().values(), self.pupil.state_dict().values(), strict=True):
            mean.copy_(torch.lerp(value, mean, decay) if mean.is_floating_point() else value)

    def tensors(self) -> dict[str, Tensor]:
        """The whole state by name, on the CPU."""
        state = {f"pupil.{name}": value for name, value in self.pupil.state_dict().items()}
        state |= {f"average.{name}": value for name, value in self.average.state_dict().items()}
        for at, parameter in enumerate(self._parameters):
            state |= {f"adamw.{at}.{name}": value for name, value in self._optimiser.state[parameter].items()}
        state["step"] = torch.tensor(self.step)
        return {name: value.detach().cpu().contiguous().clone() for name, value in state.items()}

    @classmethod
    def restored(
        cls, tensors: dict[str, Tensor], spec: TaskSpec, tier: Tier, device: torch.device, *, fast: bool | None = None
    ) -> Training:
        """Take up a training that was written down with `tensors`; the rest as for a new one.

        Raises:
            DistillationError: the tensors are those of something else.
        """
        training = cls(build_student(spec, tier), spec, device, fast=fast)
        try:
            training.pupil.load_state_dict(_below(tensors, "pupil."))
            training.average.load_state_dict(_below(tensors, "average."))
            training.step = int(tensors["step"])
            for at, parameter in enumerate(training._parameters):
                memory = _below(tensors, f"adamw.{at}.")
                training._optimiser.state[parameter] = {
                    name: value if name == "step" else value.to(device) for name, value in memory.items()
                }
        except (KeyError, RuntimeError) as error:
            raise DistillationError(f"not a training state of {spec.students[tier]!r}: {error}") from error
        return training


def compute_device(name: str) -> torch.device:
    """The device that a setting names; ``auto`` is CUDA when there is one.

    Raises:
        NotReadyError: it names CUDA, and there is none.
    """
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise NotReadyError(
            f"distil.device is cuda, and PyTorch {torch.__version__} finds no CUDA device on {platform.node()}: set it "
            "to auto or cpu, or see to the GPU's driver and a PyTorch that is built for CUDA"
        )
    return torch.device(("cuda" if there else "cpu") if name == "auto" else name)


def mixed(*numbers: int) -> int:
    """One seed out of several numbers ≥ 0: other numbers, an unrelated seed."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
