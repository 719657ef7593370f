"""What every runner offers; owns no runtime."""

from __future__ import annotations

from types import TracebackType
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from typing_extensions import Self

F4 = npt.NDArray[np.float32]


class Answer(NamedTuple):
    """What a student says about N samples.

    Attributes:
        features: (N, 64) float32.
        logits: (N, outputs) float32, of the shared head.
    """

    features: F4
    logits: F4


class Runner(Protocol):
    """A loaded student.

    Attributes:
        provider: what really runs it, such as ``CPUExecutionProvider``; never what was merely asked for.
    """

    provider: str

    def infer(self, x: F4) -> Answer:
        """Answer x (N, *input shape) float32, N ≥ 1.

        Raises:
            IncompatibleError: x has another shape than the student takes.
        """
        ...

    def close(self) -> None:
        """Free the runtime's memory; no `infer` may run then or come after. A runner that is dropped frees itself."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
