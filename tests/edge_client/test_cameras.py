"""Cameras are watched while they work: the age of frames, and the view against the commissioned one."""

from __future__ import annotations

import os
from pathlib import Path
from time import monotonic

import cv2
import numpy as np
import numpy.typing as npt

from devices.preprocess import Preprocess
from devices.sources import open_source
from devices.telemetry.scene import FAULTS, Scene
from edge_client.cameras import Cameras, scene_file
from edge_client.inference import Feed
from edge_client.pipelines import WholeSample
from edge_client.results import Tally
from edge_client.seen import Seen
from edge_models.tasks import load_task

VEHICLE = load_task("vehicle")
NORTH = "camera_view_fault.north"


def street(shift: int = 0) -> npt.NDArray[np.uint8]:
    """A view (240, 280, 3) with structure, of a camera turned by so many pixels."""
    blocks = np.kron(np.random.default_rng(5).integers(20, 230, (12, 16)), np.ones((20, 20)))
    return np.repeat(blocks[:, shift : shift + 280, None], 3, axis=2).astype(np.uint8)


def watched(folder: Path, images: list[npt.NDArray[np.uint8]]) -> tuple[Cameras, Feed]:
    """A camera called north that shows these pictures; its state lies in the same folder."""
    (folder / "pictures").mkdir()
    for number, image in enumerate(images):
        cv2.imwrite(str(folder / "pictures" / f"{number:03}.png"), image)
    tally = Tally(task="vehicle", source="north", interval_s=60, slot_s=None, emit=lambda _result: None)
    pipeline = WholeSample(VEHICLE, Preprocess(VEHICLE.input), tally, Seen(1.0))  # type: ignore[arg-type]
    uri = f"folder://{folder / 'pictures'}"
    cameras = Cameras(folder)
    return cameras, cameras.watch(Feed("north", lambda: open_source(uri, name="north"), pipeline, tally))


def test_nothing_is_said_before_the_first_frame_and_of_a_view_without_a_scene(tmp_path: Path) -> None:
    """Then the age grows from the last good frame; the view stays unknown."""
    cameras, feed = watched(tmp_path, [street()])
    with feed.opener() as source:
        assert cameras.readings(monotonic()) == {}
        before = monotonic()
        assert source.read(5.0) is not None
        ages = cameras.readings(monotonic() + 30)
        assert source.read(0.0) is None
        assert source.ended
    assert list(ages) == ["camera_frame_age_seconds.north"]
    assert 30 <= ages["camera_frame_age_seconds.north"] <= monotonic() + 30 - before


def test_a_logger_s_rows_are_no_camera_s_frames(tmp_path: Path) -> None:
    """Its age goes by another name, beside how often it should speak."""
    cameras, feed = watched(tmp_path, [street()])
    logger = Feed("loops", feed.opener, feed.pipeline, feed.tally)
    with cameras.watch(logger, kind="logger_row", period_s=300.0).opener() as source:
        assert source.read(5.0) is not None
    found = cameras.readings(monotonic())
    assert found["logger_row_period_seconds.loops"] == 300
    assert set(found) >= {"logger_row_age_seconds.loops"}
    assert "camera_frame_age_seconds.loops" not in found


def test_a_black_picture_is_not_a_sign_of_life(tmp_path: Path) -> None:
    """A frame with a fault makes the camera no younger."""
    cameras, feed = watched(tmp_path, [street() * 0])
    with feed.opener() as source:
        frame = source.read(5.0)
        assert frame is not None
        assert frame.fault == "black"
    assert cameras.readings(monotonic()) == {}


def test_a_camera_that_was_turned_is_told_once_it_stays_so(tmp_path: Path) -> None:
    """No fault, then moved when most of the last looks show it; commissioned anew, all is well again."""
    Scene.of(street()).save(scene_file(tmp_path, "north"))
    cameras, feed = watched(tmp_path, [street()] * 9 + [street(40)] * 9)
    found = []
    with feed.opener() as source:
        while source.read(5.0) is not None:
            found.append(cameras.readings(monotonic())[NORTH])
        assert (found[0], found[9], found[-1]) == (0.0, 0.0, 1.0 + FAULTS.index("moved"))
        Scene.of(street(40)).save(scene_file(tmp_path, "north"))
        os.utime(scene_file(tmp_path, "north"), ns=(1, 1))  # a clock may stand still between two writes
    with feed.opener() as source:
        while source.read(5.0) is not None:
            last = cameras.readings(monotonic())
    assert last[NORTH] == 0.0


def test_without_a_new_frame_there_is_no_view_to_judge(tmp_path: Path) -> None:
    """A camera that delivers nothing tells its age alone; a scene that is torn or gone is not watched."""
    Scene.of(street()).save(scene_file(tmp_path, "north"))
    cameras, feed = watched(tmp_path, [street()] * 3)
    with feed.opener() as source:
        source.read(5.0)
        assert NORTH in cameras.readings(monotonic())
        assert NORTH not in cameras.readings(monotonic())
        scene_file(tmp_path, "north").write_bytes(b"torn")
        source.read(5.0)
        assert NORTH not in cameras.readings(monotonic())
        scene_file(tmp_path, "north").unlink()
        source.read(5.0)
        assert NORTH not in cameras.readings(monotonic())
