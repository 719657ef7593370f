"""Sources are tried out, and so is the state directory."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from devices.boards.attached import Camera
from devices.doctor.source_checks import check_cameras, check_source, check_state_dir
from devices.telemetry.scene import Scene


def _pictures(folder: Path, value: int, count: int = 3) -> str:
    folder.mkdir()
    for number in range(count):
        rng = np.random.default_rng(number)
        cv2.imwrite(str(folder / f"{number}.png"), np.clip(rng.normal(value, 4, (48, 64, 3)), 0, 255).astype(np.uint8))
    return f"folder://{folder}"


def test_a_source_that_delivers_is_ok(tmp_path: Path) -> None:
    """The size of its pictures is said."""
    (finding,) = check_source("road", _pictures(tmp_path / "a", 120))
    assert (finding.level, finding.says) == ("ok", "road: 64x48")


@pytest.mark.parametrize("uri", ["rtsp://127.0.0.1:9/x#stall_s=1", "file:///none.mp4", "ftp://x", "folder:///none"])
def test_a_source_that_does_not_deliver_fails(uri: str) -> None:
    """Nobody there, no such file, an unknown address: one line and a fix."""
    (finding,) = check_source("road", uri, first_s=2.0)
    assert finding.level == "fail"
    assert finding.says.startswith("road: ")
    assert finding.fix


def test_a_record_beside_an_image_counts_for_a_task_that_reads_it(tmp_path: Path) -> None:
    """A damaged one is no good frame to a clinic, and nothing to a camera."""
    uri = _pictures(tmp_path / "a", 120)
    for picture in list((tmp_path / "a").iterdir()):
        picture.with_suffix(".json").write_text('{"age": 61')
    assert check_source("ward", uri, first_s=2.0)[0].level == "ok"
    (finding,) = check_source("ward", uri, side=("age",), first_s=2.0)
    assert finding.level == "fail"
    assert "no good frame" in finding.says


def test_passwords_of_cameras_are_not_shown() -> None:
    """What stands before @ stays out of the report."""
    (finding,) = check_source("road", "rtsp://admin:secret@127.0.0.1:9/x#stall_s=1", first_s=2.0)
    assert "secret" not in finding.says + finding.fix


def test_a_camera_is_held_against_its_commissioning_frame(tmp_path: Path) -> None:
    """The same view is ok, a turned camera fails, another resolution is a warning."""
    rng = np.random.default_rng(5)
    blocks = np.kron(rng.integers(20, 230, (12, 16)), np.ones((20, 20)))
    wide = np.repeat(blocks[:, :, None], 3, axis=2).astype(np.uint8)
    views = {"same": wide[:, :280], "turned": wide[:, 40:], "small": wide[:100, :100]}
    scene = tmp_path / "scene.npz"
    Scene.of(views["same"]).save(scene)
    levels = {}
    for name, view in views.items():
        (tmp_path / name).mkdir()
        for number in range(6):
            noisy = np.clip(view + rng.normal(0, 3, view.shape), 0, 255).astype(np.uint8)
            cv2.imwrite(str(tmp_path / name / f"{number}.png"), noisy)
        source, found = check_source("road", f"folder://{tmp_path / name}", scene)
        levels[name] = (source.level, found.level)
    assert levels == {"same": ("ok", "ok"), "turned": ("ok", "fail"), "small": ("ok", "warn")}
    scene.write_bytes(scene.read_bytes()[:100])
    source, torn = check_source("road", f"folder://{tmp_path / 'same'}", scene)
    assert (source.level, torn.level) == ("ok", "fail")
    assert "devices commission" in torn.fix


def test_plugged_cameras_are_listed() -> None:
    """None is no fault: cameras come over the network too."""
    assert check_cameras((Camera("/dev/video0", "C920", "usb"),)).says == "/dev/video0 C920"
    assert check_cameras(()).level == "ok"


def test_the_state_directory_has_room(tmp_path: Path) -> None:
    """There with room is ok; not there can be mended safely; too small a disk fails."""
    assert check_state_dir(tmp_path, 1).level == "ok"
    missing = check_state_dir(tmp_path / "a b", 1)
    assert (missing.level, missing.safe, missing.fix) == ("warn", True, f"mkdir -p '{tmp_path / 'a b'}'")
    assert check_state_dir(tmp_path, 1 << 60).level == "fail"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_state_directory_that_cannot_be_written_fails(tmp_path: Path) -> None:
    """The user that runs the doctor is the one that will serve."""
    tmp_path.chmod(0o500)
    assert check_state_dir(tmp_path, 1).level == "fail"
