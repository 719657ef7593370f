"""Tasks: where their files are, and what their plug-ins must offer; needs no torch.

A new task is a YAML file and a plug-in module; for most, `edge_models.kinds.classify` or `edge_models.kinds.forecast`
is the plug-in as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Protocol, cast

import numpy as np
import numpy.typing as npt

from edge_models.samples import F4, Samples
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError
from edge_protocol.task import TaskSpec

_HERE = Path(__file__).parent


class TaskPlugin(Protocol):
    """What a task's own module offers.

    Attributes:
        headline: name of the score that a release is judged by.
        higher_is_better: which way it should go.
    """

    headline: str
    higher_is_better: bool

    def score(
        self, spec: TaskSpec, logits: F4, targets: npt.NDArray[np.generic], scale: F4 | None = None
    ) -> dict[str, float]:
        """Compare logits (N, outputs) with targets; the headline comes first, what was not measured is left out.

        Raises:
            DataError: no sample has a target.
        """
        ...

    def side(self, record: Mapping[str, str]) -> F4:
        """Turn a device's own record (column → text, empty or absent when not measured) into (F,) float32.

        Raises:
            DataError: it is refused; the message goes into the journal, so it names a column and never shows its text.
        """
        ...

    def simulate(self, spec: TaskSpec, rng: np.random.Generator, n: int) -> Samples:
        """Draw n labelled samples that a student can learn from."""
        ...


_REQUIRED = ("headline", "higher_is_better", "score", "side", "simulate")


def task_names() -> tuple[str, ...]:
    """Names of the tasks that Roadcast ships."""
    return tuple(sorted(path.stem for path in _HERE.glob("*.yaml")))


def load_task(name_or_path: str | Path) -> TaskSpec:
    """Read a task by name (``vehicle``, ``speed``, ``clinic``) or from a YAML file.

    Raises:
        ConfigError: no such task or file, or the file is wrong; the message names the key.
    """
    path = Path(name_or_path)
    if str(name_or_path) in task_names():
        path = _HERE / f"{name_or_path}.yaml"
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        close = difflib.get_close_matches(str(name_or_path), task_names(), n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"give a YAML file, or one of {', '.join(task_names())}"
        raise ConfigError(
            f"task {str(name_or_path)!r} is neither a task nor a readable file ({error}); {hint}"
        ) from error
    return load_config(text, TaskSpec, where=str(name_or_path))


def plugin_of(spec: TaskSpec) -> TaskPlugin:
    """Import a task's plug-in.

    Raises:
        ConfigError: no such module, or it lacks what a plug-in must offer.
    """
    try:
        module = import_module(spec.plugin)
    except (ImportError, ValueError) as error:
        raise ConfigError(
            f"task {spec.name!r}: plug-in {spec.plugin!r} cannot be imported ({error}); is its folder on PYTHONPATH?"
        ) from error
    missing = [name for name in _REQUIRED if not hasattr(module, name)]
    if missing:
        raise ConfigError(f"task {spec.name!r}: plug-in {spec.plugin!r} lacks {', '.join(missing)}")
    return cast("TaskPlugin", module)
