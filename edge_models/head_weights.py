"""A personal head as plain arrays: how it answers on features, and its bytes. No torch.

Owns the numbers of a head and their file form; owns neither how they are learnt (see `head_fits`) nor the trunk before
them. There is one form for every type: a linear map, and beside it a hidden layer where the type has one. What an
adapter adds to the features is folded into the map (LoRA; Hu et al. 2022), so that it costs a device nothing. A head
of sensors holds the habits that it was fitted with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
from safetensors import SafetensorError
from safetensors.numpy import load, save

from edge_models.habits import Habits
from edge_models.samples import Samples
from edge_protocol.errors import IncompatibleError
from edge_protocol.task import FEATURES, TaskSpec

FloatArray = npt.NDArray[np.float32]
HeadType = Literal["bias", "linear", "mlp", "adapter"]
MAX_BYTES = 8 << 20
"""A head's file is at most so large: 4,096 hidden units on 64 features and 400 side inputs."""
_LINEAR = frozenset({"weight", "bias", "features"})
_HIDDEN = frozenset({"first", "first_bias", "second"})
_HABITS = frozenset({"usual", "numbers"})


@dataclass(frozen=True, eq=False)
class Hidden:
    """One hidden layer: second · silu(first · inputs + first_bias); zeros in `second` leave a head as it is.

    Attributes:
        first: (hidden, K + F) float32.
        first_bias: (hidden,) float32.
        second: (outputs, hidden) float32.
    """

    first: FloatArray
    first_bias: FloatArray
    second: FloatArray

    def apply(self, inputs: FloatArray) -> FloatArray:
        """What it adds to the logits, (N, outputs) float32, for inputs (N, K + F) float32."""
        z = inputs @ self.first.T + self.first_bias
        z *= 0.5 * (1 + np.tanh(0.5 * z))
        return np.asarray(z @ self.second.T, np.float32)


@dataclass(frozen=True, eq=False)
class HeadWeights:
    """A map from features, and maybe the device's own side inputs, to logits.

    Attributes:
        weight: (outputs, K + F) float32; the first K columns meet the features, the last F the side inputs.
        bias: (outputs,) float32.
        features: K, the width of the feature vector.
        hidden: what a hidden layer adds; None for a linear head.
        habits: of the sensors that it forecasts, which make its side inputs; None where samples bring their own.

    Raises:
        IncompatibleError: the arrays do not fit each other, or hold NaN or infinity.
    """

    weight: FloatArray
    bias: FloatArray
    features: int = FEATURES
    hidden: Hidden | None = None
    habits: Habits | None = None

    def __post_init__(self) -> None:
        outputs = self.bias.shape[0] if self.bias.ndim == 1 else -1
        flat = self.weight.ndim != 2 or len(self.weight) != outputs  # noqa: PLR2004 - a matrix
        if flat or not 1 <= self.features <= self.weight.shape[1]:
            raise IncompatibleError(
                f"weight {self.weight.shape} and bias {self.bias.shape} do not map {self.features} features to logits"
            )
        if self.hidden is not None:
            first, inner, second = self.hidden.first.shape, self.hidden.first_bias.shape, self.hidden.second.shape
            if len(inner) != 1 or first != (*inner, self.weight.shape[1]) or second != (outputs, *inner):
                raise IncompatibleError(
                    f"a hidden layer of {first}, {inner} and {second} does not fit weight {self.weight.shape}"
                )
        if self.habits is not None and self.habits.inputs != self.side:
            raise IncompatibleError(f"habits of {self.habits.inputs} inputs do not fit a head that takes {self.side}")
        if not all(np.isfinite(array).all() for array in self._linear().values()):
            raise IncompatibleError("a head holds NaN or infinity; fit it again")

    @property
    def outputs(self) -> int:
        """Width of the logits."""
        return int(self.bias.shape[0])

    @property
    def side(self) -> int:
        """F, how many side inputs the head uses."""
        return int(self.weight.shape[1]) - self.features

    def apply(self, features: FloatArray, side: FloatArray | None = None) -> FloatArray:
        """Return the logits, (N, outputs) float32.

        Args:
            features: (N, K) float32.
            side: (N, F) float32; a head without side columns ignores it.

        Raises:
            IncompatibleError: the inputs are not as wide as the head.
        """
        width = 0 if side is None else side.shape[1]
        if features.shape[1] != self.features or (self.side and self.side != width):
            raise IncompatibleError(
                f"a head of {self.features} features and {self.side} side inputs got {features.shape[1]} and {width}; "
                "the release or the device's inputs have changed, so fit it again"
            )
        inputs = np.hstack([features, side]) if self.side and side is not None else features
        inputs = inputs.astype(np.float32, copy=False)
        logits: FloatArray = inputs @ self.weight.T + self.bias
        return logits if self.hidden is None else logits + self.hidden.apply(inputs)

    def answer(self, features: FloatArray, samples: Samples) -> FloatArray:
        """Logits (N, outputs) float32 of N samples with these features (N, K) float32; errors as `apply`."""
        return self.apply(features, samples.side if self.habits is None else self.habits.of_windows(samples))

    def widened(self, side: int) -> HeadWeights:
        """A linear head's same answers with `side` more inputs, to which it gives weight 0."""
        extra = np.zeros((self.outputs, side), np.float32)
        return HeadWeights(np.hstack([self.weight, extra]), self.bias, self.features)

    def fitting(self, spec: TaskSpec) -> HeadWeights:
        """This head, if it can answer a task.

        Raises:
            IncompatibleError: it has other features, outputs or side inputs than the task.
        """
        known = self.side in {0, len(spec.side)} if self.habits is None else self.habits.fit_task(spec)
        if (self.features, self.outputs) != (FEATURES, spec.outputs) or not known:
            raise IncompatibleError(
                f"a head from {self.features} features and {self.side} side inputs to {self.outputs} outputs is none "
                f"for task {spec.name!r} with {FEATURES}, {len(spec.side)} and {spec.outputs}; fit it again"
            )
        return self

    def to_bytes(self) -> bytes:
        """Write as safetensors, under the attributes' names; K as a scalar ``features``."""
        arrays: dict[str, npt.NDArray[np.generic]] = {**self._linear(), "features": np.array(self.features, np.int32)}
        if self.habits is not None:
            arrays |= {name: np.ascontiguousarray(getattr(self.habits, name), np.float32) for name in sorted(_HABITS)}
        return save(arrays)

    @classmethod
    def from_bytes(cls, data: bytes) -> HeadWeights:
        """Read what `to_bytes` wrote, and nothing else.

        Raises:
            IncompatibleError: the bytes are not a head.
        """
        try:
            tensors = load(data) if len(data) <= MAX_BYTES else {}
            _check(tensors)
            features = int(tensors["features"])
        except (SafetensorError, ValueError, TypeError) as error:
            raise IncompatibleError(f"these {len(data)} bytes are not a head: {error}") from error
        hidden = Hidden(*(tensors[name] for name in ("first", "first_bias", "second"))) if "first" in tensors else None
        habits = Habits(tensors["usual"], tensors["numbers"]) if "usual" in tensors else None
        return cls(tensors["weight"], tensors["bias"], features, hidden, habits)

    def _linear(self) -> dict[str, FloatArray]:
        arrays = {"weight": self.weight, "bias": self.bias}
        if self.hidden is not None:
            arrays |= {name: getattr(self.hidden, name) for name in sorted(_HIDDEN)}
        return {name: np.ascontiguousarray(array, np.float32) for name, array in arrays.items()}


def _check(tensors: Mapping[str, npt.NDArray[np.generic]]) -> None:
    """Refuse other names and types than those of a head; `HeadWeights` itself refuses shapes that do not fit.

    Raises:
        ValueError: says which.
    """
    if set(tensors) - _HABITS not in (_LINEAR, _LINEAR | _HIDDEN) or len(_HABITS & set(tensors)) == 1:
        raise ValueError(f"it holds {', '.join(sorted(tensors)[:8]) or f'nothing, or more than {MAX_BYTES} bytes'}")
    kinds = {name: (array.dtype.name, array.ndim) for name, array in tensors.items()}
    if kinds.pop("features") != ("int32", 0) or {dtype for dtype, _ in kinds.values()} != {"float32"}:
        raise ValueError("a head is float32, with a scalar int32 'features'")
