"""Keeps what a long benchmark has trained, so that a run that was stopped goes on and nothing stale is read.

Owns one JSON file for each piece of work under ``--cache DIR`` (``build/bench-cache``); its name is a hash of what the
caller says the piece depends on: data, settings and code.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path
from types import ModuleType
from typing import Any

from benchmarks.harness import Own

FOLDER = Path("build/bench-cache")
CACHE = Own(FOLDER, "where what was trained is kept")


def code_of(modules: Sequence[ModuleType]) -> list[str]:
    """The text of modules, and of all that packages hold, as part of what a piece depends on."""
    files = [Path(str(module.__file__)) for module in modules]
    found = [sorted(file.parent.rglob("*.py")) if file.name == "__init__.py" else [file] for file in files]
    return [path.read_text(encoding="utf-8") for each in found for path in each]


def mark_of(*parts: object) -> str:
    """A short name for what a piece depends on; parts are written as JSON."""
    return sha256(json.dumps(parts, default=str).encode()).hexdigest()[:12]


def kept(folder: Path, name: str, make: Callable[[], Any]) -> dict[str, Any]:
    """What was made under this name, now or in an earlier run: ``made``, and the ``cpu_s`` that it took."""
    path = folder / f"{name}.json"
    if not path.exists():
        begun = time.process_time()
        made = make()
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(".part")
        fresh.write_text(json.dumps({"made": made, "cpu_s": time.process_time() - begun}), encoding="utf-8")
        fresh.replace(path)
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found
