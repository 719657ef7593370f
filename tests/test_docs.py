"""What the documents say is what the code says."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

from roadcast.state_diagrams import TABLES, document, main

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("roadcast", "edge_client", "broker_server", "export", "devices", "edge_models", "edge_protocol")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
BANNED = re.compile(r"(?<![A-Za-z])updat(?:e|es|ed|ing)(?![A-Za-z])", re.IGNORECASE)
ALLOWED = re.compile(
    r"The Update Framework|`[\w.]*update[\w.]*`|\bupdate \w+ set\b|\bdo update\b|\bbefore update on\b|sql_update",
    re.IGNORECASE,
)


def test_state_diagrams_are_fresh() -> None:
    """docs/state-machines.md is what the tables draw today; otherwise run `make docs`."""
    assert (ROOT / "docs" / "state-machines.md").read_text(encoding="utf-8") == document()


def test_every_table_is_drawn() -> None:
    """No module holds a state table that the document leaves out."""
    found = {
        (".".join(path.relative_to(ROOT).with_suffix("").parts), name)
        for path in SOURCES
        for name in re.findall(r"^(\w+): Table\[", path.read_text(encoding="utf-8"), re.MULTILINE)
    }
    assert found == set(TABLES.values())


def test_the_document_is_written_where_asked(tmp_path: Path) -> None:
    """The script writes the same text to any path."""
    main(tmp_path / "x.md")
    assert (tmp_path / "x.md").read_text(encoding="utf-8") == document()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_the_banned_word_is_not_used(path: Path) -> None:
    """No name of ours, text or comment says "update"; what dicts, hashes, SQL and torch call theirs is theirs."""
    assert _banned(path.read_text(encoding="utf-8")) == []


def test_the_ban_finds_what_it_should() -> None:
    """Our functions, texts and comments are found; methods of others, SQL and a proper name are not."""
    assert _banned("def update_model(): ...\n") == ["update_model"]
    assert _banned("def f(updated): ...\n") == ["updated"]
    assert _banned("last_update = 1\n") == ["last_update"]
    assert _banned('"""An update came."""\n') == ["An update came."]
    assert _banned("x = 1  # updated\n") == ["# updated"]
    assert _banned("a.update(b)\nfrom sqlalchemy import update\nupdate(t)\n# The Update Framework\n") == []
    assert _banned("db.execute('update t set a = 1')\naverage.update_parameters(b)\n") == []


def _banned(source: str) -> list[str]:
    """Names defined here, string literals and comments that hold the banned word."""
    said = [t.string for t in tokenize.generate_tokens(io.StringIO(source).readline) if t.type == tokenize.COMMENT]
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.FunctionDef(name=name) | ast.ClassDef(name=name) | ast.Name(id=name, ctx=ast.Store()):
                said.append(name)
            case ast.arg(arg=name) | ast.Constant(value=str(name)):
                said.append(name)
    return [text for text in said if BANNED.search(ALLOWED.sub("", text).replace("_", " "))]
