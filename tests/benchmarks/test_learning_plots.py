"""The picture of accuracy against bytes: every method is in it once, named, where no name hides another."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.learning.plots import curves_of, draw, spaced


def found(*curve: float, sent: float = 0.0, first: float = 0.0) -> dict[str, Any]:
    """A run of a seed: accuracy by round, and as many bytes more in every round, besides those of the first."""
    return {"curve": list(curve), "sent": [first + sent * at for at in range(1, len(curve) + 1)]}


RUNS = {
    "feddistill": [found(0.5, 0.7, sent=400, first=300), found(0.6, 0.8, sent=400, first=300)],
    "self": [found(0.5, 0.6)],
    "fedavg": [found(0.4, 0.5, sent=1e5)],
    "ditto": [found(0.4, 0.5, sent=1e5)],
    "local": [found(0.3)],
}


def test_methods_that_coincide_share_a_curve_and_its_name() -> None:
    """Ditto's shared model is FedAvg's: one curve tells so, where two would hide each other."""
    curves = {curve.name: curve for curve in curves_of(RUNS)}
    assert list(curves) == ["feddistill", "self", "fedavg, ditto", "local"]
    assert curves["feddistill"].mean.tolist() == pytest.approx([55, 75])
    assert curves["feddistill"].sent.tolist() == [700, 1100]


@pytest.mark.parametrize("left_out", [(), ("feddistill", "fedavg", "ditto")])
def test_every_method_is_named_in_both_panels(tmp_path: Path, left_out: tuple[str, ...]) -> None:
    """Those that send nothing are beside the bytes too, also when nobody sends any; the same figures, the same file."""
    runs = {name: each for name, each in RUNS.items() if name not in left_out}
    draw(runs, tmp_path / "a.svg", ours="feddistill")
    draw(runs, tmp_path / "b.svg", ours="feddistill")
    picture = (tmp_path / "a.svg").read_text()
    assert picture == (tmp_path / "b.svg").read_text()
    for curve in curves_of(runs):
        assert picture.count(f"> {curve.name}</text>") == 2


def test_a_picture_can_be_a_bitmap(tmp_path: Path) -> None:
    """The suffix says the format."""
    draw(RUNS, tmp_path / "a.png", ours="feddistill")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG")


@given(st.lists(st.floats(0, 100), min_size=1, max_size=20).map(sorted), st.floats(0.1, 10))
def test_names_keep_their_distance_and_their_middle(heights: list[float], gap: float) -> None:
    """No two are nearer than the gap, the order stays, and what stands apart stays where it is."""
    moved = spaced(heights, gap)
    assert all(b - a >= gap - 1e-6 for a, b in pairwise(moved))
    assert np.mean(moved) == pytest.approx(np.mean(heights))
    if all(b - a > gap for a, b in pairwise(heights)):
        assert moved == pytest.approx(heights)
