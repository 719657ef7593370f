"""Draws accuracy against the bytes that a device has sent so far, and against rounds; every curve is named beside it.

Owns the picture, no figure. Colours are told apart by people who see fewer of them (Okabe and Ito 2008); methods beyond
these have another stroke. Methods that send nothing are level lines at their last value, for no byte bought it. Bands
reach from the lowest seed to the highest. Methods whose curves are the same share one, and both names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

F8 = npt.NDArray[np.float64]
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
STROKES = ("-", (0, (5, 1.5)), (0, (1, 1.2)))
OURS_COLOUR, OTHERS = "#000000", 0.9
"""Our own curve is black and thick; width of all others, in points."""
GAP = 0.032
"""Least distance of two names, of the panel's height."""
SIZE = 8.0
"""Of all text, in points."""


@dataclass(frozen=True, eq=False)
class Curve:
    """One method: its names, accuracy in percent (seeds, rounds), and bytes that a device has sent (rounds,)."""

    name: str
    values: F8
    sent: F8

    @property
    def mean(self) -> F8:
        """Over the seeds, (rounds,)."""
        return np.asarray(self.values.mean(0))


def curves_of(runs: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[Curve]:
    """The curves of methods' runs over seeds (``curve`` and ``sent`` of each); equal ones as one with both names."""
    found: list[Curve] = []
    for name, each in runs.items():
        values = 100 * np.array([one["curve"] for one in each])
        sent = np.mean([one["sent"] for one in each], axis=0)
        same = [at for at, other in enumerate(found) if _equal(other, values, sent)]
        if same:
            found[same[0]] = Curve(f"{found[same[0]].name}, {name}", values, sent)
        else:
            found.append(Curve(name, values, sent))
    return found


def draw(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path, *, ours: str) -> None:
    """Draw both panels into a file whose suffix says the format."""
    import matplotlib as mpl  # noqa: PLC0415 - only where a plot was asked for
    from matplotlib.figure import Figure  # noqa: PLC0415 - likewise
    from matplotlib.ticker import EngFormatter, MaxNLocator  # noqa: PLC0415 - likewise

    curves = curves_of(runs)
    rounds = max(curve.values.shape[1] for curve in curves)
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "roadcast", "font.size": SIZE}):
        figure = Figure(figsize=(11, 5.2), layout="constrained")
        by_bytes, by_round = figure.subplots(1, 2, sharey=True)
        for axes in (by_bytes, by_round):
            axes.spines[["top", "right"]].set_visible(False)
            axes.grid(axis="y", alpha=0.25, linewidth=0.5)
        seeds = max(len(curve.values) for curve in curves)
        by_bytes.set(xscale="log", xlabel="sent by a device so far", ylabel="accuracy of the shared model, %")
        by_bytes.set_title("by bytes (level, at the left: sends nothing, after the last round)", loc="left")
        told = f"bands: lowest to highest of {seeds} seeds" if seeds > 1 else "one seed"
        by_round.set_title(f"by rounds ({told})", loc="left")
        by_bytes.xaxis.set_major_formatter(EngFormatter(unit="B"))
        by_round.set_xticks([at for at in MaxNLocator(integer=True).tick_values(1, rounds) if 1 <= at <= rounds])
        by_round.set(xlabel="round", xlim=(0.5, rounds * 1.3))
        _draw_all(by_bytes, by_round, curves, ours)
        kept = {"Date": None} if path.suffix == ".svg" else None  # the same figures, the same file
        figure.savefig(path, metadata=kept)


def _draw_all(by_bytes: Any, by_round: Any, curves: Sequence[Curve], ours: str) -> None:  # noqa: ANN401 - Axes are untyped
    rounds = max(curve.values.shape[1] for curve in curves)
    sent = np.concatenate([curve.sent[curve.sent > 0] for curve in curves])
    low, high = (float(sent.min()), float(sent.max())) if len(sent) else (1.0, 10.0)
    left, right, rest = [], [], []
    for at, curve in enumerate(curves):
        style = _style(at, ours=ours in curve.name.split(", "))
        mean = curve.mean
        count = len(mean)
        where = np.arange(rounds - count + 1, rounds + 1)
        by_round.plot(where, mean, marker="" if count > 1 else "o", markersize=3, **style)
        by_round.fill_between(where, curve.values.min(0), curve.values.max(0), color=style["color"], alpha=0.12, lw=0)
        rest.append((float(rounds), float(mean[-1]), curve.name, style["color"]))
        if not curve.sent[-1]:
            by_bytes.axhline(mean[-1], alpha=0.7, **style)
            left.append((low / 6, float(mean[-1]), curve.name, style["color"]))
            continue
        by_bytes.plot(curve.sent, mean, marker=".", markersize=3, **style)
        band = (curve.values.min(0), curve.values.max(0))
        by_bytes.fill_between(curve.sent, *band, color=style["color"], alpha=0.12, lw=0)
        right.append((float(curve.sent[-1]), float(mean[-1]), curve.name, style["color"]))
    by_bytes.set_xlim(low / 12, high * 12)
    _name(by_bytes, left, 1.0)
    for group in _near(right):
        _name(by_bytes, group, 1.5)
    _name(by_round, rest, 1.05)


def _style(at: int, *, ours: bool) -> dict[str, Any]:
    if ours:
        return {"color": OURS_COLOUR, "linewidth": 2.2, "linestyle": "-"}
    stroke = STROKES[at // len(COLOURS) % len(STROKES)]
    return {"color": COLOURS[at % len(COLOURS)], "linewidth": OTHERS, "linestyle": stroke}


def _equal(curve: Curve, values: F8, sent: F8) -> bool:
    same = np.array_equal(curve.sent, sent) and curve.values.shape == values.shape
    return bool(same and np.allclose(curve.values, values))


Ends = list[tuple[float, float, str, str]]


def _near(ends: Ends) -> list[Ends]:
    """Ends of curves, together where names would stand above each other: within a factor of ten of bytes."""
    groups: list[Ends] = []
    for end in sorted(ends):
        if groups and end[0] < 10 * groups[-1][0][0]:
            groups[-1].append(end)
        else:
            groups.append([end])
    return groups


def _name(axes: Any, ends: Ends, ahead: float) -> None:  # noqa: ANN401 - Axes are untyped
    """Write names `ahead` times as far right as the last of these ends, as near to their heights as they go."""
    if not ends:
        return
    ends = sorted(ends, key=lambda end: end[1])
    low, high = axes.get_ylim()
    heights = spaced([end[1] for end in ends], GAP * (high - low))
    beyond = max(end[0] for end in ends)
    for (x, y, name, colour), height in zip(ends, heights, strict=True):
        axes.plot([x, beyond * ahead], [y, height], color=colour, linewidth=0.4)
        box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
        axes.text(beyond * ahead, height, f" {name}", color=colour, verticalalignment="center", bbox=box)


def spaced(heights: Sequence[float], gap: float) -> list[float]:
    """Ascending heights moved apart to at least a gap, with the least sum of squared moves (isotonic regression)."""
    blocks: list[tuple[float, int]] = []
    for at, height in enumerate(heights):
        mean, count = height - at * gap, 1
        while blocks and blocks[-1][0] >= mean:
            before, many = blocks.pop()
            mean, count = (before * many + mean * count) / (many + count), many + count
        blocks.append((mean, count))
    flat = [mean for mean, count in blocks for _ in range(count)]
    return [height + at * gap for at, height in enumerate(flat)]
