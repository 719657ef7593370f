"""Which student, precision and runner fit a board: measured results against budgets. Pure: measures nothing itself."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from devices.latency.result import Result
from edge_protocol.errors import ConfigError
from edge_protocol.task import TIERS, TaskSpec, Tier

PERCENTILE = 95
UNITS: Mapping[str, Mapping[str, float]] = {
    "latency_p95_ms": {"us": 1e-3, "ms": 1.0, "s": 1e3},
    "memory_mb": {"kB": 1e-3, "MB": 1.0, "GB": 1e3, "KiB": 1.024e-3, "MiB": 1.048576, "GiB": 1073.741824},
    "power_w": {"mW": 1e-3, "W": 1.0},
}
"""Budget → unit → how many of the budget's own unit it is."""
SERVING: Mapping[str, str] = {"ort": "onnxruntime", "trt": "tensorrt"}
"""Runner that was measured → what a device's configuration calls it; a device serves with no other."""
_QUANTITY = re.compile(r"([0-9]{1,12}(?:\.[0-9]{1,12})?) ?([A-Za-z]{1,3})")
Limit = Annotated[float, Meta(gt=0)] | None


class Budgets(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What serving may cost; None: it does not matter.

    Attributes:
        latency_p95_ms: of one sample, milliseconds, with 99 % confidence.
        memory_mb: peak of resident memory of the process that serves, MB (10^6 bytes).
        power_w: mean draw while samples are answered without a pause: the board's, or its processor's where only that
            is measured.
    """

    latency_p95_ms: Limit = None
    memory_mb: Limit = None
    power_w: Limit = None


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A way to serve a task on a board.

    Attributes:
        tier, student: which student.
        precision: of its artifact: ``fp32`` is the plain one, else the variant's name.
        runner: ``ort`` or ``trt``.
        latency_p95_ms, memory_mb, power_w: as in `Budgets`; None: not measured.
        rejected: why it does not fit; empty: it does.
        remarks: why its figures are to be taken with care.
    """

    tier: str
    student: str
    precision: str
    runner: str
    latency_p95_ms: float | None = None
    memory_mb: float | None = None
    power_w: float | None = None
    rejected: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()

    @property
    def settings(self) -> dict[str, str]:
        """What the device's configuration has to say."""
        precision = "plain" if self.precision == "fp32" else "int8"
        return {"tier": self.tier, "precision": precision, "runner": SERVING[self.runner]}


def parse_budget(budget: Literal["latency_p95_ms", "memory_mb", "power_w"], text: str) -> float:
    """Read a budget such as ``40ms``, ``500MB`` or ``7W``.

    Raises:
        ConfigError: no number with a unit, or not above 0.
    """
    found, units = _QUANTITY.fullmatch(text.strip()), UNITS[budget]
    if found is None or found[2] not in units or not float(found[1]) > 0:
        raise ConfigError(
            f"budget {text!r}: write a number above 0 and one of {', '.join(units)}, such as 40{min(units)}"
        )
    return float(found[1]) * units[found[2]]


def judge(result: Result, spec: TaskSpec, budgets: Budgets) -> Candidate:
    """Compare a result of ``roadcast bench run`` with budgets; what was not measured keeps no budget."""
    task, tier, student = (*result.subject.model.split(" "), "", "", "")[:3]
    latency = result.latency.at(PERCENTILE)
    found = Candidate(
        tier=tier,
        student=student,
        precision=result.subject.precision,
        runner=result.subject.runner,
        latency_p95_ms=latency.bound_ms,
        memory_mb=result.peak_mb,
        power_w=result.watts,
        remarks=result.remarks,
    )
    if task != spec.name or spec.students.get(tier) != student:  # type: ignore[call-overload]  # any text
        return _rejected(found, [f"measured {result.subject.model!r}, which is no student of task {spec.name!r}"])
    if found.runner not in SERVING:
        return _rejected(found, [f"measured with {found.runner}, which no device serves with"])
    if result.scenario != "single-stream" or result.samples != 1:
        return _rejected(
            found, [f"measured as {result.scenario} with {result.samples} samples a query, not one by one"]
        )
    return _rejected(found, [*_over(found, budgets, latency.needs)])


def _over(found: Candidate, budgets: Budgets, needs: int) -> Iterable[str]:
    asked = {
        "latency_p95_ms": ("p95", "ms", f"too few queries: a bound needs {needs}"),
        "memory_mb": ("memory", "MB", "not measured"),
        "power_w": ("power", "W", "not measured on this board"),
    }
    for name, (title, unit, unknown) in asked.items():
        limit, value = getattr(budgets, name), getattr(found, name)
        if limit is not None and value is None:
            yield f"{title} {unknown}"
        elif limit is not None and not value <= limit:
            yield f"{title} {value:.4g} {unit}, at most {limit:.4g}"


def choose(candidates: Iterable[Candidate]) -> Candidate | None:
    """Of those that fit the largest student's, of these the fastest; None when none fits."""
    fitting = [one for one in candidates if not one.rejected]
    return min(fitting, key=_preference, default=None)


def one_board(results: Iterable[Result]) -> str:
    """The board that all results are of.

    Raises:
        ConfigError: they are of several, or there is none.
    """
    boards = sorted({result.subject.board for result in results})
    if len(boards) != 1:
        raise ConfigError(f"results of {len(boards)} boards ({', '.join(boards)}): give those of one")
    return boards[0]


def _preference(one: Candidate) -> tuple[int, float, str, str]:
    rank = {tier: -at for at, tier in enumerate(TIERS)}
    slowest = float("inf") if one.latency_p95_ms is None else one.latency_p95_ms
    return rank[_tier(one.tier)], slowest, one.precision, one.runner


def _tier(name: str) -> Tier:
    return next(tier for tier in TIERS if tier == name)


def _rejected(found: Candidate, reasons: list[str]) -> Candidate:
    return msgspec.structs.replace(found, rejected=tuple(reasons))
