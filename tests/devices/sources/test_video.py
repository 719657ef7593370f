"""Video through the real decoding child: files, malformed clips, and a live stream that stalls."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import inf
from pathlib import Path

import cv2
import numpy as np
import pytest

from devices.sources import Frame, open_source
from devices.sources.decoder import DecodeJob
from devices.sources.video import VideoSource
from edge_protocol.errors import SourceError
from roadcast.simulated.road import busy_scene, write_clip

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve frames of a rendered road."""
    path = tmp_path_factory.mktemp("clip") / "road.mp4"
    write_clip(path, busy_scene(), 12)
    return path


def play(path: Path, *, loop: bool = False, limit: int = 100) -> list[Frame]:
    """All frames of a clip as fast as they come."""
    frames: list[Frame] = []
    with open_source(f"file://{path}", name="road", rate_hz=inf, loop=loop) as source:
        until(lambda: source.ended or len(frames) >= limit, lambda: collect(frames, source.read(1.0)))
    return frames


def collect(frames: list[Frame], frame: Frame | None) -> None:
    """Keep a frame when there is one."""
    if frame is not None:
        frames.append(frame)


def until(done: Callable[[], bool], step: Callable[[], object]) -> None:
    """Step until done, for a bounded time."""
    deadline = time.monotonic() + LIMIT_S
    while not done():
        assert time.monotonic() < deadline, "it did not happen in time"
        step()


def test_a_clip_plays_to_its_end(clip: Path) -> None:
    """Every frame comes once, in RGB, and the source ends."""
    frames = play(clip)
    assert len(frames) == 12
    assert {frame.fault for frame in frames} == {None}
    assert frames[0].image is not None
    assert frames[0].image.shape == (240, 320, 3)
    again = play(clip)
    assert len({frame.sample for frame in (*frames, *again)}) == 24, "each start has names of its own"
    assert frames[-1].sample.startswith("road-")
    assert frames[-1].at_s >= frames[0].at_s
    assert len(play(clip, loop=True, limit=30)) == 30


def test_own_rate(clip: Path) -> None:
    """Without a rate, a clip plays at its own."""
    with open_source(f"file://{clip}", name="road") as source:
        assert isinstance(source, VideoSource)
        until(lambda: source.read(1.0) is not None, lambda: None)
        assert source._pace.rate_hz == 25.0


def test_black_clip(tmp_path: Path) -> None:
    """A covered lens is a fault on every frame."""
    write_black(tmp_path / "black.mp4")
    assert {frame.fault for frame in play(tmp_path / "black.mp4")} == {"black"}


def write_black(path: Path) -> None:
    """A clip of nothing."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mp4v"), 25, (64, 48))
    for _ in range(3):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()


def test_missing_and_malformed_clips(tmp_path: Path, clip: Path) -> None:
    """A clip that is missing, no video, or cut before its index is an error that names it."""
    with pytest.raises(SourceError, match=r"nope\.mp4: no such file"):
        play(tmp_path / "nope.mp4")
    for name, data in {"text.mp4": b"not a video" * 100, "cut.mp4": clip.read_bytes()[:2000]}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(SourceError, match=rf"{name}: cannot be opened"):
            play(tmp_path / name)


def test_damaged_clip_never_hurts_the_parent(tmp_path: Path, clip: Path) -> None:
    """Whatever a decoder does with a clip full of wrong bytes, this process sees frames or an error."""
    rng = np.random.default_rng(0)
    data = np.frombuffer(clip.read_bytes(), np.uint8).copy()
    at = rng.integers(64, len(data) * 3 // 4, 200)
    data[at] = rng.integers(0, 256, len(at), dtype=np.uint8)
    (tmp_path / "bad.mp4").write_bytes(data.tobytes())
    complaint = ""
    count = 0
    try:
        count = len(play(tmp_path / "bad.mp4"))
    except SourceError as error:
        complaint = str(error)
    assert "bad.mp4" in complaint or 0 < count <= 12


def test_a_child_that_dies(clip: Path) -> None:
    """A decoder that crashes is an error with its signal, and the source has ended."""
    with open_source(f"file://{clip}", name="road", rate_hz=inf, loop=True) as source:
        assert isinstance(source, VideoSource)
        until(lambda: source.read(1.0) is not None, lambda: None)
        assert source._child is not None
        os.kill(source._child._process.pid, signal.SIGSEGV)
        with pytest.raises(SourceError, match=r"road\.mp4: the decoder was killed by signal 11"):
            until(lambda: False, lambda: source.read(1.0))
        assert source.ended
        assert source.read(0.1) is None


def test_a_child_that_hangs(clip: Path) -> None:
    """A decoder that stops answering is ended after the stall time."""
    with open_source(f"file://{clip}?stall_s=0.3", name="road", rate_hz=inf, loop=True) as source:
        assert isinstance(source, VideoSource)
        until(lambda: source.read(1.0) is not None, lambda: None)
        assert source._child is not None
        os.kill(source._child._process.pid, signal.SIGSTOP)
        with pytest.raises(SourceError, match=r"no frame for 0\.3 s; check camera"):
            until(lambda: False, lambda: source.read(0.1))


@contextmanager
def streaming(data: bytes, connections: int) -> Iterator[int]:
    """A camera that sends its pictures to each of so many callers and then says nothing more; yields its port."""
    held: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            for _ in range(connections):
                try:
                    caller, _ = server.accept()
                except OSError:
                    return
                held.append(caller)
                caller.sendall(data)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield int(server.getsockname()[1])
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            for caller in held:
                caller.close()


def test_a_live_stream_that_stalls_is_counted_and_reconnected(tmp_path: Path) -> None:
    """A camera that falls silent delivers faults at its rate, and pictures again once it answers a new call."""
    write_stream(tmp_path / "live.ts")
    with streaming((tmp_path / "live.ts").read_bytes(), 2) as port:
        job = DecodeJob("network", f"tcp://127.0.0.1:{port}")
        with VideoSource(job, name="x", shown="cam", rate_hz=20, stall_s=0.5, frozen_after_s=inf) as source:
            frames: list[Frame] = []
            seen: list[str] = []

            def step() -> None:
                collect(frames, source.read(0.2))
                kind = "fault" if frames and frames[-1].fault else "picture"
                if frames and seen[-1:] != [kind]:
                    seen.append(kind)

            until(lambda: seen == ["picture", "fault", "picture"], step)
            assert source.reconnects == 1
            assert "no frame for 0.5 s" in source.last_error
            assert {frame.fault for frame in frames} == {None, "stalled"}
            assert all(frame.image is None for frame in frames if frame.fault)
            assert not source.ended


def write_stream(path: Path) -> None:
    """A hundred noisy pictures as MPEG-TS."""
    rng = np.random.default_rng(0)
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"mpg2"), 25, (64, 48))
    assert writer.isOpened()
    for _ in range(100):
        writer.write(rng.integers(0, 256, (48, 64, 3), dtype=np.uint8))
    writer.release()


def test_a_camera_that_is_not_there() -> None:
    """A camera that refuses is tried again with growing pauses, and each turn counts as missing."""
    with open_source("rtsp://user:secret@127.0.0.1:9/main", name="x", rate_hz=50) as source:
        assert isinstance(source, VideoSource)
        frames: list[Frame] = []
        until(lambda: source.reconnects >= 1 and len(frames) > 3, lambda: collect(frames, source.read(0.2)))
        assert {frame.fault for frame in frames} == {"stalled"}
        assert "127.0.0.1:9/main: cannot be opened" in source.last_error
        assert "secret" not in source.last_error


def test_real_clip(real_data: Path) -> None:
    """The real clip has the number of frames that its card says."""
    assert len(play(real_data / "intel_car_detection.mp4", limit=1000)) == 377
