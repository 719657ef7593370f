"""A command group whose commands are imported only when they run: keeps ``roadcast --help`` fast. Owns no command."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command, get_group


@dataclass(frozen=True, slots=True)
class Entry:
    """One command or group below the root.

    Attributes:
        module: holds the command as ``app``, a `typer.Typer`.
        help: the line that ``--help`` shows without importing the module.
        group: whether ``app`` holds subcommands; False for a single command.
    """

    module: str
    help: str
    group: bool


class LazyGroup(TyperGroup):
    """Shows its entries from their one-line helps, and imports one when it is invoked or completed."""

    entries: dict[str, Entry]

    def __init__(self, **settings: Any) -> None:  # noqa: ANN401  # whatever this version of typer passes on
        super().__init__(**settings)
        for name, entry in self.entries.items():
            self.add_command(TyperCommand(name=name, help=entry.help))

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:  # noqa: ANN401  # click's types move between versions of typer
        """Find the command that `args` begin with, and import it."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, None if name is None else self.load(name), rest

    def load(self, name: str) -> Any:  # noqa: ANN401  # see resolve_command
        """Import the real command."""
        entry = self.entries[name]
        app: typer.Typer = import_module(entry.module).app
        app._add_completion = False  # noqa: SLF001  # only the root installs completion; typer has no setter
        command = (get_group if entry.group else get_command)(app)
        command.name = name
        return command
