"""A frame's whole way: pictures are captured as the agent does, and every answer becomes a message that is taken."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from devices.latency.load import Plan
from devices.packs import ImagePack
from devices.packs.writer import save_pack
from edge_protocol.errors import ConfigError, SourceError
from roadcast.bench.job import Job
from roadcast.bench.running import run_job
from roadcast.bench.subject import open_model
from roadcast.bench.way import Capture
from roadcast.simulated.road import busy_scene, write_clip
from tests.fakes.latency import measured

SHORT = Plan(queries=30, seconds=0, warm_up_queries=2, warm_up_seconds=0)
FROM_A_SOURCE = ["capture", "preprocess", "infer", "head", "publish"]
needs_broker = pytest.mark.skipif(shutil.which("mosquitto") is None, reason="no mosquitto here")


@pytest.fixture(name="clip", scope="module")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames of a rendered road: a run of 30 queries plays them again and again."""
    path = tmp_path_factory.mktemp("clip") / "road.mp4"
    write_clip(path, busy_scene(), 8)
    return path


@pytest.fixture(name="folder", scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three pictures, a black one, and a file that is none."""
    place = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for number in range(3):
        cv2.imwrite(str(place / f"{number}.png"), rng.integers(0, 255, (48, 64, 3), np.uint8))
    cv2.imwrite(str(place / "black.png"), np.zeros((48, 64, 3), np.uint8))
    (place / "broken.jpg").write_bytes(b"no picture")
    return place


def test_steps_turn_a_picture_into_a_message(vehicle: Path) -> None:
    """A picture of a camera's size is cut to the student's input; values name a class; publishing ends the way."""
    model = open_model(vehicle, Job(plan=SHORT, end_to_end=True))
    value: object = 0
    given = []
    for _, step in model.way.steps:
        value = step(value)
        given.append(value)
    model.close()
    image, batch, _, values, last = given
    assert isinstance(image, np.ndarray)
    assert image.shape == (432, 768, 3)
    assert isinstance(batch, np.ndarray)
    assert batch.shape == (1, 3, 32, 32)
    assert isinstance(values, dict)
    assert list(values.values()) == [1.0]
    assert last is None


def test_a_clip_is_captured_in_the_agents_way(vehicle: Path, clip: Path) -> None:
    """It begins again at its end; decoding, in a process of its own, is told beside the stages that add up."""
    found = measured(run_job(vehicle, Job(plan=SHORT, end_to_end=True, source=f"file://{clip}")))
    assert list(found.stages) == FROM_A_SOURCE
    assert found.stages["capture"].min_ms > 0
    assert found.beside["decode"].count == found.latency.count == 30
    assert found.beside["decode"].min_ms > 0
    assert not found.unmeasured
    assert found.notes["capture"].startswith(f"file://{clip}, as fast as")


def test_a_folder_is_captured_and_decoding_is_within(vehicle: Path, folder: Path) -> None:
    """Every query's decoding is a part of its capture; faulty files are passed over."""
    found = measured(run_job(vehicle, Job(plan=SHORT, end_to_end=True, source=f"folder://{folder}")))
    assert list(found.stages) == FROM_A_SOURCE
    assert 0 < found.beside["decode"].mean_ms < found.stages["capture"].mean_ms


def test_a_pack_does_not_say_what_decoding_takes(vehicle: Path, tmp_path: Path) -> None:
    """Its pictures are decoded when it is opened: said, and not a zero."""
    images = np.random.default_rng(0).integers(0, 255, (4, 8, 8, 3)).astype(np.uint8)
    pack = ImagePack.of(images, classes=("a", "b"), labels=np.array([0, 1, 0, 1]))
    save_pack(tmp_path / "v.npz", pack, title="test")
    found = measured(run_job(vehicle, Job(plan=SHORT, end_to_end=True, source=f"pack://{tmp_path}/v.npz")))
    assert not found.beside
    assert list(found.unmeasured) == ["decode"]


@needs_broker
def test_messages_go_to_a_broker_of_their_own(vehicle: Path, clip: Path) -> None:
    """Named with the way it is reached; the way is laid, walked and left without a trace."""
    job = Job(plan=SHORT, end_to_end=True, source=f"file://{clip}", publish="broker")
    found = measured(run_job(vehicle, job))
    assert "mosquitto on loopback over MQTT" in found.notes["publish"]
    assert found.stages["publish"].min_ms > 0


@pytest.mark.parametrize(
    ("source", "says"),
    [
        (lambda place: f"file://{place}/none.mp4", "no such file"),
        (lambda place: f"folder://{place}", "no image in it"),
        (lambda place: "ftp://x", "unknown scheme"),
    ],
)
def test_a_source_that_is_not_there_is_named(
    vehicle: Path, tmp_path: Path, source: Callable[[Path], str], says: str
) -> None:
    """Before anything is measured."""
    with pytest.raises((ConfigError, SourceError), match=says):
        run_job(vehicle, Job(plan=SHORT, end_to_end=True, source=source(tmp_path)))


def test_a_sensors_task_captures_no_pictures(speed: Path, clip: Path) -> None:
    """Said before the clip is opened."""
    with pytest.raises(ConfigError, match="takes windows of readings"):
        run_job(speed, Job(plan=SHORT, end_to_end=True, source=f"file://{clip}"))


def test_readings_are_no_pictures(tmp_path: Path) -> None:
    """A table of readings cannot be the camera of a task that takes pictures."""
    (tmp_path / "s.csv").write_text("time,a\n1000,1\n1300,2\n")
    capture = Capture(f"csv://{tmp_path}/s.csv#follow=false")
    with pytest.raises(ConfigError, match="gives readings"):
        capture(0)
    capture.close()


def test_a_clip_that_breaks_is_an_error_and_not_a_result(vehicle: Path, tmp_path: Path) -> None:
    """A file that is no video."""
    (tmp_path / "no.mp4").write_bytes(b"no video" * 100)
    with pytest.raises(SourceError, match=r"no\.mp4"):
        run_job(vehicle, Job(plan=SHORT, end_to_end=True, source=f"file://{tmp_path}/no.mp4"))
