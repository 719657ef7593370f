"""Artifacts as folders: what is written is read back, what is missing is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_protocol.errors import NotReadyError
from edge_protocol.task import TaskSpec
from export import BuiltArtifact
from export.folder import CARD, GOLDEN, TEMPLATE, WEIGHTS, read_card, read_part, write_artifact


def test_what_is_written_is_read_back(tmp_path: Path, artifact: BuiltArtifact, spec: TaskSpec) -> None:
    """Files and card survive the disk."""
    card = write_artifact(tmp_path / "new", artifact, spec, "small")
    parts = [read_part(tmp_path / "new", name) for name in (TEMPLATE, WEIGHTS, GOLDEN)]
    assert parts == [artifact.template, artifact.weights, artifact.golden]
    assert read_card(tmp_path / "new") == card
    assert card.task == spec


def test_missing_and_damaged_files_are_named(tmp_path: Path) -> None:
    """The message names the file and the command that makes it."""
    with pytest.raises(NotReadyError, match=r"template\.onnx: No such file.*export build"):
        read_part(tmp_path, TEMPLATE)
    (tmp_path / CARD).write_text("{")
    with pytest.raises(NotReadyError, match="not an artifact's card"):
        read_card(tmp_path)
