"""The decoding child's work, run in this process: jobs, wishes, frames and failures."""

from __future__ import annotations

import io
import socket
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import msgspec
import numpy as np
import pytest

from devices.sources.decoder import END, FAILURE, FRAME, HEADER, DecodeJob, frames_of, open_capture, prepare, serve
from edge_protocol.errors import SourceError
from roadcast.simulated.road import busy_scene, write_clip


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight frames of a rendered road."""
    path = tmp_path_factory.mktemp("clip") / "road.mp4"
    write_clip(path, busy_scene(), 8)
    return path


def talk(job: DecodeJob | bytes, wishes: int) -> list[tuple[bytes, tuple[int, int], bytes]]:
    """What the child says to a job and so many wishes: kind, height and width, body."""
    line = job if isinstance(job, bytes) else msgspec.json.encode(job)
    out = io.BytesIO()
    serve(io.BytesIO(line + b"\n" + b"." * wishes), out)
    return list(parse(out.getvalue()))


def parse(data: bytes) -> Iterator[tuple[bytes, tuple[int, int], bytes]]:
    """Take an answer apart."""
    while data:
        kind, height, width, _, _ = HEADER.unpack(data[: HEADER.size])
        size = {FRAME: height * width * 3, FAILURE: height, END: 0}[kind]
        yield kind, (height, width), data[HEADER.size : HEADER.size + size]
        data = data[HEADER.size + size :]


def test_one_frame_per_wish(clip: Path) -> None:
    """Nothing is decoded that nobody asked for, and the end is said."""
    assert [kind for kind, _, _ in talk(DecodeJob("file", str(clip)), 3)] == [FRAME] * 3
    answers = talk(DecodeJob("file", str(clip)), 20)
    assert [kind for kind, _, _ in answers] == [FRAME] * 8 + [END]
    assert answers[0][1] == (240, 320)


def test_loop_and_width(clip: Path) -> None:
    """A looped clip begins again, and pictures are shrunk on the far side of the pipe."""
    answers = talk(DecodeJob("file", str(clip), loop=True, width=160), 20)
    assert [(kind, size) for kind, size, _ in answers] == [(FRAME, (120, 160))] * 20
    assert answers[8][2] == answers[0][2]


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (DecodeJob("file", "/nope.mp4"), b"cannot be opened"),
        (DecodeJob("network", "rtsp://127.0.0.1:9/none"), b"cannot be opened"),
        (DecodeJob("v4l2", "/dev/no-video", width=64, fps=5), b"cannot be opened"),
        (DecodeJob("gstreamer", "nonsense"), b"cannot be opened"),
        (b"{}", b"missing required field"),
    ],
)
def test_what_cannot_be_opened(job: DecodeJob | bytes, message: bytes) -> None:
    """Each failure is said in words."""
    ((kind, _, text),) = talk(job, 1)
    assert kind == FAILURE
    assert message in text


def test_a_playlist_does_not_reach_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that points to a server is refused, and the server is never called."""
    monkeypatch.setattr("devices.sources.decoder._OPEN_TIMEOUT_MS", 500)
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        link = f"http://127.0.0.1:{server.getsockname()[1]}/a.ts"
        (tmp_path / "a.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{link}\n")
        assert talk(DecodeJob("file", str(tmp_path / "a.m3u8")), 1)[0][0] == FAILURE
        with pytest.raises(BlockingIOError):
            server.accept()


class Camera:
    """Gives the pictures it was given, then nothing."""

    def __init__(self, *pictures: Any) -> None:
        self.pictures = list(pictures)

    def read(self) -> tuple[bool, Any]:
        """As `VideoCapture.read`."""
        return (True, self.pictures.pop(0)) if self.pictures else (False, None)

    def get(self, _: int) -> float:
        """As `VideoCapture.get`."""
        return 0.0


def test_a_file_without_a_picture() -> None:
    """A clip that opens and holds nothing is a failure, not a short film."""
    out = io.BytesIO()
    serve(io.BytesIO(msgspec.json.encode(DecodeJob("file", "x")) + b"\n."), out, lambda _: Camera())
    ((kind, _, text),) = parse(out.getvalue())
    assert (kind, text) == (FAILURE, b"no picture could be decoded")


def test_a_live_camera_gives_its_newest_picture_then_ends() -> None:
    """A camera that goes away is said to be gone."""
    following = frames_of(DecodeJob("network", "x"), Camera(np.zeros((2, 2, 3), np.uint8)))
    assert [following() is not None for _ in range(2)] in ([True, False], [False, False])


def test_pictures_of_no_camera() -> None:
    """Giant and colourless pictures are refused before they are sent; colours come out as RGB."""
    for shape in ((9000, 2, 3), (4, 4)):
        with pytest.raises(SourceError, match="a picture of"):
            prepare(np.zeros(shape, np.uint8), 0)
    assert prepare(np.full((4, 4, 3), (1, 2, 3), np.uint8), 8)[0, 0].tolist() == [3, 2, 1]


def test_header_is_stable() -> None:
    """Parent and child agree on 28 bytes."""
    assert HEADER.size == struct.calcsize("<4sIIdd") == 28


def test_capture_of_a_clip(clip: Path) -> None:
    """A clip opens as itself."""
    capture = open_capture(DecodeJob("file", str(clip)))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 8
    capture.release()
