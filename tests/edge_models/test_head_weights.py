"""Linear heads as arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from edge_models.head_weights import HeadWeights
from edge_protocol.errors import IncompatibleError


def make_head(outputs: int = 3, side: int = 2) -> HeadWeights:
    """Draw a head of 64 features."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(outputs, 64 + side)).astype(np.float32)
    return HeadWeights(weight, rng.normal(size=outputs).astype(np.float32))


def test_apply_is_the_linear_map() -> None:
    """Logits are inputs times weights plus bias, computed here by hand for one sample."""
    head = make_head()
    features, side = np.ones((1, 64), np.float32), np.array([[2.0, -1.0]], np.float32)
    by_hand = head.weight[:, :64].sum(1) + 2 * head.weight[:, 64] - head.weight[:, 65] + head.bias
    np.testing.assert_allclose(head.apply(features, side)[0], by_hand, rtol=1e-5)


def test_bytes_round_trip() -> None:
    """What was written is read back exactly."""
    head = make_head()
    again = HeadWeights.from_bytes(head.to_bytes())
    np.testing.assert_array_equal(again.weight, head.weight)
    np.testing.assert_array_equal(again.bias, head.bias)
    assert (again.features, again.side, again.outputs) == (64, 2, 3)


def test_widened_head_answers_the_same() -> None:
    """A head that gains side inputs gives them weight 0; a head without side columns ignores side inputs."""
    head = make_head(side=0)
    features, side = np.ones((2, 64), np.float32), np.full((2, 4), 9, np.float32)
    np.testing.assert_array_equal(head.widened(4).apply(features, side), head.apply(features, side))


@pytest.mark.parametrize("data", [b"", b"not a head", make_head().to_bytes()[:-1]])
def test_other_bytes_are_refused(data: bytes) -> None:
    """Truncated or foreign bytes are an error that says so."""
    with pytest.raises(IncompatibleError, match="are not a head"):
        HeadWeights.from_bytes(data)


@pytest.mark.parametrize(
    ("weight", "bias"),
    [
        (np.zeros((3, 60), np.float32), np.zeros(3, np.float32)),
        (np.zeros((3, 64), np.float32), np.zeros(2, np.float32)),
        (np.zeros((3, 64), np.float32), np.zeros((3, 1), np.float32)),
        (np.zeros(64, np.float32), np.zeros(64, np.float32)),
    ],
)
def test_shapes_that_do_not_fit_are_refused(weight: np.ndarray, bias: np.ndarray) -> None:
    """A head exists only when its weight maps the features to the logits."""
    with pytest.raises(IncompatibleError, match="do not map"):
        HeadWeights(weight, bias)


def test_nan_is_refused() -> None:
    """A head with NaN would answer NaN for ever."""
    weight = np.zeros((2, 64), np.float32)
    weight[0, 0] = np.nan
    with pytest.raises(IncompatibleError, match="NaN"):
        HeadWeights(weight, np.zeros(2, np.float32))


@pytest.mark.parametrize(("features", "side"), [(63, 2), (64, 1), (64, 0)])
def test_inputs_of_another_width_are_refused(features: int, side: int) -> None:
    """Features or side inputs of the wrong width are an error, not a wrong answer."""
    with pytest.raises(IncompatibleError, match="got"):
        make_head().apply(np.zeros((1, features), np.float32), np.zeros((1, side), np.float32) if side else None)


def test_the_serving_half_needs_no_torch() -> None:
    """Heads and density load without torch, because the serving agent imports them."""
    script = "import edge_models.head_weights, edge_models.density, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
