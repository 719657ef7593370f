"""Charts put data where it belongs."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree as ET

import pytest

from roadcast.demo import svg


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.48, 0.65, [0.45, 0.5, 0.55, 0.6, 0.65]),
        (5, 5, [5, 6]),
        (0, 0, [0, 0.2]),
        (0, 37, [0, 10, 20, 30, 40]),
    ],
)
def test_ticks_are_round_and_cover(low: float, high: float, expected: list[float]) -> None:
    """Steps of 1, 2 or 5 times a power of ten, from below the lowest to above the highest."""
    found = svg.ticks(low, high)
    assert found == pytest.approx(expected)
    assert found[0] <= low
    assert found[-1] >= high


def test_axes_map_corners() -> None:
    """The lowest value is at the bottom left, the highest at the top right; a single value does not divide by zero."""
    axes = svg.Axes((0, 10), (0, 1))
    (left, bottom), (right, top) = axes.at(0, 0), axes.at(10, 1)
    assert left < right
    assert top < bottom
    assert svg.Axes((1, 1), (2, 2)).at(1, 2) == (left, bottom)


def _chart(text: str) -> ET.Element:
    return ET.fromstring(text[: text.index("</svg>") + 6])


def test_a_line_goes_through_its_points_in_order() -> None:
    """One polyline a series, one dot with a text a point, names at the ends."""
    series = [svg.Series("a & b", [(1, 0.5), (2, 0.7)]), svg.Series("c", [(1, 0.6), (2, 0.6)])]
    chart = _chart(svg.line_chart(series, title="t", x_label="release", y_text="{:g}".format, x_ticks=[1, 2]))
    lines = chart.findall("polyline")
    assert len(lines) == 2
    first = [tuple(map(float, point.split(","))) for point in (lines[0].get("points") or "").split()]
    assert first[0][0] < first[1][0]
    assert first[0][1] > first[1][1]
    assert next(title.text for title in chart.iter("title")) == "a & b, 1: 0.5"
    assert [name.text for name in chart.iter("text") if "name" in (name.get("class") or "")] == ["a & b", "c"]


def test_end_labels_do_not_touch_and_stay_inside() -> None:
    """Names of lines that end together are moved apart, upwards at the floor."""
    series = [svg.Series(str(i), [(0, 0.0), (1, 0.001 * i), (1, 0.0)]) for i in range(6)]
    chart = _chart(svg.line_chart([*series, svg.Series("x", [(0, 1.0)])], title="t", x_label="", y_text=str))
    heights = sorted(float(t.get("y") or 0) for t in chart.iter("text") if "name" in (t.get("class") or ""))
    assert all(b - a >= 12.9 for a, b in itertools.pairwise(heights))
    assert heights[-1] <= 240


def test_columns_stand_on_zero_and_gaps_stay_gaps() -> None:
    """A column twice as high is twice as long; None draws none."""
    columns = [svg.Column("x", [1.0, 2.0], "c0"), svg.Column("y", [None, 2.0], "c1 past")]
    text = svg.column_chart(["g", "h"], columns, title="t", y_text="{:g}".format)
    heights = [float(rect.get("height") or 0) for rect in _chart(text).findall("rect")]
    assert len(heights) == 3
    assert heights[1] == pytest.approx(2 * heights[0], abs=0.2)
    assert '<i class="c1 past"></i>y' in text


def test_parts_of_a_bar_lie_end_to_end() -> None:
    """The second part begins where the first ends; the sum stands behind."""
    text = svg.stacked_rows(["a"], ["p", "q"], [[1.0, 3.0]], title="t", text="{:g}".format)
    one, two = _chart(text).findall("rect")
    assert float(one.get("x") or 0) + float(one.get("width") or 0) == pytest.approx(float(two.get("x") or 0), abs=0.2)
    assert re.search(r">4</text>", text)
    assert "legend" in text
    assert "legend" not in svg.stacked_rows(["a"], ["p"], [[0.0]], title="t", text=str)


def test_without_data_a_chart_says_so() -> None:
    """No points, no columns: a sentence instead of axes."""
    assert "nothing was measured" in svg.line_chart([], title="t", x_label="", y_text=str)
    assert "nothing was measured" in svg.column_chart(["g"], [svg.Column("x", [None], "c0")], title="t", y_text=str)
