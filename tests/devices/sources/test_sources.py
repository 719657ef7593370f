"""Sources that need no decoder: packs, folders, addresses and pace."""

from __future__ import annotations

import os
from math import inf
from pathlib import Path

import cv2
import numpy as np
import pytest

from devices.packs import ImagePack, SeriesPack, save_pack
from devices.sources import Source, csi_pipeline, open_source
from devices.sources.base import Frame, Pace
from devices.sources.decoder import DecodeJob
from devices.sources.folder import sample_name
from devices.sources.quality import FrameCheck
from edge_protocol.errors import ConfigError, DataError, SourceError


def drain(source: Source, limit: int = 100) -> list[Frame]:
    """Everything that a source delivers, at most `limit` frames."""
    frames: list[Frame] = []
    with source:
        while not source.ended and len(frames) < limit:
            frame = source.read(1.0)
            if frame is not None:
                frames.append(frame)
    return frames


@pytest.fixture
def vehicles(tmp_path: Path) -> Path:
    """A pack of six images, the last unlabelled, two of them test data."""
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((6, 8, 8, 3), np.uint8)
    labels, side = np.array([0, 1, 0, 1, 0, -1]), np.arange(6, dtype=np.float32)[:, None]
    split = np.array([0, 0, 0, 0, 1, 1])
    pack = ImagePack.of(images, classes=("a", "b"), labels=labels, side=side, side_names=("age",), split=split)
    save_pack(tmp_path / "v.npz", pack, title="test")
    return tmp_path / "v.npz"


def test_packed_images(vehicles: Path) -> None:
    """Images come in order with labels hidden, unless the address asks for them."""
    frames = drain(open_source(f"pack://{vehicles}", name="cam", side=("age",)))
    assert [int(frame.image[0, 0, 0]) for frame in frames if frame.image is not None] == list(range(6))
    assert {frame.label for frame in frames} == {None}
    assert [frame.sample for frame in frames][:2] == ["cam-0", "cam-1"]
    assert frames[3].side is not None
    assert frames[3].side.tolist() == [3.0]
    shown = drain(open_source(f"pack://{vehicles}?labels=true", name="cam"))
    assert [frame.label for frame in shown] == ["a", "b", "a", "b", "a", None]
    assert {frame.side is None for frame in shown} == {True}, "a task without own inputs is given none"


def test_columns_of_a_pack_go_by_name(tmp_path: Path) -> None:
    """In whatever order, and however many more; a pack that lacks a name is refused, one without any is not."""
    side = np.arange(6, dtype=np.float32).reshape(2, 3)
    images = np.zeros((2, 8, 8, 3), np.uint8)
    save_pack(tmp_path / "s.npz", ImagePack.of(images, classes=(), side=side, side_names=("b", "c", "a")), title="t")
    frames = drain(open_source(f"pack://{tmp_path}/s.npz", name="cam", side=("a", "b")))
    assert [frame.side.tolist() for frame in frames if frame.side is not None] == [[2, 0], [5, 3]]
    with pytest.raises(DataError, match=r"s\.npz: side inputs b, c, a; the task has a, d; make the pack"):
        open_source(f"pack://{tmp_path}/s.npz", name="cam", side=("a", "d"))
    save_pack(tmp_path / "n.npz", ImagePack.of(images, classes=()), title="t")
    without = drain(open_source(f"pack://{tmp_path}/n.npz", name="cam", side=("a",)))
    assert [frame.side for frame in without] == [None] * 2


def test_packed_split_and_loop(vehicles: Path) -> None:
    """A part of a pack can be played, and played again and again; a picture has the name of its row each time."""
    frames = drain(open_source(f"pack://{vehicles}?split=test", name="cam", loop=True), limit=5)
    assert [frame.sample for frame in frames] == ["cam-4", "cam-5", "cam-4", "cam-5", "cam-4"]
    assert [int(frame.image[0, 0, 0]) for frame in frames if frame.image is not None] == [4, 5, 4, 5, 4]
    with pytest.raises(ConfigError, match="split='both' must be train or test"):
        open_source(f"pack://{vehicles}?split=both", name="cam")


def test_packed_series_keep_their_own_time(tmp_path: Path) -> None:
    """Rows carry their own time however fast they are played, and time rises through a loop."""
    values = np.array([[1, 2], [3, np.nan], [5, 6]], np.float32)
    times = 1000 + 300.0 * np.arange(3)
    pack = SeriesPack(values=values, time_s=times, interval_s=300.0, sensors=("x", "y"), unit="mph")
    save_pack(tmp_path / "s.npz", pack, title="test")
    frames = drain(open_source(f"pack://{tmp_path}/s.npz", name="s", rate_hz=inf, loop=True), limit=4)
    assert [frame.at_s for frame in frames] == [1000, 1300, 1600, 1900]
    np.testing.assert_array_equal(
        np.stack([f.readings for f in frames if f.readings is not None]), values[[0, 1, 2, 0]]
    )
    once = drain(open_source(f"pack://{tmp_path}/s.npz", name="s"))
    assert len(once) == 3
    assert once[0].image is None


def test_missing_pack(tmp_path: Path) -> None:
    """A pack that is not there is a data error that names it."""
    with pytest.raises(DataError, match=r"nope\.npz"):
        open_source(f"pack://{tmp_path}/nope.npz", name="cam")


def test_empty_pack_ends_at_once(tmp_path: Path) -> None:
    """A pack without images delivers nothing, looped or not."""
    save_pack(tmp_path / "e.npz", ImagePack.of(np.zeros((0, 8, 8, 3), np.uint8), classes=()), title="test")
    source = open_source(f"pack://{tmp_path}/e.npz", name="cam", loop=True)
    assert source.ended
    assert source.read(0.01) is None


def picture(path: Path, level: int) -> None:
    """Write a grey picture."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((20, 30, 3), level, np.uint8))


def test_folder_with_a_broken_and_a_black_image(tmp_path: Path) -> None:
    """A broken image and a black one are frames with a fault; the good ones around them still come."""
    picture(tmp_path / "bike/1.png", 100)
    (tmp_path / "bike/2.jpg").write_bytes(b"\xff\xd8 no picture")
    (tmp_path / "bike/3.jpg").write_bytes(b"")
    picture(tmp_path / "car/4.png", 3)
    picture(tmp_path / "car/5.png", 150)
    frames = drain(open_source(f"folder://{tmp_path}?labels=true", name="f"))
    assert [frame.fault for frame in frames] == [None, "unreadable", "unreadable", "black", None]
    assert [frame.label for frame in frames] == ["bike"] * 3 + ["car"] * 2
    assert frames[1].image is None
    assert [frame.label for frame in drain(open_source(f"folder://{tmp_path}", name="f", loop=True), 7)] == [None] * 7


def test_a_folder_s_records_come_with_their_images(tmp_path: Path) -> None:
    """Numbers and texts as text, null as not measured, none where there is none; a damaged one is a fault.

    For a task without own inputs they are somebody else's, such as annotations: nobody looks at them.
    """
    records = {
        "a": b'{"age": 61, "pulse": null, "temperature": "38.4", "weight": 70.5}',
        "c": b"{}",
        "d": b"[1, 2]",
        "e": b'{"age": true}',
        "f": b'{"age": "' + b"6" * (64 << 10) + b'"}',
        "g": b"\xff\xfe",
    }
    for name in "abcdefg":
        picture(tmp_path / f"{name}.png", 100 + ord(name) % 50)
    for name, text in records.items():
        (tmp_path / f"{name}.json").write_bytes(text)
    unasked = drain(open_source(f"folder://{tmp_path}", name="f"))
    assert [(frame.record, frame.fault) for frame in unasked] == [(None, None)] * 7
    frames = drain(open_source(f"folder://{tmp_path}", name="f", side=("age",)))
    assert frames[0].record == {"age": "61", "pulse": "", "temperature": "38.4", "weight": "70.5"}
    assert [frame.record for frame in frames[1:3]] == [None, {}]
    assert [frame.fault for frame in frames] == [None] * 3 + ["unreadable"] * 4


def test_a_folder_s_images_are_named_after_their_files(tmp_path: Path) -> None:
    """A picture more leaves the names of the others; long names and names that are no UTF-8 are bounded and apart."""
    picture(tmp_path / "b.png", 100)
    picture(tmp_path / "refer" / "c.png", 110)

    def names() -> list[str]:
        return [frame.sample for frame in drain(open_source(f"folder://{tmp_path}", name="ward"))]

    assert names() == ["ward/b.png", "ward/refer/c.png"]
    picture(tmp_path / "a.png", 120)
    assert names() == ["ward/a.png", "ward/b.png", "ward/refer/c.png"]
    long = [sample_name("ward", Path("x" * 200 + tail) / "1.png") for tail in ("", "y")]
    assert [len(name) for name in long] == [60, 60]
    assert len(set(long)) == 2
    assert all(name.endswith("/1.png") for name in long)
    assert sample_name("ward", Path(os.fsdecode(b"\xff.png"))) == r"ward/\xff.png"
    assert len(sample_name("w" * 64, Path("x" * 200))) == 64 + 1 + 24


def test_the_first_sub_folder_is_the_label(tmp_path: Path) -> None:
    """However deep an image lies below it; beside the sub-folders it has none, whatever the folder itself is called."""
    for file, level in {"refer/2026-11/a.png": 100, "refer/b.png": 120, "c.png": 140}.items():
        picture(tmp_path / file, level)
    frames = drain(open_source(f"folder://{tmp_path}?labels=true", name="ward"))
    assert {frame.sample: frame.label for frame in frames} == {
        "ward/refer/2026-11/a.png": "refer",
        "ward/refer/b.png": "refer",
        "ward/c.png": None,
    }


def test_folder_without_images(tmp_path: Path) -> None:
    """An empty folder and a missing one say so."""
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(SourceError, match="no image in it"):
        open_source(f"folder://{tmp_path}", name="f")
    with pytest.raises(SourceError, match="no such folder"):
        open_source(f"folder://{tmp_path}/nope", name="f")


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://camera/stream", "unknown scheme 'http'; one of file://"),
        ("/srv/clip.mp4", "unknown scheme ''"),
        ("file://", "says no path"),
        ("rtsp:///main", "says no host"),
        ("rtsp://[broken", "not a URI"),
        ("folder:///srv?recursive=true", "unknown option 'recursive'; folder:// knows: labels"),
        ("folder:///srv?labels=perhaps", "labels='perhaps' must be true or false"),
        ("v4l2:///dev/video0?width=wide", "width='wide' must be a number from 0 to 8192"),
        ("v4l2:///dev/video0?stall_s=nan", "stall_s='nan' must be a number"),
        ("csi://left", "name the sensor by its number"),
    ],
)
def test_wrong_addresses(uri: str, message: str) -> None:
    """A wrong address is a configuration error that says what is known."""
    with pytest.raises(ConfigError, match=message.replace("?", r"\?")):
        open_source(uri, name="x")


def test_passwords_are_not_shown() -> None:
    """A camera's password stays out of messages."""
    with pytest.raises(ConfigError) as caught:
        open_source("rtsp://admin:hunter2@10.0.0.5/main#speed=5", name="x")
    assert "hunter2" not in str(caught.value)
    assert "rtsp://10.0.0.5/main" in str(caught.value)


@pytest.mark.parametrize("rate_hz", [0.0, -1.0, float("nan")])
def test_wrong_rate(vehicles: Path, rate_hz: float) -> None:
    """A rate must be positive."""
    with pytest.raises(ConfigError, match="rate_hz must be above 0"):
        open_source(f"pack://{vehicles}", name="x", rate_hz=rate_hz)


def test_csi_needs_gstreamer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without GStreamer in OpenCV the message names the fix; with it, the pipeline drops what nobody takes."""
    job = DecodeJob("gstreamer", "0", width=640, height=480, fps=15)
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GStreamer:                   NO\n")
    with pytest.raises(SourceError, match="built without GStreamer; use the board's own"):
        csi_pipeline(job)
    monkeypatch.setattr(cv2, "getBuildInformation", lambda: "    GStreamer:                   YES (1.20.3)\n")
    pipeline = csi_pipeline(job)
    assert pipeline.startswith("nvarguscamerasrc sensor-id=0 ! ")
    assert "width=640,height=480,framerate=15/1" in pipeline
    assert "appsink drop=true" in pipeline


def test_pace_is_even_and_does_not_race() -> None:
    """Turns come at the rate; who is late starts a new rhythm instead of catching up."""
    pace = Pace(10.0)
    assert pace.wait_s(100.0) == 0
    pace.turn(100.0)
    assert pace.wait_s(100.0) == pytest.approx(0.1)
    pace.turn(100.12)
    assert pace.wait_s(100.12) == pytest.approx(0.08)
    pace.turn(200.0)
    assert pace.wait_s(200.0) == pytest.approx(0.1)
    assert Pace(None).interval_s == Pace(inf).interval_s == 0


def test_pace_returns_before_its_turn() -> None:
    """A reader is not held longer than it allows, and its turn is not lost."""
    pace = Pace(0.001)
    assert pace.sleep(0)
    assert not pace.sleep(0.001)


def test_frames_are_judged() -> None:
    """Black and frozen pictures are told from dark and from changing ones."""
    rng = np.random.default_rng(0)
    check = FrameCheck(frozen_after_s=2.0)
    dark = np.full((480, 640, 3), 3, np.uint8)
    assert check.fault(dark, 0.0) == "black"
    lamp = dark.copy()
    lamp[100:200, 100:200] = 200
    assert check.fault(lamp, 0.1) is None
    assert check.fault(lamp, 2.0) is None
    assert check.fault(lamp, 2.2) == "frozen"
    assert check.fault(rng.integers(0, 256, lamp.shape, dtype=np.uint8), 2.3) is None
    assert check.fault(rng.integers(0, 9, (4, 4, 3), dtype=np.uint8), 2.4) == "black"
