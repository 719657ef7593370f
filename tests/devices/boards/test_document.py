"""docs/boards.md."""

from __future__ import annotations

from pathlib import Path

from tests.devices.boards.document import document, main
from tests.fakes.boards import names

DOCUMENT = Path(__file__).resolve().parents[3] / "docs" / "boards.md"


def test_the_table_of_boards_is_fresh() -> None:
    """The document is what profiles and recordings say today; otherwise run `make docs`."""
    assert DOCUMENT.read_text(encoding="utf-8") == document()


def test_the_document_is_written_where_asked(tmp_path: Path) -> None:
    """The script writes the same text to any path; every recording is in it."""
    main(tmp_path / "x.md")
    text = (tmp_path / "x.md").read_text(encoding="utf-8")
    assert text == document()
    assert all(f"| {name} |" in text for name in names())
