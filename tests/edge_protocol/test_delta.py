"""Deltas between weights payloads: exact, small where little changed, and never more than the base is large."""

from __future__ import annotations

import lzma
import tracemalloc
from hashlib import sha256
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from safetensors.numpy import save

from edge_protocol.delta import FILTERS, MAGIC, apply_delta, make_delta
from edge_protocol.errors import DigestError

bits = st.sampled_from([np.uint16, np.uint8, np.uint32]).flatmap(
    lambda kind: array_shapes(max_dims=3, max_side=6).flatmap(
        lambda shape: st.tuples(arrays(kind, shape), arrays(kind, shape))
    )
)
STORED = {2: np.float16, 1: np.int8, 4: np.float32}


def weights(seed: int = 0, noise: float = 0.0) -> dict[str, npt.NDArray[Any]]:
    """A few layers in fp16, moved by some noise."""
    rng, moved = np.random.default_rng(seed), np.random.default_rng(seed + 1)
    shapes = {"a.weight": (16, 3, 3, 3), "a.bias": (16,), "head.weight": (6, 64), "empty": (0, 3)}
    drawn = {name: rng.normal(0, 0.1, shape) for name, shape in shapes.items()}
    return {name: (v + moved.normal(0, 1, v.shape) * noise).astype(np.float16) for name, v in drawn.items()}


@given(st.lists(bits, min_size=1, max_size=4))
def test_what_comes_out_is_what_went_in(pairs: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]) -> None:
    """Any bit patterns, NaN, infinity and both zeros among them, of any mixture of number types."""
    old, new = (
        save({f"t{at}": pair[side].view(STORED[pair[side].dtype.itemsize]) for at, pair in enumerate(pairs)})
        for side in (0, 1)
    )
    delta = make_delta(old, new)
    assert delta is not None
    assert apply_delta(old, delta) == new


def test_a_step_to_the_next_number_is_small_on_both_sides_of_zero() -> None:
    """The smallest change of every weight costs a fraction of the payload."""
    rng = np.random.default_rng(0)
    old = rng.normal(0, 1e-4, 20_000).astype(np.float16)
    new = np.nextafter(old, np.where(rng.random(20_000) < 0.5, np.inf, -np.inf).astype(np.float16))
    delta = make_delta(save({"w": old}), save({"w": new}))
    assert delta is not None
    assert len(delta) < 0.1 * 40_000


def test_what_did_not_change_costs_next_to_nothing() -> None:
    """A release of another head only."""
    old, new = weights(), weights()
    new["head.weight"] = new["head.weight"] + np.float16(0.01)
    delta, whole = make_delta(save(old), save(old)), save(new)
    assert delta is not None
    assert len(delta) < 60
    changed = make_delta(save(old), whole)
    assert changed is not None
    assert len(changed) < new["head.weight"].nbytes + 100


def test_other_tensors_have_no_delta() -> None:
    """Another name, shape or number type: the whole payload it is."""
    old = weights()
    for other in ({**old, "more": old["a.bias"]}, {**old, "a.bias": old["a.bias"][:3]}):
        assert make_delta(save(old), save(other)) is None
    assert make_delta(save(old), save({**old, "a.bias": old["a.bias"].view(np.uint16)})) is None


def test_another_base_gives_other_bytes() -> None:
    """Nothing in a delta tells its base: the hash of what comes out does."""
    base, other, new = save(weights(0)), save(weights(5)), save(weights(0, 1e-3))
    delta = make_delta(base, new)
    assert delta is not None
    assert sha256(apply_delta(other, delta)).digest() != sha256(new).digest()


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_delta_is_refused_or_gives_other_bytes(data: st.DataObject) -> None:
    """Cut, flipped or made up: a DigestError, or bytes that no hash will match; never another error."""
    base, new = save(weights()), save(weights(noise=1e-3))
    delta = bytearray(make_delta(base, new) or b"")
    at = data.draw(st.integers(0, len(delta) - 1))
    kind = data.draw(st.sampled_from(["cut", "flip", "made up"]))
    if kind == "cut":
        del delta[at:]
    elif kind == "flip":
        delta[at] ^= data.draw(st.integers(1, 255))
    else:
        delta = bytearray(data.draw(st.sampled_from([b"", MAGIC])) + data.draw(st.binary(max_size=50)))
    try:
        out = apply_delta(base, bytes(delta))
    except DigestError:
        return
    assert len(out) == len(base)


@given(st.binary(max_size=200))
def test_a_base_that_is_no_payload_is_refused(base: bytes) -> None:
    """Whatever lies on the disk."""
    with pytest.raises(DigestError, match="no weights payload"):
        apply_delta(base, MAGIC + b"x")


def test_a_bomb_is_not_unpacked() -> None:
    """64 MiB of zeros in a few kilobytes, for a base of 2 KB: refused, with memory for neither."""
    packer = lzma.LZMACompressor(lzma.FORMAT_RAW, filters=FILTERS)
    bomb = MAGIC + b"".join([*(packer.compress(bytes(1 << 20)) for _ in range(64)), packer.flush()])
    base = save(weights())
    assert len(bomb) < 64_000
    tracemalloc.start()
    try:
        with pytest.raises(DigestError, match="unpacks to other than"):
            apply_delta(base, bomb)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
