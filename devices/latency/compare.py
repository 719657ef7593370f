"""Two results against each other, and rules such as ``p99:+10%`` that may fail; owns no file."""

from __future__ import annotations

import re

import msgspec

from devices.latency.bounds import PERCENTILES
from devices.latency.result import STAGES, Result
from edge_protocol.errors import ConfigError

_RULE = re.compile(r"(?P<figure>[\w.]+):(?P<limit>[+-]\d+(?:\.\d+)?)%")
_PERCENTILES = {f"p{percentile:g}": percentile for percentile in PERCENTILES}
_FROM_NOTHING = "is 0 in the first, so no change of it can be judged: measure the first again, for longer"
FIGURES = (*_PERCENTILES, "mean", "cpu", "memory", "energy", "throughput")
"""What can be compared: latencies, mean CPU time of a query, peak memory, energy per sample, samples per second."""


class Rule(msgspec.Struct, frozen=True):
    """A figure may not change by more than `limit`: above it when positive, below it when negative (0.1: a tenth)."""

    figure: str
    limit: float

    def __str__(self) -> str:
        return f"{self.figure}:{self.limit:+.6g}"


class Row(msgspec.Struct, frozen=True):
    """One figure of both results; None: not measured.

    Attributes:
        change: of the second relative to the first; None: not measured in both, or 0 in the first.
        broken: why a rule is broken or cannot be judged; empty: it is not.
    """

    figure: str
    first: float | None
    second: float | None
    change: float | None
    broken: str = ""


def parse_rule(text: str) -> Rule:
    """Read ``p99:+10%`` or ``throughput:-5%``.

    Raises:
        ConfigError: it is neither.
    """
    match = _RULE.fullmatch(text)
    if match is None or match["figure"] not in FIGURES:
        raise ConfigError(f"--fail-on {text!r}: write FIGURE:+10% or FIGURE:-10%, FIGURE one of {', '.join(FIGURES)}")
    return Rule(match["figure"], float(match["limit"]) / 100)


def differences(first: Result, second: Result) -> list[str]:
    """What else than the figures differs, for people; other weights of the same model are no difference."""

    def facts(result: Result) -> dict[str, str]:
        subject = result.subject
        return {
            "model": subject.model,
            "stages": ", ".join(sorted(result.stages)),
            "graph": subject.sha256[:12],
            "precision": subject.precision,
            "runner": subject.runner,
            "provider that ran": ", ".join(sorted(subject.providers)),
            "threads": str(subject.threads),
            "board": f"{subject.board}, cores: {subject.cores}",
            "software": subject.software,
            "power mode": result.power_mode or "not measured",
        }

    pairs = zip(facts(first).items(), facts(second).values(), strict=True)
    return [f"{name}: {one} / {other}" for (name, one), other in pairs if one != other]


def compare(first: Result, second: Result, rules: tuple[Rule, ...] = (), *, across: bool = False) -> list[Row]:
    """Set every figure of two results side by side and hold the rules against them.

    A percentile without a bound in either result, or a figure that was not measured, breaks its rule: a gate that
    cannot judge must not pass. Nor does one that would judge two models, or whole ways of other stages. Boards, runners
    and precisions may differ: to choose between them is what results are compared for (see `differences`).

    Args:
        first: before.
        second: after.
        rules: what may not change by how much.
        across: judge other models and other stages too.

    Raises:
        ConfigError: the results are of different scenarios or query sizes, so their latencies mean different things.
    """
    if (first.scenario, first.samples) != (second.scenario, second.samples):
        raise ConfigError(
            f"{first.scenario} with {first.samples} samples a query and {second.scenario} with {second.samples} "
            "cannot be compared: measure both in the same way"
        )
    unlike = "" if across else _unlike(first, second)
    return [
        _row(figure, first, second, [rule for rule in rules if rule.figure == figure], unlike) for figure in FIGURES
    ]


def _unlike(first: Result, second: Result) -> str:
    """Why no figure can be judged."""
    found = []
    if first.subject.model != second.subject.model:
        found.append(f"of two models, {first.subject.model} and {second.subject.model}")
    ways = [", ".join(stage for stage in STAGES if stage in result.stages) for result in (first, second)]
    if ways[0] != ways[1]:
        found.append(f"of other stages, {ways[0]} and {ways[1]}")
    return " and ".join(found)


def _row(figure: str, first: Result, second: Result, rules: list[Rule], unlike: str) -> Row:
    before, after = _value(figure, first), _value(figure, second)
    change = after / before - 1 if before and after is not None else None
    if unlike:
        reason = f"cannot be judged, being {unlike}: say --across if that is meant"
    else:
        reason = "was not measured in both" if before is None or after is None else _FROM_NOTHING
    judged = None if unlike else change
    broken = "; ".join(text for rule in rules if (text := _broken(rule, judged, reason, (first, second))))
    return Row(figure, before, after, change, broken)


def _broken(rule: Rule, change: float | None, reason: str, results: tuple[Result, Result]) -> str:
    """Why a rule is broken; `reason`: why there is no change to be judged."""
    if change is None:
        return f"{rule.figure} {reason}"
    if rule.figure in _PERCENTILES:
        found = [result.latency.at(_PERCENTILES[rule.figure]) for result in results]
        if any(one.bound_ms is None for one in found):
            return f"{rule.figure} needs {found[0].needs} queries in both to be judged"
    worse = change > rule.limit if rule.limit >= 0 else change < rule.limit
    return f"{rule.figure} changed by {change:+.1%}, allowed {rule.limit:+.1%}" if worse else ""


def _value(figure: str, result: Result) -> float | None:
    if figure in _PERCENTILES:
        return result.latency.at(_PERCENTILES[figure]).ms
    others = {
        "mean": result.latency.mean_ms,
        "cpu": result.cpu.mean_ms,
        "memory": result.peak_mb,
        "energy": result.energy_mj_per_sample,
        "throughput": result.samples_per_s,
    }
    return others[figure]
