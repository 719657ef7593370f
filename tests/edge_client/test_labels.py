"""Labels: what the installer gathered, and a file that grows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devices.packs import ImagePack, SeriesPack, open_pack
from devices.preprocess import Preprocess, PreprocessConfig
from edge_client.labels import LabelFile, image_samples, open_commissioning, series_samples
from edge_models.scales import Scale
from edge_models.tasks import load_task
from edge_protocol.errors import DataError, StoreError
from tests.edge_client.device_rig import image_pack, series_pack

VEHICLE, SPEED, CLINIC = load_task("vehicle"), load_task("speed"), load_task("clinic")


def test_commissioning_images_keep_their_class_by_name(tmp_path: Path) -> None:
    """A pack may order its classes otherwise, know others, and leave images unlabelled."""
    images = np.random.default_rng(1).integers(0, 255, (4, 40, 50, 3), dtype=np.uint8)
    pack = ImagePack.of(images, labels=np.array([0, 1, -1, 2]), classes=("truck", "zeppelin", "car"))
    preprocess = Preprocess(VEHICLE.input, PreprocessConfig(gains=(2.0, 1.0, 1.0)))  # type: ignore[arg-type]
    kept = list(image_samples(pack, VEHICLE, preprocess))
    assert [(k.sample.rpartition("-")[0], k.target) for k in kept] == [("commissioning-0", 5), ("commissioning-3", 1)]
    assert kept[0].raw.shape == (32, 32, 3)
    np.testing.assert_array_equal(kept[0].raw, preprocess.raw(images[0]))
    assert kept[0].side is None


def test_a_pack_s_groups_come_together_and_its_pictures_keep_their_names() -> None:
    """Each vehicle where its first picture stood; another pack names a picture alike only where it is the same one."""
    images = np.random.default_rng(1).integers(0, 255, (5, 32, 32, 3), dtype=np.uint8)
    labels = np.array([0, 1, 0, 1, 0])
    groups = np.array([7, 2, 7, 9, 2])
    preprocess = Preprocess(VEHICLE.input)  # type: ignore[arg-type]

    def kept(pack: ImagePack) -> dict[str, tuple[float, int]]:
        return {k.sample: (k.at_s, int(k.raw[0, 0, 0])) for k in image_samples(pack, VEHICLE, preprocess)}

    named = kept(ImagePack.of(images, labels=labels, classes=VEHICLE.labels, groups=groups))
    assert [raw for _, raw in named.values()] == images[[0, 2, 1, 4, 3], 0, 0, 0].tolist()
    assert [at_s for at_s, _ in named.values()] == [0, 1, 2, 3, 4]
    assert [name.split("-")[1] for name in named] == ["0", "2", "1", "4", "3"]
    longer = np.concatenate([images[:2], images[3:], images[:1]])
    again = kept(ImagePack.of(longer, labels=labels, classes=VEHICLE.labels))
    assert [at_s for at_s, _ in again.values()] == [0, 1, 2, 3, 4], "a pack without groups stays in its order"
    assert set(named) & set(again) == {name for name in named if name.split("-")[1] in "01"}


def test_a_clinics_samples_keep_their_side_inputs() -> None:
    """The personal head sees them."""
    images = np.zeros((2, 32, 32, 3), np.uint8)
    side = np.arange(12, dtype=np.float32).reshape(2, 6)
    pack = ImagePack.of(images, labels=np.array([0, 1]), classes=CLINIC.labels, side=side, side_names=CLINIC.side)
    kept = list(image_samples(pack, CLINIC, Preprocess(CLINIC.input)))  # type: ignore[arg-type]
    np.testing.assert_array_equal(kept[1].side, side[1])


def test_a_sensors_history_becomes_windows_with_what_came_after(tmp_path: Path) -> None:
    """Only windows with a measured future, in order of time."""
    pack = open_pack(series_pack(tmp_path, 60))
    assert isinstance(pack, SeriesPack)
    kept = list(series_samples(pack, SPEED, Scale.fit(pack.values)))
    assert len(kept) > 60
    assert all(np.isfinite(np.asarray(k.target)).any() for k in kept)
    assert len({float(np.asarray(k.side)[0]) for k in kept}) == len(pack.sensors)
    assert {k.at_s for k in kept} <= set(pack.time_s.tolist()), "each when its window ends"
    times = [k.at_s for k in kept]
    assert times == sorted(times)
    assert times[0] >= pack.time_s[0]
    assert times[-1] <= pack.time_s[-1]


def test_a_pack_of_the_other_kind_is_an_error(tmp_path: Path) -> None:
    """Images for a camera, a series for a sensor."""
    with pytest.raises(DataError, match="needs a series"):
        open_commissioning(str(image_pack(tmp_path, 4)), SPEED)
    with pytest.raises(DataError, match="needs images"):
        open_commissioning(str(series_pack(tmp_path, 20)), VEHICLE)
    assert len(open_commissioning(str(image_pack(tmp_path, 4)), VEHICLE)) == 4


def test_a_label_file_is_read_as_it_grows(tmp_path: Path) -> None:
    """Complete lines only, each once; a file that began anew is read anew; garbage is left out."""
    path = tmp_path / "labels.csv"
    labels = LabelFile(path)
    assert labels.poll() == []
    path.write_text("main-1,car\nmain-2, truck \nbroken\n,,,\nmain-3,bi")
    assert labels.poll() == [("main-1", "car"), ("main-2", "truck")]
    assert labels.poll() == []
    with path.open("a") as file:
        file.write("ke\n")
    assert labels.poll() == [("main-3", "bike")]
    path.write_bytes(b"x,y\n")
    assert labels.poll() == [("x", "y")]
    path.write_bytes(b'\xff\xfe\x00,\n"open quote\n' * 3)
    labels.poll()
    path.unlink()
    path.mkdir()
    assert labels.poll() == []


def test_a_line_is_added_while_others_read(tmp_path: Path) -> None:
    """Behind what somebody left without an end, with names that hold commas; a place that is none is an error."""
    path = tmp_path / "labels.csv"
    reader, writer = LabelFile(path), LabelFile(path)
    writer.append("ward/a,b.png", "refer")
    assert reader.poll() == [("ward/a,b.png", "refer")]
    with path.open("a") as file:
        file.write("main-1,car")
    writer.append("main-2", "truck")
    assert reader.poll() == [("main-1", "car"), ("main-2", "truck")]
    with pytest.raises(StoreError, match="was not noted"):
        LabelFile(tmp_path).append("main-1", "car")
