"""Personal heads as arrays."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import save

from edge_models.habits import Habits
from edge_models.head_weights import MAX_BYTES, HeadWeights, Hidden
from edge_models.tasks import load_task
from edge_protocol.errors import IncompatibleError


def make_head(outputs: int = 3, side: int = 2) -> HeadWeights:
    """Draw a head of 64 features."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(outputs, 64 + side)).astype(np.float32)
    return HeadWeights(weight, rng.normal(size=outputs).astype(np.float32))


def make_mlp(side: int = 2, hidden: int = 5) -> HeadWeights:
    """Draw a head with a hidden layer, for 3 outputs."""
    rng = np.random.default_rng(1)
    shapes = ((hidden, 64 + side), (hidden,), (3, hidden))
    linear = make_head(side=side)
    return HeadWeights(linear.weight, linear.bias, 64, Hidden(*(rng.normal(size=s).astype(np.float32) for s in shapes)))


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


def test_a_hidden_layer_adds_to_the_linear_map() -> None:
    """One sample by hand."""
    head, rng = make_mlp(), np.random.default_rng(2)
    assert head.hidden is not None
    features, side = (rng.normal(size=(1, width)).astype(np.float32) for width in (64, 2))
    inputs = np.concatenate([features[0], side[0]])
    z = head.hidden.first @ inputs + head.hidden.first_bias
    by_hand = head.weight @ inputs + head.bias + head.hidden.second @ (z / (1 + np.exp(-z)))
    np.testing.assert_allclose(head.apply(features, side)[0], by_hand, rtol=1e-4)


def test_extreme_inputs_stay_finite() -> None:
    """No overflow in the activation, however far a reading lies."""
    big = np.full((1, 64), 1e6, np.float32)
    assert np.isfinite(make_mlp().apply(big, -big[:, :2])).all()


def test_bytes_of_a_hidden_layer_round_trip() -> None:
    """What was written is read back exactly."""
    head = make_mlp()
    again = HeadWeights.from_bytes(head.to_bytes())
    assert head.hidden is not None
    assert again.hidden is not None
    for name in ("first", "first_bias", "second"):
        np.testing.assert_array_equal(getattr(again.hidden, name), getattr(head.hidden, name))
    assert again.to_bytes() == head.to_bytes()


ZERO = {"weight": np.zeros((3, 64), np.float32), "bias": np.zeros(3, np.float32), "features": np.array(64, np.int32)}
HOSTILE = {
    "half a hidden layer": {"first": np.zeros((5, 64), np.float32)},
    "another tensor": {"extra": np.zeros(1, np.float32)},
    "other numbers": {"weight": np.zeros((3, 64), np.float64)},
    "a width as a list": {"features": np.array([64], np.int32)},
    "a width as a float": {"features": np.array(64, np.float32)},
    "a width below 1": {"features": np.array(-1, np.int32)},
    "a width beyond the weight": {"features": np.array(65, np.int32)},
    "habits of nobody": {"usual": np.zeros((3, 4, 2), np.float32)},
    "sensors without habits": {"numbers": np.zeros(2, np.float32)},
    "habits that no column meets": {"usual": np.zeros((3, 4, 2), np.float32), "numbers": np.float32([1, 2])},
    "habits in other numbers": {"usual": np.zeros((3, 4, 2), np.float64), "numbers": np.float32([1, 2])},
    "too many bytes": {"weight": np.zeros((MAX_BYTES // 256, 64), np.float32)},
}


@pytest.mark.parametrize("wrong", HOSTILE.values(), ids=HOSTILE)
def test_hostile_files_are_refused(wrong: dict[str, np.ndarray]) -> None:
    """Other names, types, widths and sizes than a head's, each on its own."""
    assert HeadWeights.from_bytes(save(ZERO)).outputs == 3
    with pytest.raises(IncompatibleError):
        HeadWeights.from_bytes(save(ZERO | wrong))


def read_or_refuse(data: bytes) -> None:
    """Read a head, or be told why not."""
    try:
        HeadWeights.from_bytes(data)
    except IncompatibleError as error:
        assert str(error)  # noqa: PT017 - a damaged number may be a legal head


@given(st.binary(max_size=300), st.integers(0, 2000), st.integers(0, 255))
def test_damaged_bytes_are_a_head_or_an_error_that_says_so(noise: bytes, at: int, value: int) -> None:
    """Nothing but `IncompatibleError` comes out of reading, whatever the bytes."""
    torn = bytearray(make_mlp().to_bytes())
    torn[at] = value
    read_or_refuse(noise)
    read_or_refuse(bytes(torn))


@pytest.mark.parametrize(
    "shapes", [((5, 65), (5,), (3, 5)), ((5, 66), (4,), (3, 5)), ((5, 66), (5,), (2, 5)), ((5, 66), (5, 1), (3, 5))]
)
def test_a_hidden_layer_that_does_not_fit_is_refused(shapes: tuple[tuple[int, ...], ...]) -> None:
    """Each layer's width and the next one's belong together."""
    linear, arrays = make_head(), [np.zeros(shape, np.float32) for shape in shapes]
    with pytest.raises(IncompatibleError, match="hidden layer"):
        HeadWeights(linear.weight, linear.bias, 64, Hidden(*arrays))


def test_habits_are_part_of_a_head() -> None:
    """They come back with it, NaN and all; it fits the task whose horizons and day they have, and no other."""
    usual = np.where(np.arange(288)[:, None] > 5, np.arange(6.0).reshape(3, 1, 2), np.nan).astype(np.float32)
    linear = make_head(outputs=6, side=5)
    head = HeadWeights(linear.weight, linear.bias, 64, habits=Habits(usual, np.float32([7, 9])))
    again = HeadWeights.from_bytes(head.to_bytes())
    assert again.habits is not None
    np.testing.assert_array_equal(again.habits.usual, usual)
    np.testing.assert_array_equal(again.habits.numbers, [7, 9])
    assert again.fitting(load_task("speed")) is again
    with pytest.raises(IncompatibleError, match="fit it again"):
        head.fitting(load_task("vehicle"))
    with pytest.raises(IncompatibleError, match="5 inputs do not fit"):
        HeadWeights(linear.weight[:, :68], linear.bias, 64, habits=head.habits)


def test_a_head_of_another_task_is_refused() -> None:
    """Six classes, not three; side inputs only where the task has them."""
    vehicle = load_task("vehicle")
    head = make_head(outputs=6, side=0)
    assert head.fitting(vehicle) is head
    for other in (make_head(outputs=3, side=0), make_head(outputs=6, side=1)):
        with pytest.raises(IncompatibleError, match="fit it again"):
            other.fitting(vehicle)


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
    """Heads load without torch, because the serving agent imports them."""
    script = "import edge_models.head_weights, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=60).returncode == 0
