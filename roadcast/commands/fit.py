"""``roadcast devices fit``: which student, precision and runner a board should serve a task with."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from edge_protocol.errors import CheckFailedError, ConfigError
from roadcast.output import JsonFlag, emit, progress, table

if TYPE_CHECKING:
    from devices.latency.fit import Budgets, Candidate
    from edge_protocol.task import TaskSpec


def fit(
    task: Annotated[str, typer.Argument(help="Task name, or a YAML file.")],
    *,
    models: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="A folder per tier, as 'release push' takes it; else exported here."),
    ] = None,
    results: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="Of 'bench run --json', on another board; repeat.")
    ] = None,
    site: Annotated[Path | None, typer.Option("--site", "-s", help="The site's YAML, for its budgets.")] = None,
    max_latency_p95: Annotated[str | None, typer.Option(metavar="40ms", help="Of one sample.")] = None,
    max_memory: Annotated[str | None, typer.Option(metavar="500MB", help="Of the process, at its peak.")] = None,
    max_power: Annotated[str | None, typer.Option(metavar="7W", help="Mean, while it answers without a pause.")] = None,
    seconds: Annotated[float, typer.Option(min=0.1, help="Measured at least, of each way to serve.")] = 5.0,
    threads: Annotated[int, typer.Option(min=1, help="That one inference may use.")] = 1,
    json: JsonFlag = False,
) -> None:
    """Measure every way to serve a task here, and choose: the largest student within the budgets, as fast as it gets.

    Exit 3 when none fits. A budget for what this board does not measure lets nothing fit.
    """
    from edge_models.tasks import load_task

    if models and results:
        raise ConfigError("devices fit: give either --models, to be measured here, or --results of another board")
    spec = load_task(task)
    budgets = _budgets(site, max_latency_p95, max_memory, max_power)
    found = _judged(spec, budgets, models, results or [], seconds, threads)
    emit(found, json, _shown)
    if found["choice"] is None:
        raise CheckFailedError(
            f"no way to serve {spec.name!r} on {found['board']} fits: raise a budget, or see why above"
        )


def _judged(
    spec: TaskSpec, budgets: Budgets, models: Path | None, results: list[Path], seconds: float, threads: int
) -> dict[str, Any]:
    from devices.latency.fit import choose, judge, one_board
    from devices.latency.result import Result, read_result
    from roadcast.bench.candidates import export_here, measured

    with TemporaryDirectory(prefix="roadcast-fit-") as name:
        work = Path(name)
        if results:
            told: list[Result | Candidate] = [read_result(path) for path in results]
        else:
            if models is None:
                export_here(spec, work, progress)
            told = measured(spec, models or work, seconds=seconds, threads=threads, say=progress, work=work)
    measured_ones = [one for one in told if isinstance(one, Result)]
    board = one_board(measured_ones) if measured_ones or results else "this machine"
    candidates = [judge(one, spec, budgets) if isinstance(one, Result) else one for one in told]
    choice = choose(candidates)
    return {
        "task": spec.name,
        "board": board,
        "budgets": msgspec.to_builtins(budgets),
        "candidates": [msgspec.to_builtins(one) for one in candidates],
        "choice": None if choice is None else msgspec.to_builtins(choice),
        "settings": None if choice is None else choice.settings,
    }


def _budgets(site: Path | None, latency: str | None, memory: str | None, power: str | None) -> Budgets:
    """The site's budgets, with those of the command line in their place."""
    from devices.latency.fit import Budgets, parse_budget
    from roadcast.site_files import read_site

    found = read_site(site).site.budgets if site else Budgets()
    given = {
        "latency_p95_ms": latency and parse_budget("latency_p95_ms", latency),
        "memory_mb": memory and parse_budget("memory_mb", memory),
        "power_w": power and parse_budget("power_w", power),
    }
    return msgspec.structs.replace(found, **{name: value for name, value in given.items() if value is not None})


def _shown(found: dict[str, Any]) -> Any:  # noqa: ANN401 - rich's renderable, loaded only when drawn
    from rich.console import Group

    def figure(one: dict[str, Any], name: str, unit: str) -> str | None:
        return None if one[name] is None else f"{one[name]:.4g} {unit}"

    rows = [
        (
            one["tier"],
            one["student"],
            one["precision"],
            one["runner"],
            figure(one, "latency_p95_ms", "ms"),
            figure(one, "memory_mb", "MB"),
            figure(one, "power_w", "W"),
            "chosen" if one == found["choice"] else "; ".join(one["rejected"]) or "fits",
        )
        for one in found["candidates"]
    ]
    columns = ("tier", "student", "precision", "runner", "p95 at most", "peak memory", "power", "verdict")
    drawn = table(f"{found['task']} on {found['board']}", columns, rows)
    choice = found["choice"]
    if choice is None:
        return drawn
    said = ", ".join(f"{name}: {value}" for name, value in found["settings"].items())
    lines = [f"for the device's configuration: {said}", *(f"remark: {text}" for text in choice["remarks"])]
    return "\n".join([drawn, *lines]) if isinstance(drawn, str) else Group(drawn, *lines)
