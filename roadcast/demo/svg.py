"""Small charts as SVG text: lines, grouped columns, stacked bars. Colours are CSS classes; owns no data and no page."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

Text = Callable[[float], str]
_WIDTH, _HEIGHT = 560, 280
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 96, 14, 40
_LABEL_GAP = 13
_COLOURS = 8
_ROW, _LETTER = 26, 7


@dataclass(frozen=True)
class Series:
    """Points of one line: (x, y), in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Column:
    """One column in each group: its name, its value in each group, and its colour as CSS classes."""

    name: str
    values: Sequence[float | None]
    colour: str


@dataclass(frozen=True)
class Axes:
    """A plotting area: maps data to pixels.

    Attributes:
        x, y: (lowest, highest) of the data shown.
        right: pixels right of the area, for names at the ends of lines.
    """

    x: tuple[float, float]
    y: tuple[float, float]
    width: int = _WIDTH
    height: int = _HEIGHT
    right: int = _RIGHT

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Pixel of a data point."""
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        inner_width, inner_height = self.width - _LEFT - self.right, self.height - _TOP - _BOTTOM
        return _LEFT + across * inner_width, self.height - _BOTTOM - up * inner_height


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers that cover low to high: steps of 1, 2 or 5 times a power of ten."""
    span = (high - low) or abs(high) or 1.0
    raw = span / about
    power = 10.0 ** floor(log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first, last = floor(low / step + 1e-9), ceil(high / step - 1e-9)
    return [round(number * step, 12) for number in range(first, max(last, first + 1) + 1)]


def line_chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_text: Text,
    x_ticks: Sequence[float] | None = None,
    x_text: Text = "{:g}".format,
    dots: bool = True,
) -> str:
    """Lines with their names at their ends."""
    xs = [x for one in series for x, _ in one.points]
    ys = [y for one in series for _, y in one.points]
    if not xs:
        return _empty(title)
    y_ticks = ticks(min(ys), max(ys))
    x_ticks = list(x_ticks) if x_ticks is not None else ticks(min(xs), max(xs))
    axes = Axes((min([*xs, x_ticks[0]]), max([*xs, x_ticks[-1]])), (y_ticks[0], y_ticks[-1]))
    parts = [*_frame(axes, y_ticks, y_text), *_x_axis(axes, x_ticks, x_text, x_label)]
    for number, one in enumerate(series):
        pixels = [axes.at(x, y) for x, y in one.points]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in pixels)
        parts.append(f'<polyline class="line c{number % _COLOURS}" points="{path}"/>')
        if dots:
            parts += [
                f'<circle class="dot c{number % _COLOURS}" cx="{px:.1f}" cy="{py:.1f}" r="4">'
                f"<title>{escape(one.name)}, {x_text(x)}: {y_text(y)}</title></circle>"
                for (px, py), (x, y) in zip(pixels, one.points, strict=True)
            ]
    ends = [(axes.at(*one.points[-1]), number, one.name) for number, one in enumerate(series) if one.points]
    return _svg(axes, title, [*parts, *_end_labels(ends, axes.height - _BOTTOM)])


def column_chart(groups: Sequence[str], series: Sequence[Column], *, title: str, y_text: Text) -> str:
    """Columns side by side for each group, from zero; None leaves a gap."""
    values = [value for column in series for value in column.values if value is not None]
    if not values:
        return _empty(title)
    y_ticks = ticks(0, max(values))
    axes = Axes((0, len(groups)), (0, y_ticks[-1]), right=8)
    parts = _frame(axes, y_ticks, y_text)
    room = (axes.at(1, 0)[0] - axes.at(0, 0)[0]) * 0.8
    width = room / len(series)
    for at, group in enumerate(groups):
        centre, floor_y = axes.at(at + 0.5, 0)
        parts.append(f'<text class="tick middle" x="{centre:.1f}" y="{floor_y + 18:.1f}">{escape(group)}</text>')
        for number, column in enumerate(series):
            value = column.values[at]
            if value is None:
                continue
            left, top = centre - room / 2 + number * width, axes.at(0, value)[1]
            parts.append(
                f'<rect class="fill {column.colour}" x="{left + 1:.1f}" y="{top:.1f}" width="{width - 2:.1f}" '
                f'height="{floor_y - top:.1f}" rx="2">'
                f"<title>{escape(group)}, {escape(column.name)}: {y_text(value)}</title></rect>"
            )
    return _svg(axes, title, parts) + legend([column.name for column in series], [column.colour for column in series])


def stacked_rows(
    rows: Sequence[str], parts_of: Sequence[str], values: Sequence[Sequence[float]], *, title: str, text: Text
) -> str:
    """One bar a row, in parts laid end to end, its sum behind it.

    Args:
        rows: names of the bars.
        parts_of: names of the parts.
        values: by row, then by part; none negative.
        title: for people who cannot see it.
        text: a value for people.
    """
    left = 16 + _LETTER * max((len(row) for row in rows), default=0)
    longest = max((sum(row) for row in values), default=0.0) or 1.0
    room = _WIDTH - left - _RIGHT
    found: list[str] = []
    for at, (name, row) in enumerate(zip(rows, values, strict=True)):
        y, x = _TOP + _ROW * at, float(left)
        found.append(f'<text class="tick end" x="{left - 8}" y="{y + 13}">{escape(name)}</text>')
        for number, value in enumerate(row):
            width = room * value / longest
            found.append(
                f'<rect class="fill c{number % _COLOURS}" x="{x:.1f}" y="{y}" width="{width:.1f}" height="18">'
                f"<title>{escape(name)}, {escape(parts_of[number])}: {text(value)}</title></rect>"
            )
            x += width
        found.append(f'<text class="tick" x="{x + 6:.1f}" y="{y + 13}">{text(sum(row))}</text>')
    chart = _svg(Axes((0, 1), (0, 1), height=_ROW * len(rows) + _TOP + 8), title, found)
    return chart + legend(parts_of) if len(parts_of) > 1 else chart


def legend(names: Sequence[str], colours: Sequence[str] | None = None) -> str:
    """Names beside their colours, as HTML."""
    colours = colours or [f"c{number % _COLOURS}" for number in range(len(names))]
    keys = (f'<span><i class="{colour}"></i>{escape(name)}</span>' for name, colour in zip(names, colours, strict=True))
    return f'<p class="legend">{"".join(keys)}</p>'


def _frame(axes: Axes, y_ticks: Sequence[float], y_text: Text) -> list[str]:
    right = axes.at(axes.x[1], 0)[0]
    found = []
    for value in y_ticks:
        y = axes.at(axes.x[0], value)[1]
        found.append(f'<line class="grid" x1="{_LEFT}" x2="{right:.1f}" y1="{y:.1f}" y2="{y:.1f}"/>')
        found.append(f'<text class="tick end" x="{_LEFT - 8}" y="{y + 4:.1f}">{y_text(value)}</text>')
    return found


def _x_axis(axes: Axes, x_ticks: Sequence[float], x_text: Text, label: str) -> Iterator[str]:
    for value in x_ticks:
        x, y = axes.at(value, axes.y[0])
        yield f'<text class="tick middle" x="{x:.1f}" y="{y + 18:.1f}">{x_text(value)}</text>'
    middle = axes.at((axes.x[0] + axes.x[1]) / 2, axes.y[0])[0]
    yield f'<text class="label middle" x="{middle:.1f}" y="{axes.height - 6}">{escape(label)}</text>'


def _end_labels(ends: Sequence[tuple[tuple[float, float], int, str]], lowest: float) -> Iterator[str]:
    """Names at the ends of lines, moved apart where they would touch, none below `lowest`."""
    ordered = sorted(ends, key=lambda end: end[0][1])
    heights: list[float] = []
    for (_, y), _, _ in ordered:
        heights.append(max(y + 4, heights[-1] + _LABEL_GAP if heights else 0.0))
    limit = lowest
    for at in reversed(range(len(heights))):
        heights[at] = min(heights[at], limit)
        limit = heights[at] - _LABEL_GAP
    for ((x, _), number, name), height in zip(ordered, heights, strict=True):
        yield f'<text class="name c{number % _COLOURS}" x="{x + 9:.1f}" y="{height:.1f}">{escape(name)}</text>'


def _svg(axes: Axes, title: str, parts: Sequence[str]) -> str:
    body = "\n".join(parts)
    return f'<svg viewBox="0 0 {axes.width} {axes.height}" role="img" aria-label="{escape(title)}">\n{body}\n</svg>'


def _empty(title: str) -> str:
    return f'<p class="empty">{escape(title)}: nothing was measured.</p>'
