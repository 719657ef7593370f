"""The form of a trunk's change: there and back, and whatever bytes come instead."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load, save

from edge_models.trunk_changes import clipped, decode_change, encode_change, length, trunk_of
from edge_protocol.errors import LocalProtocolError, RemoteProtocolError

GOOD = encode_change({"trunk.w": np.array([[0.5, -1.0], [0.0, 0.25]], "f4"), "trunk.b": np.array([0.25], "f4")})


@st.composite
def changes(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """A few tensors of up to three axes, of any size that training could make."""
    rng, size = np.random.default_rng(draw(st.integers(0, 2**32 - 1))), draw(st.floats(1e-6, 100))
    shapes = draw(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=3), min_size=1, max_size=4))
    return {f"trunk.{at}": rng.normal(0, size, shape).astype(np.float32) for at, shape in enumerate(shapes)}


@given(changes())
def test_a_change_comes_back_within_half_a_step(change: dict[str, np.ndarray]) -> None:
    """Names and shapes stay; no weight is off by more than half a 127th of its channel's largest, no bias by 0.1 %."""
    back = decode_change(encode_change(change))
    assert set(back) == set(change)
    for name, value in change.items():
        assert back[name].shape == value.shape
        if value.ndim == 1:
            np.testing.assert_allclose(back[name], value, rtol=1e-3, atol=1e-7)
            continue
        step = np.abs(value).max(axis=tuple(range(1, value.ndim)), keepdims=True) / 127
        assert (np.abs(back[name] - value) <= 0.51 * step).all()


@given(changes(), st.floats(1e-3, 1e3))
def test_a_change_is_cut_to_a_length_and_keeps_its_direction(change: dict[str, np.ndarray], limit: float) -> None:
    """What is longer gets exactly that length; what is shorter stays as it is."""
    cut, far = clipped(change, limit), length(change)
    assert length(cut) == pytest.approx(min(far, limit), rel=1e-4)
    share = min(1.0, limit / far) if far else 1.0
    for name, value in change.items():
        np.testing.assert_allclose(cut[name], value * share, rtol=1e-4, atol=1e-12)


@given(
    st.binary(max_size=300)
    | st.tuples(st.integers(0, len(GOOD) - 1), st.integers(1, 255)).map(
        lambda spoil: GOOD[: spoil[0]] + bytes([GOOD[spoil[0]] ^ spoil[1]]) + GOOD[spoil[0] + 1 :]
    )
)
def test_other_bytes_are_refused_or_a_finite_change(data: bytes) -> None:
    """Junk, and a good change with one byte spoilt: a reason, or finite numbers, never anything else."""
    try:
        found = decode_change(data)
    except RemoteProtocolError as error:
        found, reason = {}, error.reason
    else:
        reason = ""
    assert reason in {"", "malformed", "not-finite"}
    assert all(np.isfinite(value).all() and value.dtype == np.float32 for value in found.values())


def spoilt(**tensors: np.ndarray | None) -> bytes:
    """The good change with tensors replaced, or taken away by None."""
    whole: dict[str, Any] = load(GOOD) | {name.replace("_", ".", 1): value for name, value in tensors.items()}
    return save({name: value for name, value in whole.items() if value is not None})


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (spoilt(trunk_b=np.array([np.nan], np.float16)), "not-finite"),
        (spoilt(trunk_b=np.array([np.inf], np.float16)), "not-finite"),
        (spoilt(**{"trunk_w:scale": np.full((2, 1), np.inf, np.float32)}), "not-finite"),
        (spoilt(**{"trunk_w:scale": np.full((2, 1), 3e38, np.float32)}), "not-finite"),
        (spoilt(**{"trunk_w:scale": np.ones((1, 1), np.float32)}), "malformed"),
        (spoilt(**{"trunk_w:scale": np.ones((2, 1), np.float64)}), "malformed"),
        (spoilt(**{"trunk_w:scale": None}), "malformed"),
        (spoilt(trunk_w=None), "malformed"),
        (spoilt(trunk_w=np.zeros((2, 2), np.float64)), "malformed"),
        (spoilt(trunk_b=np.zeros(1, np.int64)), "malformed"),
        (GOOD[:-1], "malformed"),
    ],
)
def test_what_is_wrong_with_a_change_is_said(data: bytes, reason: str) -> None:
    """NaN, infinity, a product that overflows, scales that do not fit, other types, a change cut short."""
    with pytest.raises(RemoteProtocolError) as refused:
        decode_change(data)
    assert refused.value.reason == reason


def test_what_training_spoilt_or_blew_up_does_not_leave_the_device() -> None:
    """A change that is not finite, and one that no report could hold, are errors before anything is sent."""
    with pytest.raises(LocalProtocolError, match="training diverged"):
        encode_change({"trunk.w": np.array([[np.nan]], np.float32)})
    with pytest.raises(LocalProtocolError, match="exceeds"):
        encode_change({"trunk.w": np.ones((1000, 300), np.float32)})


def test_no_head_is_part_of_a_trunk() -> None:
    """Heads stay; tensors come in the order of their names."""
    tensors = {name: np.zeros(1, np.float32) for name in ("trunk.b", "head.weight", "trunk.a", "head.bias")}
    assert list(trunk_of(tensors)) == ["trunk.a", "trunk.b"]
