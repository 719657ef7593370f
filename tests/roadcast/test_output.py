"""Results, progress and logs."""

from __future__ import annotations

import io
import json
import sys

import pytest

from roadcast import output


class Terminal(io.StringIO):
    """Text that claims to be a terminal."""

    def isatty(self) -> bool:
        """Say yes."""
        return True


def test_emit_prints_json_or_what_render_makes(capsys: pytest.CaptureFixture[str]) -> None:
    """--json gives JSON, and otherwise the rendering."""
    output.emit({"a": 1}, True, lambda _: "drawn")
    assert json.loads(capsys.readouterr().out) == {"a": 1}
    output.emit({"a": 1}, False, lambda data: f"a is {data['a']}")
    assert capsys.readouterr().out == "a is 1\n"


def test_a_table_is_tab_separated_in_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    """Piped tables are lines for other tools: the title, a header, tabs, nothing cut off however long."""
    output.emit([("x" * 300, None)], False, lambda rows: output.table("Title", ("name", "value"), rows))
    assert capsys.readouterr().out == f"Title\nname\tvalue\n{'x' * 300}\t-\n"
    output.emit([(1,)], False, lambda rows: output.table("", ("name",), rows))
    assert capsys.readouterr().out == "name\n1\n"
    output.emit(["a\n2\tann", "b"], False, lambda rows: output.table("x\ny", ("no.", "who"), [rows]))
    assert capsys.readouterr().out == "x y\nno.\twho\na 2 ann\tb\n"


def test_a_table_is_drawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal the table has its title, and what a device said in brackets is text and no markup."""
    screen = Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    output.emit([("x [/bold]", 1)], False, lambda rows: output.table("Title", ("name", "value"), rows))
    assert "Title" in screen.getvalue()
    assert "x [/bold]" in screen.getvalue()
    assert "\t" not in screen.getvalue()


def test_what_a_device_says_steers_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Titles, clipboards and cleared screens in a line, a cell, a warning or progress; line ends and tabs stay."""
    hostile = "a\x1b]0;PWNED\x07\x1b[2J\x9b1A\rb"
    assert output.printable("a\n\tb") == "a\n\tb"
    output.emit(hostile, False, str)
    output.warn(hostile)
    assert not set("\x1b\x07\x9b\r") & set("".join(capsys.readouterr()))
    screen, beside = Terminal(), Terminal()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.setattr(sys, "stderr", beside)
    monkeypatch.setenv("TERM", "dumb")
    output.emit([hostile], False, lambda rows: output.table("", ("board",), [rows]))
    output.progress(hostile)
    for shown in (screen.getvalue(), beside.getvalue()):
        assert "PWNED" in shown
        assert not set("\x07\x9b\r") & set(shown)
        assert "\x1b]" not in shown
        assert "\x1b[2J" not in shown


def _ends_at_two(monkeypatch: pytest.MonkeyPatch, out: io.StringIO, *, as_json: bool = False) -> str:
    """Follow a number that goes 0, 0, 1, 2, and return what was shown."""
    monkeypatch.setattr(sys, "stdout", out)
    numbers = iter([0, 0, 1, 2])
    output.follow(
        lambda: next(numbers),
        lambda found: output.table("", ("number",), [(found,)]),
        "at {}".format,
        every_s=0.001,
        as_json=as_json,
        ended=lambda found: found == 2,
    )
    return out.getvalue()


def test_what_is_followed_is_a_line_for_each_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a pipe, as text or as JSON, to its end."""
    assert _ends_at_two(monkeypatch, io.StringIO()).splitlines() == ["at 0", "at 1", "at 2"]
    assert _ends_at_two(monkeypatch, io.StringIO(), as_json=True).split() == ["0", "1", "2"]


def test_what_is_followed_is_redrawn_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table that goes over the one before it, the last one stays."""
    monkeypatch.setenv("TERM", "xterm")
    shown = _ends_at_two(monkeypatch, Terminal())
    assert "\x1b[" in shown
    assert "at 2" not in shown
    assert shown.count("number") >= 3
    assert " 2 " in shown.rpartition("number")[2]


def test_progress_is_silent_in_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Progress goes to a terminal and to nothing else; a warning always does."""
    piped, screen = io.StringIO(), Terminal()
    monkeypatch.setattr(sys, "stderr", piped)
    output.progress("half way")
    output.warn("low on disk")
    monkeypatch.setattr(sys, "stderr", screen)
    output.progress("half way")
    assert piped.getvalue() == "warning: low on disk\n"
    assert "half way" in screen.getvalue()


def test_no_color_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    """With NO_COLOR a terminal gets plain text."""
    coloured, plain = Terminal(), Terminal()
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setattr(sys, "stderr", coloured)
    output.warn("x")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setattr(sys, "stderr", plain)
    output.warn("x")
    assert "\x1b[33m" in coloured.getvalue()
    assert "\x1b[33m" not in plain.getvalue()


def test_logs_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    """A long-running command logs to stderr with level and name."""
    import logging  # noqa: PLC0415

    root = logging.getLogger()
    before = root.handlers[:], root.level
    try:
        output.log_to_stderr(verbose=True)
        logging.getLogger("roadcast.test").debug("hello")
    finally:
        root.handlers[:], _ = before
        root.setLevel(before[1])
    assert "DEBUG   roadcast.test hello" in capsys.readouterr().err
