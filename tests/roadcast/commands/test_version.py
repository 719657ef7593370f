"""`roadcast version`."""

from __future__ import annotations

import json
from importlib.metadata import version

from typer.testing import CliRunner

from roadcast.cli import app
from roadcast.commands import version as command


def test_it_names_the_parts_that_matter() -> None:
    """The JSON holds our version, the wire's, Python's and those of the parts."""
    found = json.loads(CliRunner().invoke(app, ["version", "--json"]).output)
    assert found["roadcast"] == version("roadcast")
    assert found["wire"] == "v1"
    assert found["onnxruntime"] == version("onnxruntime")


def test_a_part_that_is_not_installed_is_null() -> None:
    """A device without an extra shows nothing for it."""
    assert command._version("no-such-part-at-all") is None


def test_the_table_has_a_line_for_each_part() -> None:
    """Without --json there is one line a part."""
    lines = CliRunner().invoke(app, ["version"]).output.splitlines()
    assert len(lines) == 1 + len(command.versions())
