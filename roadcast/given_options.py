"""Which options stand on a command line, for commands that refuse what they would pass over without a word."""

from __future__ import annotations

from collections.abc import Iterable

import typer


def given(context: typer.Context) -> list[str]:
    """Names of the parameters that were given, as the command's function calls them."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def flags(names: Iterable[str]) -> str:
    """Such names as they stand on a command line; the argument of `bench` is in capitals."""
    return ", ".join("MODEL" if name == "model" else f"--{name.replace('_', '-')}" for name in names)
