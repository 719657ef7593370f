"""Errors as exit codes."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from edge_protocol.errors import CheckFailedError, ConfigError, RoadcastError, TransportError
from roadcast import exits


def _raise(error: BaseException) -> None:
    raise error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("demo.yaml: unknown key 'bokers'"), 78),
        (TransportError("no broker"), 75),
        (CheckFailedError("worse"), 3),
        (RoadcastError("odd"), 1),
        (ZeroDivisionError("bug"), 1),
        (SystemExit(6), 6),
        (SystemExit(None), 0),
        (SystemExit("text"), 1),
        (KeyboardInterrupt(), 130),
        (ModuleNotFoundError("No module named 'torch.nn'", name="torch.nn"), 4),
        (ModuleNotFoundError("No module named 'roadcast.nix'", name="roadcast.nix"), 1),
    ],
)
def test_every_error_has_its_exit_code(error: BaseException, code: int) -> None:
    """What escapes from a command becomes the exit code of the house rules."""
    assert exits.run(lambda: _raise(error)) == code


def test_an_error_is_one_line_without_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    """A user sees what, where and what to do, even when the message holds square brackets."""
    exits.run(lambda: _raise(ConfigError("file.yaml: [red] is no colour; write 'blue'")))
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == "error: file.yaml: [red] is no colour; write 'blue'\n"


def test_debug_and_bugs_show_where(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """ROADCAST_DEBUG adds the traceback to an error, and a bug always has it."""
    monkeypatch.setenv("ROADCAST_DEBUG", "1")
    exits.run(lambda: _raise(ConfigError("x")))
    assert "Traceback" in capsys.readouterr().err
    monkeypatch.delenv("ROADCAST_DEBUG")
    exits.run(lambda: _raise(ZeroDivisionError("y")))
    assert "Traceback" in capsys.readouterr().err


def test_a_missing_extra_says_how_to_get_it(capsys: pytest.CaptureFixture[str]) -> None:
    """A device without torch that is asked to train says which extra to install."""
    exits.run(lambda: _raise(ModuleNotFoundError("No module named 'torch'", name="torch")))
    assert "pip install 'roadcast[train]'" in capsys.readouterr().err


def test_a_closed_pipe_is_no_error() -> None:
    """`roadcast version | head -0` ends without a complaint."""
    read, write = os.pipe()
    os.close(read)
    with os.fdopen(write, "wb") as pipe:
        done = subprocess.run(
            [sys.executable, "-m", "roadcast", "version"], stdout=pipe, stderr=subprocess.PIPE, check=False
        )
    assert done.stderr == b""
