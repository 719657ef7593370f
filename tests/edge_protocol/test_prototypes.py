"""Class means on the wire: what comes back, what rounding loses, and everything that is refused."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_protocol import messages as m
from edge_protocol.arrays import Array, pack
from edge_protocol.codec import decode, encode
from edge_protocol.errors import LocalProtocolError, RemoteProtocolError
from edge_protocol.prototypes import count_levels, told_arrays, told_values
from edge_protocol.task import FEATURES
from tests.vectors.make import examples

CLASSES = 6
HEADER, _BODY = examples()["prototypes"]
assert isinstance(_BODY, m.PrototypeReport)
REPORT: m.PrototypeReport = _BODY


def changed(**arrays: Array) -> m.PrototypeReport:
    """The example with other arrays."""
    return msgspec.structs.replace(REPORT, **arrays)


@given(st.lists(st.integers(0, 5000), min_size=CLASSES, max_size=CLASSES), st.integers(0, 99))
def test_means_come_back_in_half_precision_and_counts_in_powers_of_two(counts: list[int], seed: int) -> None:
    """Whatever is held comes back to half precision; a count as the power of two below it, at most 1,024."""
    means, behind = np.random.default_rng(seed).normal(size=(CLASSES, FEATURES)).astype(np.float32), np.array(counts)
    report = m.PrototypeReport("vehicle", "ab12", 1, 1, "nano", *told_arrays(means, behind))
    back, told = told_values(report, CLASSES)
    assert np.allclose(back[behind > 0], means[behind > 0], rtol=1e-3, atol=1e-3)
    assert not back[behind == 0].any()
    assert ((told == 0) == (behind == 0)).all()
    assert ((told <= behind) & (behind < 2 * np.maximum(told, 1)) | (told == 1024)).all()


def test_levels_of_counts() -> None:
    """3 and 2 say the same, 4 says more, and beyond 1,024 nothing is added."""
    assert count_levels(np.array([1, 2, 3, 4, 1023, 1024, 10**9])).tolist() == [0, 1, 1, 2, 9, 10, 10]


@pytest.mark.parametrize(
    ("name", "array", "reason"),
    [
        ("classes", np.array([2, 0], "u1"), "wrong-shape"),
        ("classes", np.array([0, 0], "u1"), "wrong-shape"),
        ("classes", np.array([[0, 2]], "u1"), "wrong-shape"),
        ("classes", np.array([0, 2], "u2"), "wrong-shape"),
        ("means", np.zeros((2, FEATURES - 1), "<f2"), "wrong-shape"),
        ("means", np.zeros((3, FEATURES), "<f2"), "wrong-shape"),
        ("means", np.zeros((2, FEATURES), "<f4"), "wrong-shape"),
        ("means", np.full((2, FEATURES), np.nan, "<f2"), "not-finite"),
        ("means", np.full((2, FEATURES), -np.inf, "<f2"), "not-finite"),
        ("counts", np.array([3], "u1"), "wrong-shape"),
        ("counts", np.array([3, 11], "u1"), "wrong-counts"),
    ],
)
def test_what_is_no_class_mean_is_refused(name: str, array: np.ndarray, reason: str) -> None:
    """Another shape, type, order, number of features, NaN, infinity and a count beyond its levels, each by name."""
    with pytest.raises(LocalProtocolError) as caught:
        changed(**{name: pack(array)})
    assert caught.value.reason == reason


def test_a_receiver_says_why_a_report_is_no_use() -> None:
    """NaN on the wire is refused as such, and an unknown tier as malformed, before anything is done with either."""
    payload = encode(HEADER, REPORT)
    assert decode(payload, kind="knowledge", fleet="demo", sender="cam-1").body == REPORT
    spoilt = payload.replace(REPORT.means.data, b"\xff" * len(REPORT.means.data))
    for wrong, reason in ((spoilt, "not-finite"), (payload.replace(b"\xa4nano", b"\xa4tiny"), "malformed")):
        with pytest.raises(RemoteProtocolError) as caught:
            decode(wrong, kind="knowledge", fleet="demo", sender="cam-1")
        assert caught.value.reason == reason


def test_a_mean_beyond_half_precision_is_not_told() -> None:
    """A feature that would become infinite on the wire is an error on the device."""
    with pytest.raises(LocalProtocolError) as caught:
        told_arrays(np.full((CLASSES, FEATURES), 1e6, np.float32), np.ones(CLASSES, np.int64))
    assert caught.value.reason == "not-finite"


def test_a_device_that_holds_too_little_says_so_in_few_bytes() -> None:
    """No class at all is a legal report."""
    empty = m.PrototypeReport(
        "v", "a", 1, 1, "base", *told_arrays(np.zeros((CLASSES, FEATURES), np.float32), np.zeros(CLASSES, np.int64))
    )
    means, counts = told_values(empty, CLASSES)
    assert not means.any()
    assert not counts.any()
    assert len(encode(HEADER, empty)) < 130
