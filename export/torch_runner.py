"""PyTorch as a runner: the reference that exported students are held against; no device serves with it.

It answers from the same weights payload as ONNX Runtime and TensorRT, on the CPU. Eager, a student is run operator by
operator, as it was trained; compiled, its first answer, and the first to a second size of batch, take seconds to
minutes and a C++ compiler.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from devices.closing import Closing
from devices.runners.base import F4, Answer
from devices.runners.payload import read_payload
from edge_models.students import Student
from edge_protocol.errors import IncompatibleError, NotReadyError
from edge_protocol.task import TaskSpec, Tier
from export.released import released_student


class TorchRunner(Closing):
    """A student in PyTorch, which answers a zero sample before it is given out.

    Args:
        student: in evaluation mode; owned from now on.
        shape: of one sample.
        threads: that one inference may use, and all of this process's PyTorch until it is closed.
        compiled: with `torch.compile`.

    Raises:
        NotReadyError: it cannot be compiled here.
    """

    def __init__(self, student: Student, shape: tuple[int, ...], *, threads: int = 1, compiled: bool = False) -> None:
        self._model: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = (
            torch.compile(student) if compiled else student
        )
        self._shape, self._threads_before = shape, torch.get_num_threads()
        self.provider: str = f"PyTorch {torch.__version__}, {'compiled' if compiled else 'eager'}"
        torch.set_num_threads(threads)
        try:
            self.infer(np.zeros((1, *shape), np.float32))
        except RuntimeError as error:  # torch's compiler raises nothing more special for all that may be missing
            self.close()
            if not compiled:
                raise
            reason = str(error).strip().splitlines()[0]
            raise NotReadyError(f"torch.compile: {reason}; it needs a C++ compiler (apt install g++)") from error

    def infer(self, x: F4) -> Answer:
        """Answer x (N, *input shape) float32, N ≥ 1.

        Raises:
            IncompatibleError: x has another shape or type than the student takes.
        """
        if not len(x) or x.dtype != np.float32 or x.shape[1:] != self._shape:
            raise IncompatibleError(f"student takes float32 (N, *{self._shape}), N ≥ 1; was given {x.dtype} {x.shape}")
        with torch.inference_mode():
            features, logits = self._model(torch.from_numpy(np.require(x, requirements=("C", "W"))))
            return Answer(features.numpy(), logits.numpy())

    def close(self) -> None:
        """Free the student, and give PyTorch its threads back; once is enough."""
        if self.__dict__.pop("_model", None) is not None:
            torch.set_num_threads(self._threads_before)


def open_torch(spec: TaskSpec, tier: Tier, weights: bytes, *, threads: int = 1, compiled: bool = False) -> TorchRunner:
    """Load a release's student.

    Args:
        spec: the task, whose student of the tier is built.
        tier: which one.
        weights: its payload; no template is needed.
        threads: see `TorchRunner`.
        compiled: likewise.

    Raises:
        IncompatibleError: the payload is damaged, another student's, or a variant's.
        NotReadyError: it cannot be compiled here.
    """
    student = released_student(read_payload(weights), spec, tier)
    return TorchRunner(student, spec.input.shape, threads=threads, compiled=compiled)
