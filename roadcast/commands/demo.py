"""``roadcast demo``: a whole fleet on this machine, and the proof that the loop learns."""

from __future__ import annotations

import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from edge_protocol.errors import CheckFailedError, StoreError
from roadcast.output import JsonFlag, emit, stderr

if TYPE_CHECKING:
    from roadcast.demo.outcome import Outcome

app = typer.Typer()


@app.command()
def demo(
    *,
    rounds: Annotated[int, typer.Option(min=1, max=50, help="Rounds of each task after its first release.")] = 3,
    data: Annotated[Path | None, typer.Option(help="Folder of packs; else $ROADCAST_DATA, data/, simulated.")] = None,
    work_dir: Annotated[Path | None, typer.Option(help="Folder for everything that comes into being.")] = None,
    report: Annotated[Path, typer.Option(help="Where to write the report.")] = Path("demo-report.html"),
    seed: Annotated[int, typer.Option(help="Of how the data is dealt out.")] = 7,
    keep: Annotated[bool, typer.Option("--keep", help="Keep the work folder.")] = False,
    json: JsonFlag = False,
) -> None:
    """Run a whole fleet on this machine, and show that the loop learns.

    Leaves with 0 when every device runs a last release that beats the first on held-out data, else with 3.
    """
    from roadcast.demo.conduct import remove
    from roadcast.demo.report import write_report
    from roadcast.demo.summary import summary

    _writable(report.parent, "--report")
    work = Path(tempfile.mkdtemp(prefix="roadcast-demo-")) if work_dir is None else work_dir
    _writable(work, "--work-dir")
    signal.signal(signal.SIGTERM, _leave)
    signal.signal(signal.SIGHUP, _leave)
    outcome = _run(rounds, data, work, seed)
    write_report(report, outcome)
    emit(outcome, json, summary)
    if not outcome.ok:
        raise CheckFailedError("\n".join([*outcome.reasons, f"report: {report}; logs: {work / 'logs'}"]))
    if not keep and work_dir is None:
        remove(work)
    stderr().print(f"report: {report}", markup=False)


def _writable(folder: Path, option: str) -> None:
    """Find out before the minutes that a demo takes, not after them."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise StoreError(f"{option}: {folder} cannot be written: {error.strerror or error}; give another") from error


def _run(rounds: int, data: Path | None, work: Path, seed: int) -> Outcome:
    from roadcast.commands.version import versions
    from roadcast.demo.conduct import Plan, conduct
    from roadcast.demo.live import display_for
    from roadcast.demo.partition import find_data

    with display_for(stderr()) as display:
        display.say(f"work folder: {work}")
        found = find_data(data, work, seed=seed)
        return conduct(Plan(rounds=rounds, work=work, data=found, seed=seed), display, versions())


def _leave(number: int, _: object) -> NoReturn:
    sys.exit(128 + number)
