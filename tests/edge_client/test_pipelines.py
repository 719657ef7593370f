"""What a source says an image shows is meant by name: folders and packs know nothing of a task's order of classes."""

from __future__ import annotations

import logging
from pathlib import Path

import cv2
import numpy as np
import pytest

from devices.packs import ImagePack, save_pack
from devices.preprocess import Preprocess
from devices.sources import open_source
from edge_client.pipelines import WholeSample
from edge_client.results import Tally
from edge_client.seen import Seen
from edge_models.tasks import load_task
from edge_protocol.task import ImageInput

CLINIC = load_task("clinic")
IMAGES = np.random.default_rng(0).integers(0, 255, (4, 32, 32, 3), np.uint8)
SHOWN = ("watch", "refer", "calm", "unclear")


def kept_of(address: str) -> list[float | int]:
    """Classes under which a clinic's device remembers what a source shows."""
    assert isinstance(CLINIC.input, ImageInput)
    seen = Seen(0.0)
    tally = Tally(task="clinic", source="ward", interval_s=1e9, slot_s=None, emit=lambda _: None)
    pipeline = WholeSample(CLINIC, Preprocess(CLINIC.input), tally, seen)
    with open_source(address, name="ward") as source:
        while not source.ended:
            found = source.read(5)
            assert found is not None
            pipeline.step(found, None, 0.0)
    return [kept.target for kept in seen.drain()]  # type: ignore[misc]


def test_labels_of_folders_and_packs_are_meant_by_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither the alphabet nor a pack decides which class of the task it is; a name that it lacks is told, once."""
    for name, image in zip(SHOWN, IMAGES, strict=True):
        for at in range(2):
            (tmp_path / "shown" / name).mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(tmp_path / "shown" / name / f"{at}.png"), image)
    pack = ImagePack.of(IMAGES, classes=SHOWN, labels=np.array([0, 1, 2, 3]))
    save_pack(tmp_path / "shown.npz", pack, title="ward")
    with caplog.at_level(logging.WARNING):
        assert kept_of(f"folder://{tmp_path}/shown?labels=true") == [0, 0, 2, 2, -1, -1, 1, 1]
        assert caplog.text.count("'unclear'") == 1
        assert kept_of(f"pack://{tmp_path}/shown.npz?labels=true") == [1, 2, 0, -1]
    assert kept_of(f"folder://{tmp_path}/shown") == [-1] * 8
