"""``roadcast version``: which versions are here, read from metadata without importing anything."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version

import typer

from edge_protocol import codec
from roadcast.output import JsonFlag, emit, table

app = typer.Typer()
PARTS = (
    "onnxruntime",
    "numpy",
    "opencv-python-headless",
    "paho-mqtt",
    "msgspec",
    "torch",
    "onnx",
    "onnxscript",
    "tensorrt",
)


@app.command()
def show(*, json: JsonFlag = False) -> None:
    """Say which versions of Roadcast and its parts are here."""
    emit(versions(), json, lambda found: table("", ("part", "version"), found.items()))


def versions() -> dict[str, str | None]:
    """Versions by part; None for a part that is not installed."""
    ours = {"roadcast": _version("roadcast"), "wire": f"v{codec.VERSION}", "python": platform.python_version()}
    return ours | {"machine": platform.machine()} | {part: _version(part) for part in PARTS}


def _version(part: str) -> str | None:
    try:
        return version(part)
    except PackageNotFoundError:
        return None
