"""Shows the fleet while the demo runs: a table on a terminal, one line per event elsewhere. Owns no picture of it."""

from __future__ import annotations

from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from typing_extensions import Self

from roadcast.demo.observer import DeviceView, Observer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

_KILO = 1024
_RUNNING = "devices learn, report, and take what the server distils; Ctrl-C ends every process"
_ENDS = {"committed", "rejected", "failed", "rolled-back"}
_COLUMNS = ("device", "tier", "student", "state", "release", "own score", "p50 ms", "p95 ms", "up", "down")


class Display(Protocol):
    """Where the demo says what it is doing."""

    def say(self, text: str) -> None:
        """Name what happens now."""
        ...

    def show(self, observer: Observer, at_s: float) -> None:
        """Show the fleet as it is `at_s` seconds after the start."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


class Lines:
    """One line for each thing that changes: for logs and pipes."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last: dict[str, str] = {}

    def say(self, text: str) -> None:
        """Print the line."""
        self._console.print(text, markup=False)

    def show(self, observer: Observer, at_s: float) -> None:
        """Print what changed since the last time."""
        now = {task: round_line(observer, task) for task in sorted(observer.tasks)}
        now |= {v.name: _deployed(v) for v in observer.devices.values() if v.deployment.partition(":")[0] in _ENDS}
        for name, line in now.items():
            if self._last.get(name) != line:
                self.say(f"{at_s:5.0f} s  {line}")
        self._last |= now

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return


class Screen:
    """A table that stays in place, for a terminal."""

    def __init__(self, console: Console) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._doing = ""
        self._console = console

    def say(self, text: str) -> None:
        """Put the line under the table."""
        self._doing = text
        self._live.update(self._text(text), refresh=True)

    def show(self, observer: Observer, at_s: float) -> None:
        """Draw the table anew."""
        doing = _RUNNING if any(task.release for task in observer.tasks.values()) else self._doing
        self._live.update(fleet_table(observer, at_s, doing), refresh=True)

    def __enter__(self) -> Self:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    @staticmethod
    def _text(text: str) -> RenderableType:
        from rich.text import Text

        return Text(text, style="dim")


def display_for(console: Console) -> Display:
    """A table for a terminal, lines for anything else."""
    return Screen(console) if console.is_terminal else Lines(console)


def fleet_table(observer: Observer, at_s: float, doing: str) -> RenderableType:
    """The fleet as a table: one line a device, rounds in the title."""
    from rich import box
    from rich.table import Table

    rounds = "   ".join(round_line(observer, task) for task in sorted(observer.tasks))
    title = f"[bold]roadcast demo[/]  {at_s:.0f} s   {rounds}"
    table = Table(title=title, title_justify="left", caption=doing, caption_justify="left", box=box.SIMPLE_HEAD)
    for name in _COLUMNS:
        table.add_column(name, justify="left" if name in _COLUMNS[:4] else "right", no_wrap=True)
    for name in sorted(observer.devices):
        view = observer.devices[name]
        table.add_row(*_cells(view), style="" if view.online else "dim")
    return table


def round_line(observer: Observer, task: str) -> str:
    """Where a task stands: its release, its round."""
    view = observer.tasks[task]
    doing = f"round {view.round} {'takes reports' if view.collecting else 'closed'}" if view.round else "no round yet"
    return f"{task}: release {view.release or '-'}, {doing}"


def own_score(view: DeviceView) -> str:
    """The score that the device measured itself, with its own head: a share in per cent, an error by its name."""
    for name, value in view.values.items():
        if name.startswith("personal_"):
            headline = name.removeprefix("personal_")
            return f"{100 * value:.1f} %" if headline == "accuracy" else f"{headline} {value:.2f}"
    return "-"


def amount(count: int) -> str:
    """Bytes for people."""
    if count < _KILO:
        return f"{count} B"
    return f"{count / _KILO:.0f} KiB" if count < _KILO**2 else f"{count / _KILO**2:.1f} MiB"


def _deployed(view: DeviceView) -> str:
    done = view.deployment == "committed"
    return f"{view.name}: runs release {view.release}" + ("" if done else f", newer one {view.deployment}")


def _cells(view: DeviceView) -> tuple[str, ...]:
    busy = view.deployment if view.deployment and view.deployment != "committed" else view.session
    p50, p95 = (view.values.get(f"latency_{p}_ms") for p in ("p50", "p95"))
    return (
        view.name,
        view.tier or "-",
        view.student or "-",
        (busy or "-") if view.online else "offline",
        str(view.release or "-"),
        own_score(view),
        "-" if p50 is None else f"{p50:.1f}",
        "-" if p95 is None else f"{p95:.1f}",
        amount(view.counts.get("bytes_up", 0)),
        amount(view.counts.get("bytes_down", 0)),
    )
