"""A camera against its commissioning frame, on a drawn street and on a real clip."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from devices.telemetry.scene import Scene, SceneWatch
from edge_protocol.errors import DataError, StoreError

U1 = npt.NDArray[np.uint8]
HEIGHT, WIDTH = 240, 320


def street(seed: int = 7, cars: int = 0) -> U1:
    """A street with kerbs, windows and texture; cars of any place on it."""
    rng = np.random.default_rng(seed)
    image = np.full((HEIGHT, WIDTH, 3), 90, np.uint8)
    image[:90] = 150
    fixed = np.random.default_rng(1)
    for _ in range(60):
        x, y = fixed.integers(0, WIDTH - 20), fixed.integers(0, 80)
        cv2.rectangle(image, (int(x), int(y)), (int(x) + 12, int(y) + 9), fixed.integers(20, 230, 3).tolist(), -1)
    for kerb in range(0, WIDTH, 40):
        cv2.line(image, (kerb, 100), (kerb * 2 - 160, HEIGHT), (220, 220, 220), 2)
    for _ in range(cars):
        x, y = rng.integers(0, WIDTH - 60), rng.integers(110, HEIGHT - 40)
        cv2.rectangle(image, (int(x), int(y)), (int(x) + 50, int(y) + 25), rng.integers(0, 255, 3).tolist(), -1)
    noisy = image.astype(np.float32) + rng.normal(0, 3, image.shape)
    return np.clip(noisy, 0, 255).astype(np.uint8)


def moved(image: U1, right: float, down: float) -> U1:
    """The picture of a camera that was turned."""
    by = np.array([[1, 0, right * WIDTH], [0, 1, down * WIDTH]], np.float32)
    return np.asarray(cv2.warpAffine(image, by, (WIDTH, HEIGHT), borderMode=cv2.BORDER_REFLECT), np.uint8)


def covered(image: U1, share: float) -> U1:
    """A picture whose left is covered."""
    image = image.copy()
    image[:, : int(share * WIDTH)] = 70
    return image


@pytest.mark.parametrize("seed", range(5))
def test_traffic_light_and_fog_are_no_fault(seed: int) -> None:
    """Other cars, dusk, bright sun and thin fog leave the view what it was."""
    scene, now = Scene.of(street()), street(seed, cars=5)
    for seen in (now, (now * 0.4).astype(np.uint8), np.clip(now * 1.4, 0, 255).astype(np.uint8), now // 2 + 90):
        assert scene.compare(seen).fault is None


@pytest.mark.parametrize("seed", range(5))
def test_what_happens_to_cameras_is_found(seed: int) -> None:
    """Turned by a twentieth of the picture, half covered, out of focus, black, too dark to say."""
    scene, now = Scene.of(street()), street(seed, cars=3)
    assert scene.compare(moved(now, 0.06, 0.0)).fault == "moved"
    assert scene.compare(moved(now, -0.05, 0.05)).fault == "moved"
    assert scene.compare(covered(now, 0.6)).fault == "occluded"
    assert scene.compare(np.asarray(cv2.GaussianBlur(now, (0, 0), 4), np.uint8)).fault == "blurred"
    assert scene.compare(np.zeros_like(now)).fault == "black"
    assert scene.compare(now // 8).fault == "dark"


def test_the_shift_is_measured() -> None:
    """To the right and down, as a share of the width."""
    view = Scene.of(street()).compare(moved(street(3), 0.1, 0.05))
    assert view.shift == pytest.approx((0.1, 0.05), abs=0.01)


def test_one_lorry_is_no_fault_and_a_fault_that_stays_is() -> None:
    """Two thirds of the last frames must agree."""
    watch, good, bad = SceneWatch(Scene.of(street()), frames=9), street(2), moved(street(2), 0.1, 0.0)
    assert [watch.fault(good) for _ in range(9)] == [None] * 9
    assert watch.fault(bad) is None
    assert [watch.fault(bad) for _ in range(6)][-1] == "moved"


def test_another_size_is_a_fault_of_its_own() -> None:
    """A frame of another resolution is resized, and nothing else is said of it."""
    view = Scene.of(street()).compare(street()[:100])
    assert (view.fault, view.lost, view.match) == ("resized", None, None)


def test_a_wall_without_structure_raises_nothing() -> None:
    """A commissioning frame with nothing in it makes no alarm of blur or cover."""
    wall = np.full((HEIGHT, WIDTH, 3), 120, np.uint8)
    assert Scene.of(wall).compare(wall).fault in {None, "moved"}


def test_a_scene_outlives_the_process(tmp_path: Path) -> None:
    """Saved and loaded it judges alike; what is no scene, or a torn one, is refused."""
    scene = Scene.of(street())
    scene.save(tmp_path / "scenes" / "road.npz")
    again = Scene.load(tmp_path / "scenes" / "road.npz")
    for seen in (street(3), moved(street(3), 0.1, 0.0)):
        assert again.compare(seen) == scene.compare(seen)
    whole = (tmp_path / "scenes" / "road.npz").read_bytes()
    for data in (b"", b"no zip", whole[: len(whole) // 2], whole[:-100]):
        (tmp_path / "x.npz").write_bytes(data)
        with pytest.raises(DataError, match="commission"):
            Scene.load(tmp_path / "x.npz")
    np.savez(tmp_path / "y.npz", shape=np.array([9, 9]), texture=again.texture, detail=again.detail, edges=again.edges)
    with pytest.raises(DataError, match="torn"):
        Scene.load(tmp_path / "y.npz")
    with pytest.raises(StoreError, match="cannot write"):
        scene.save(tmp_path / "x.npz" / "z.npz")


def test_a_real_clip_is_the_same_view_and_its_damaged_frames_are_not(real_data: Path) -> None:
    """Forty frames of real traffic raise no alarm; turned, covered or out of focus, the same frames do."""
    clip = cv2.VideoCapture(str(real_data / "intel_car_detection.mp4"))
    frames = [np.asarray(clip.read()[1], np.uint8) for _ in range(int(clip.get(cv2.CAP_PROP_FRAME_COUNT)))][::9]
    clip.release()
    scene = Scene.of(frames[0])
    height, width = frames[0].shape[:2]
    shift = np.array([[1, 0, 0.08 * width], [0, 1, 0]], np.float32)
    cases = {
        None: frames,
        "moved": [np.asarray(cv2.warpAffine(frame, shift, (width, height)), np.uint8) for frame in frames],
        "blurred": [np.asarray(cv2.GaussianBlur(frame, (0, 0), 4), np.uint8) for frame in frames],
    }
    for wanted, seen in cases.items():
        watch = SceneWatch(scene)
        said = [watch.fault(frame) for frame in seen]
        assert set(said[9:]) == {wanted}
