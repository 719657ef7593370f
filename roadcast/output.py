"""What a command says: results on stdout, progress and warnings on stderr. Owns no result.

A table goes to a terminal drawn, to a pipe as its title and tab-separated lines, with ``--json`` as JSON. Progress is
shown to a terminal only. ``NO_COLOR`` is obeyed.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

T = TypeVar("T")
JsonFlag = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
"""The ``--json`` option of every command: ``json: JsonFlag = False``."""


def stdout() -> Console:
    """Make a console for results."""
    from rich.console import Console

    return Console(highlight=False, soft_wrap=not sys.stdout.isatty())


def stderr() -> Console:
    """Make a console for progress, warnings and errors."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=not sys.stderr.isatty())


def emit(data: T, as_json: bool, render: Callable[[T], RenderableType]) -> None:  # noqa: FBT001  # the value of --json
    """Print a command's result.

    Args:
        data: the result: whatever msgspec encodes (structs, dataclasses, dicts, lists, numbers, text).
        as_json: print JSON instead of what `render` makes of it.
        render: makes text or a rich renderable (see `table`) of the data.
    """
    if as_json:
        import msgspec

        sys.stdout.write(msgspec.json.format(msgspec.json.encode(data)).decode() + "\n")
        return
    shown = render(data)
    if isinstance(shown, str):
        sys.stdout.write(printable(shown) + "\n")
    else:
        stdout().print(shown)


def follow(
    look: Callable[[], T],
    draw: Callable[[T], RenderableType],
    line: Callable[[T], str],
    *,
    every_s: float,
    as_json: bool,
    ended: Callable[[T], bool] = lambda _: False,
) -> None:
    """Show something until it ends: redrawn in a terminal; elsewhere a line, or JSON, whenever it has changed.

    Args:
        look: finds how things stand now.
        draw: makes a table of that.
        line: makes a line of it.
        every_s: seconds between two looks.
        as_json: print JSON instead of what `line` makes.
        ended: whether this was the last thing to show.
    """
    found = look()
    if not as_json and sys.stdout.isatty():
        from rich.live import Live

        with Live(draw(found), console=stdout(), auto_refresh=False) as live:
            while not ended(found):
                time.sleep(every_s)
                found = look()
                live.update(draw(found), refresh=True)
        return
    emit(found, as_json, line)
    while not ended(found):
        sys.stdout.flush()
        time.sleep(every_s)
        found, before = look(), found
        if found != before:
            emit(found, as_json, line)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> RenderableType:
    """Lay rows out: drawn for a terminal; for a pipe the title, if any, then tab-separated lines, the header first.

    None shows as a dash.
    """
    cells = [["-" if cell is None else str(cell) for cell in row] for row in rows]
    if not sys.stdout.isatty():
        lines = ["\t".join(map(_in_a_line, line)) for line in [columns, *cells]]
        return "\n".join([*filter(None, [_in_a_line(title)]), *lines])
    from rich import box
    from rich.table import Table

    drawn = Table(*columns, title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for line in cells:
        drawn.add_row(*map(plain, line))
    return drawn


def _in_a_line(text: str) -> str:
    """What a device or an operator wrote must not pass for another cell or line."""
    return printable(text, but="")


def printable(text: str, but: str = "\n\t") -> str:
    """Keep what a device wrote from steering the terminal: other characters that cannot be seen become blanks."""
    return "".join(each if each.isprintable() or each in but else " " for each in text)


def progress(text: str) -> None:
    """Say what is going on, on stderr, when somebody watches; silent in a pipe."""
    if sys.stderr.isatty():
        stderr().print(printable(text), markup=False)


def warn(text: str) -> None:
    """Say on stderr what the user should know although the command goes on."""
    stderr().print(f"[yellow]warning:[/] {plain(text)}")


def log_to_stderr(*, verbose: bool = False) -> None:
    """Send log records of a long-running command to stderr, one line each."""
    logging.basicConfig(
        level=logging.DEBUG if verbose else logging.INFO,
        format="%(asctime)s %(levelname)-7s %(name)s %(message)s",
        stream=sys.stderr,
        force=True,
    )


@contextmanager
def stop_signals() -> Iterator[threading.Event]:
    """Turn SIGINT and SIGTERM into an event for a while."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def plain(text: str) -> str:
    """Keep rich from reading markup into a text, and a terminal commands."""
    from rich.markup import escape

    return escape(printable(text))
