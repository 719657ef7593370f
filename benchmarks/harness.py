"""What every benchmark shares: arguments, interleaved timing, medians with their spread, targets and the exit code.

Owns no figure. A benchmark is a function from `Options` to `Outcome`; it ends with ``raise SystemExit(run(measure))``,
which also takes the benchmark's own options.
Times are compared inside one run and interleaved, so that a busy machine slows all sides alike.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from edge_protocol.errors import ExitCode, RoadcastError


@dataclass(frozen=True)
class Options:
    """What the command line asked for: `quick` is at most a minute, `check` exits 3 when a target is missed."""

    quick: bool = False
    check: bool = False
    json: Path | None = None


@dataclass(frozen=True)
class Own:
    """An option of one benchmark alone: ``--name`` of the keyword under which `run` gets it, and `measure` its value.

    Attributes:
        default: its value where the command line is silent; False makes it a flag, a whole number a count from 1.
        help: what it is, for ``--help``.
        kind: what reads it, raising `argparse.ArgumentTypeError` for what cannot be; None for the default's own type,
            where `help` has the default added.
    """

    default: object
    help: str
    kind: Callable[[str], object] | None = None

    def join(self, parser: argparse.ArgumentParser, name: str) -> None:
        """Add it to a parser under a name."""
        flag = f"--{name.replace('_', '-')}"
        if self.default is False:
            parser.add_argument(flag, action="store_true", help=self.help)
            return
        kind = self.kind or (count if isinstance(self.default, int) else type(self.default))
        told = "" if self.kind else f" ({self.default})"
        parser.add_argument(flag, type=kind, default=self.default, metavar=name[0].upper(), help=self.help + told)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of repeated measurements, in the unit of the measurements."""

    median: float
    low: float
    high: float
    repeats: int

    def __str__(self) -> str:
        return f"{self.median:.4g} ({self.low:.4g} to {self.high:.4g}, n={self.repeats})"


@dataclass(frozen=True)
class Target:
    """A limit that a figure has to keep."""

    name: str
    value: float
    limit: float
    at_most: bool = True

    @property
    def met(self) -> bool:
        """Whether the figure keeps the limit; NaN never does."""
        return self.value <= self.limit if self.at_most else self.value >= self.limit

    def __str__(self) -> str:
        sign = "at most" if self.at_most else "at least"
        return f"{self.name}: {self.value:.4g} ({sign} {self.limit:g}: {'met' if self.met else 'MISSED'})"


@dataclass(frozen=True)
class Outcome:
    """What a benchmark found.

    Attributes:
        headline: the last line printed.
        figures: everything measured, for the JSON file; `Spread`s are written as objects.
        targets: limits to keep.
        rows: a table for people: the first row names the columns.
    """

    headline: str
    figures: Mapping[str, object]
    targets: Sequence[Target] = ()
    rows: Sequence[Sequence[object]] = field(default=())


def spread(values: Sequence[float]) -> Spread:
    """Summarise repeated measurements."""
    if len(values) == 1:
        return Spread(values[0], values[0], values[0], 1)
    low, median, high = statistics.quantiles(values, n=4, method="inclusive")
    return Spread(median, low, high, len(values))


def interleaved(
    cases: Mapping[str, Callable[[], object]],
    *,
    repeats: int,
    warm_up: int = 2,
    clock: Callable[[], float] | None = None,
) -> dict[str, list[float]]:
    """Time cases in turn, `repeats` times over; return seconds per case, aligned by repeat.

    Divide two of the lists element by element for a ratio that noise of the machine leaves alone (`ratios`).
    """
    clock = clock or time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(-warm_up, repeats):
        for name, case in cases.items():
            begun = clock()
            case()
            if repeat >= 0:
                seconds[name].append(clock() - begun)
    return seconds


def ratios(above: Sequence[float], below: Sequence[float]) -> Spread:
    """Spread of the element-by-element ratio of two interleaved measurements."""
    return spread([a / b for a, b in zip(above, below, strict=True)])


def run(measure: Callable[..., Outcome], arguments: Sequence[str] | None = None, **own: Own) -> int:
    """Parse the arguments, measure, print, write the JSON file and return the exit code; an error's is its own."""
    parser = argparse.ArgumentParser(description=(measure.__doc__ or "").strip().splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer repeats: at most a minute")
    parser.add_argument("--check", action="store_true", help="exit 3 when a target is missed")
    parser.add_argument("--json", type=Path, metavar="OUT", help="write every figure here")
    for name, option in own.items():
        option.join(parser, name)
    asked = vars(parser.parse_args(arguments))
    options = Options(asked.pop("quick"), asked.pop("check"), asked.pop("json"))
    try:
        outcome = measure(options, **asked)
    except RoadcastError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    print_table(outcome.rows)
    for target in outcome.targets:
        print(target)
    if options.json:
        options.json.write_text(json.dumps(_document(outcome), indent=2, allow_nan=False) + "\n")
    print(outcome.headline)
    missed = any(not target.met for target in outcome.targets)
    return ExitCode.CHECK_FAILED if options.check and missed else ExitCode.OK


def print_table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows with aligned columns."""
    cells = [[f"{cell:.4g}" if isinstance(cell, float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def count(text: str) -> int:
    """A whole number from 1, as the command line has it."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 1")
    return int(text)


def _document(outcome: Outcome) -> dict[str, object]:
    """What is written: NaN and infinity, which JSON does not have, become null."""
    machine = {"python": platform.python_version(), "machine": platform.machine(), "cpus": os.cpu_count()}
    targets = [{**asdict(target), "met": target.met} for target in outcome.targets]
    told = {"headline": outcome.headline, "figures": outcome.figures, "targets": targets, "environment": machine}
    plain: dict[str, object] = json.loads(json.dumps(told, default=_plain), parse_constant=lambda _: None)
    return plain


def _plain(value: object) -> object:
    if isinstance(value, Spread):
        return asdict(value)
    return float(value)  # type: ignore[arg-type]  # NumPy scalars
