"""Two exported students for the folder: exporting takes seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edge_models.students import build_student
from edge_models.tasks import load_task
from export import build_artifact
from export.folder import write_artifact


def exported(folder: Path, task: str) -> Path:
    """Export the smallest student of a task."""
    spec = load_task(task)
    inputs = np.random.default_rng(0).normal(size=(4, *spec.input.shape)).astype(np.float32)
    write_artifact(folder, build_artifact(spec, "nano", build_student(spec, "nano"), inputs), spec, "nano")
    return folder


@pytest.fixture(scope="session")
def vehicle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the smallest camera student."""
    return exported(tmp_path_factory.mktemp("vehicle"), "vehicle")


@pytest.fixture(scope="session")
def speed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the smallest sensor student."""
    return exported(tmp_path_factory.mktemp("speed"), "speed")
