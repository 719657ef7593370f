"""The root command: help, completion, lazy imports, start-up time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib import import_module

import pytest
from typer.testing import CliRunner

from roadcast.cli import Root, app
from roadcast.lazy import Entry

HEAVY = (
    "torch",
    "onnx",
    "onnxscript",
    "onnxruntime",
    "cv2",
    "numpy",
    "sqlalchemy",
    "alembic",
    "matplotlib",
    "paho",
    "msgspec",
)


def _roadcast(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "roadcast", *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize("name", Root.entries)
def test_each_command_has_help(name: str) -> None:
    """Every entry's module is there, is what its entry says, and explains itself."""
    entry = Root.entries[name]
    result = CliRunner().invoke(app, [name, "--help"])
    assert result.exit_code == 0, result.output
    assert ("COMMAND" in result.output) is entry.group
    assert import_module(entry.module).app is not None


@pytest.mark.parametrize("name", [name for name, entry in Root.entries.items() if entry.group])
def test_each_subcommand_speaks_json(name: str) -> None:
    """Each subcommand takes --json, and its help says what it does."""
    group = import_module(Root.entries[name].module).app
    for command in group.registered_commands:
        called = command.name or command.callback.__name__.replace("_", "-")
        result = CliRunner().invoke(app, [name, called, "--help"])
        assert result.exit_code == 0, result.output
        assert "--json" in result.output, f"roadcast {name} {called}"


def test_root_help_names_every_command() -> None:
    """--help lists the commands with their one-line helps."""
    shown = CliRunner().invoke(app, ["--help"]).output
    assert all(name in shown and entry.help[:30] in shown for name, entry in Root.entries.items())


def test_a_wrong_command_is_a_usage_error() -> None:
    """A typing error leaves with 2 and a suggestion."""
    done = _roadcast("demmo")
    assert done.returncode == 2
    assert "Did you mean 'demo'" in done.stderr


def test_help_imports_nothing_heavy() -> None:
    """The whole of --help loads none of the packages that make start-up slow."""
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "roadcast", "--help"], capture_output=True, text=True, check=True
    )
    loaded = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    assert "typer" in loaded
    assert loaded.isdisjoint(HEAVY)


def test_completion_knows_commands_and_subcommands() -> None:
    """Bash completion offers the commands, and the options of a command that is imported for it."""
    names = _roadcast(_ROADCAST_COMPLETE="complete_bash", COMP_WORDS="roadcast ve", COMP_CWORD="1")
    options = _roadcast(_ROADCAST_COMPLETE="complete_bash", COMP_WORDS="roadcast version --j", COMP_CWORD="2")
    assert names.stdout.split() == ["version"]
    assert options.stdout.split() == ["--json"]


def test_a_group_of_one_stays_a_group(monkeypatch: pytest.MonkeyPatch) -> None:
    """A group with a single subcommand still needs its name."""
    monkeypatch.setitem(Root.entries, "trial", Entry("roadcast.commands.version", "Trial.", group=True))
    result = CliRunner().invoke(app, ["trial", "show", "--json"])
    assert result.exit_code == 0
    assert json.loads(result.output)["roadcast"]
