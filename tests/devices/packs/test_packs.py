"""Packs: what is written is read, and what is damaged is refused with advice."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from devices.packs import UNLABELLED, ImagePack, SeriesPack, card_path, npz, open_pack, read_card, save_pack
from edge_protocol.errors import DataError, StoreError


def images(count: int = 4) -> ImagePack:
    """A small pack of random images."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 8, 9, 3), dtype=np.uint8)
    side = rng.normal(size=(count, 2)).astype(np.float32)
    labels = np.arange(count) % 2
    return ImagePack.of(pixels, classes=("car", "bike"), labels=labels, side=side, side_names=("age", "heat"))


def series(rows: int = 5, sensors: int = 3) -> SeriesPack:
    """A small series with a hole."""
    values = np.arange(rows * sensors, dtype=np.float32).reshape(rows, sensors)
    values[1, 1] = np.nan
    names = tuple(f"s{i}" for i in range(sensors))
    distance = np.ones((sensors, sensors), np.float32)
    times = np.arange(rows) * 300.0
    return SeriesPack(values=values, time_s=times, interval_s=300.0, sensors=names, unit="mph", distance=distance)


def save_arrays(path: Path, **arrays: Any) -> Path:
    """An `.npz` as a stranger may write it."""
    np.savez(path, **arrays)
    return path


def test_images_come_back(tmp_path: Path) -> None:
    """An image pack is read as it was written, and its card says what it is."""
    path, pack = tmp_path / "deep" / "a.npz", images()
    save_pack(path, pack, title="test", source="here", licence="none")
    back = open_pack(path)
    assert isinstance(back, ImagePack)
    for name in ("images", "labels", "side", "groups", "split"):
        np.testing.assert_array_equal(getattr(back, name), getattr(pack, name))
    assert (back.classes, back.side_names, len(back)) == (pack.classes, pack.side_names, 4)
    card = read_card(path)
    assert card is not None
    assert (card.title, card.source, card.licence, card.bytes) == ("test", "here", "none", path.stat().st_size)
    assert list(path.parent.iterdir()) == [path, card_path(path)] or len(list(path.parent.iterdir())) == 2


def test_labels_and_side_inputs_are_found_by_name() -> None:
    """In whatever order others have them; a class that they lack is no label, a missing column an error."""
    pack = images()
    assert pack.labels_as(["bike", "bus", "car"]).tolist() == [2, 0, 2, 0]
    assert pack.labels_as(["bike"]).tolist() == [-1, 0, -1, 0]
    bare = ImagePack.of(pack.images, classes=(), labels=np.full(4, UNLABELLED))
    assert bare.labels_as(["bike"]).tolist() == [-1] * 4
    np.testing.assert_array_equal(pack.with_side(("heat",)).side, pack.side[:, [1]])
    assert bare.with_side(("heat",)) is bare
    with pytest.raises(DataError, match="age, heat"):
        pack.with_side(("weight",))


@pytest.mark.parametrize("distance", [True, False])
def test_series_come_back(tmp_path: Path, distance: bool) -> None:
    """A series pack is read as it was written, holes and all."""
    path, pack = tmp_path / "a.npz", series()
    if not distance:
        pack = SeriesPack(values=pack.values, time_s=pack.time_s, interval_s=300.0, sensors=pack.sensors, unit="mph")
    save_pack(path, pack, title="test")
    back = open_pack(path)
    assert isinstance(back, SeriesPack)
    np.testing.assert_array_equal(back.values, pack.values)
    assert (back.sensors, back.unit, back.interval_s, len(back)) == (pack.sensors, "mph", 300.0, 5)
    assert (back.distance is not None) == distance


def test_unlabelled_images_without_classes_come_back(tmp_path: Path) -> None:
    """A pack may hold images that nobody has labelled."""
    save_pack(tmp_path / "a.npz", ImagePack.of(images().images, classes=()), title="test")
    back = open_pack(tmp_path / "a.npz")
    assert isinstance(back, ImagePack)
    assert (back.labels == UNLABELLED).all()


def test_parts_of_packs() -> None:
    """Chosen images, rows and sensors keep what belongs to them."""
    some = images().take(np.array([2, 0]))
    assert some.labels.tolist() == [0, 0]
    assert some.groups.tolist() == [2, 0]
    part = series().rows(slice(1, 3)).columns(np.array([2, 1]))
    assert part.values.shape == (2, 2)
    assert part.sensors == ("s2", "s1")
    assert part.distance is not None
    assert part.distance.shape == (2, 2)
    bare = SeriesPack(values=part.values, time_s=part.time_s, interval_s=300.0, sensors=part.sensors, unit="mph")
    assert bare.columns(np.array([0])).distance is None


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((4, 8, 9, 4), np.uint8)},
        {"images": np.zeros((4, 8, 9, 3), np.float32)},
        {"labels": np.zeros(3, np.int64)},
        {"labels": np.full(4, 2)},
        {"labels": np.full(4, -2)},
        {"side": np.zeros((4, 1), np.float32)},
        {"split": np.zeros((4, 1), np.uint8)},
    ],
)
def test_images_that_do_not_fit(tmp_path: Path, change: dict[str, Any]) -> None:
    """Arrays that do not fit each other are refused when a pack is opened."""
    pack = images()
    arrays = {"images": pack.images, "labels": pack.labels, "classes": np.array(pack.classes), "side": pack.side}
    arrays |= {"side_names": np.array(pack.side_names), "split": pack.split} | change
    with pytest.raises(DataError, match=r"a\.npz: .*; fetch or make the pack again"):
        open_pack(save_arrays(tmp_path / "a.npz", **arrays))


@pytest.mark.parametrize(
    "change",
    [
        {"values": np.zeros((5, 2), np.float32)},
        {"values": np.zeros((5, 3))},
        {"values": np.full((5, 3), np.inf, np.float32)},
        {"time_s": np.zeros(5)},
        {"time_s": np.array([0, 1, 2, 3, np.nan])},
        {"interval_s": np.float64(0)},
        {"interval_s": np.zeros(2)},
        {"sensors": np.arange(3)},
        {"distance": np.zeros((2, 2), np.float32)},
    ],
)
def test_series_that_do_not_fit(tmp_path: Path, change: dict[str, Any]) -> None:
    """A series of another shape, with infinite values or with time running backwards is refused."""
    pack = series()
    arrays = {"values": pack.values, "time_s": pack.time_s, "interval_s": np.float64(300), "unit": np.array("mph")}
    arrays |= {"sensors": np.array(pack.sensors), "distance": pack.distance} | change
    with pytest.raises(DataError, match="fetch or make the pack again"):
        open_pack(save_arrays(tmp_path / "a.npz", **arrays))


def test_missing_pack(tmp_path: Path) -> None:
    """A missing file is named, with how to find out what is there."""
    with pytest.raises(DataError, match=r"nope\.npz: no such file; `roadcast data list`"):
        open_pack(tmp_path / "nope.npz")


def test_unreadable_path(tmp_path: Path) -> None:
    """A path that is no file is refused."""
    with pytest.raises(DataError, match="cannot be read"):
        open_pack(tmp_path)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.9, 0.999])
def test_truncated_pack(tmp_path: Path, part: float) -> None:
    """A truncated file is refused with and without its card."""
    path = tmp_path / "a.npz"
    save_pack(path, images(50), title="test")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(DataError, match="its card says"):
        open_pack(path)
    card_path(path).unlink()
    with pytest.raises(DataError, match="truncated or not a data pack"):
        open_pack(path)


def test_damaged_pack(tmp_path: Path) -> None:
    """One changed byte is found by the card's hash, and without a card by the archive's own checksum."""
    path = tmp_path / "a.npz"
    save_pack(path, images(50), title="test")
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 0xFF
    path.write_bytes(data)
    with pytest.raises(DataError, match="sha256 is not the one on its card"):
        open_pack(path)
    card_path(path).unlink()
    with pytest.raises(DataError, match="truncated or not a data pack"):
        open_pack(path)


@pytest.mark.parametrize("text", [b"{", b"[]", b'{"file": 3}'])
def test_broken_card(tmp_path: Path, text: bytes) -> None:
    """A card that is no card is an error, not a reason to skip the check."""
    save_pack(tmp_path / "a.npz", images(), title="test")
    card_path(tmp_path / "a.npz").write_bytes(text)
    with pytest.raises(DataError, match="not a data card"):
        open_pack(tmp_path / "a.npz")


def test_oversized_card_and_card_that_is_a_folder(tmp_path: Path) -> None:
    """A huge card is not read, and a card that cannot be read is an error."""
    place = card_path(tmp_path / "a.npz")
    place.write_bytes(b" " * (2 << 20))
    with pytest.raises(DataError, match="a card of more than"):
        read_card(tmp_path / "a.npz")
    place.unlink()
    place.mkdir()
    with pytest.raises(DataError, match="cannot be read"):
        read_card(tmp_path / "a.npz")


def test_pickles_are_never_loaded(tmp_path: Path) -> None:
    """An array of objects is refused before anything is unpickled."""
    path = save_arrays(tmp_path / "a.npz", images=np.array([{"a": 1}], object))
    with pytest.raises(DataError, match="pickled objects, which are never loaded"):
        open_pack(path)


def test_a_size_that_lies_takes_no_memory(tmp_path: Path) -> None:
    """A header that claims terabytes is found out before the memory is asked for."""
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1099511627776,), }"
    header += b" " * (117 - len(header)) + b"\n"
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    with pytest.raises(DataError, match="claims 1099511627776 bytes, has 0"):
        open_pack(tmp_path / "a.npz")


def test_format_from_the_future(tmp_path: Path) -> None:
    """An array format that we do not know is refused."""
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("images.npy", b"\x93NUMPY\x09\x00" + bytes(120))
    with pytest.raises(DataError, match="not known here"):
        open_pack(tmp_path / "a.npz")


def test_bombs_are_not_unpacked(tmp_path: Path) -> None:
    """An archive that unpacks to more than the limit, or to hundreds of arrays, is refused unread."""
    np.savez_compressed(tmp_path / "a.npz", images=np.zeros((100, 100, 100, 3), np.uint8))
    with pytest.raises(DataError, match="would take more than 1 MiB"):
        npz.read_arrays(tmp_path / "a.npz", max_bytes=1 << 20)
    save_arrays(tmp_path / "b.npz", **{f"a{i}": np.zeros(1) for i in range(65)})
    with pytest.raises(DataError, match="65 arrays"):
        open_pack(tmp_path / "b.npz")


def test_unknown_layout(tmp_path: Path) -> None:
    """Arrays that are no pack are named."""
    with pytest.raises(DataError, match="arrays rows are no known layout"):
        open_pack(save_arrays(tmp_path / "a.npz", rows=np.zeros(3)))
    with pytest.raises(DataError, match="arrays none are no known layout"):
        open_pack(save_arrays(tmp_path / "b.npz"))


def test_images_without_class_names(tmp_path: Path) -> None:
    """Labels without names are refused: a model would be trained on numbers that mean nothing."""
    path = save_arrays(tmp_path / "a.npz", images=images().images, labels=images().labels)
    with pytest.raises(DataError, match="class names are neither in the file nor on a card"):
        open_pack(path)
    card_path(path).write_text(json.dumps({"file": "a.npz", "classes": ["car", "bike"]}))
    back = open_pack(path)
    assert isinstance(back, ImagePack)
    assert back.classes == ("car", "bike")


def jpegs(*sizes: int) -> dict[str, Any]:
    """JPEG images laid end to end."""
    blobs = [cv2.imencode(".jpg", np.full((size, size, 3), (10, 20, 200), np.uint8))[1] for size in sizes]
    offsets = np.cumsum([0, *map(len, blobs)])
    return {"jpeg_blob": np.concatenate(blobs) if blobs else np.zeros(0, np.uint8), "offsets": offsets}


def test_jpeg_blobs(tmp_path: Path) -> None:
    """Images packed as JPEG are decoded, as RGB."""
    back = open_pack(save_arrays(tmp_path / "a.npz", **jpegs(16, 16), classes=np.array(["car"])))
    assert isinstance(back, ImagePack)
    assert back.images.shape == (2, 16, 16, 3)
    assert np.abs(back.images[0, 0, 0].astype(int) - (200, 20, 10)).max() < 12
    assert len(open_pack(save_arrays(tmp_path / "b.npz", **jpegs(), classes=np.array(["car"])))) == 0


def test_bad_jpeg_blobs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wrong offsets, damaged images, mixed sizes and too much memory are refused."""
    good, names = jpegs(16, 16), np.array(["car"])
    cases = {
        "do not rise": good | {"offsets": good["offsets"][::-1]},
        "cannot be decoded": good | {"jpeg_blob": np.zeros_like(good["jpeg_blob"])},
        "JPEG image 1 is": jpegs(16, 24),
    }
    for message, arrays in cases.items():
        with pytest.raises(DataError, match=message):
            open_pack(save_arrays(tmp_path / "a.npz", **arrays, classes=names))
    monkeypatch.setattr("devices.packs.reader.MAX_BYTES", 1000)
    with pytest.raises(DataError, match="would take more than"):
        open_pack(save_arrays(tmp_path / "a.npz", **good, classes=names))


def test_saving_where_it_cannot(tmp_path: Path) -> None:
    """A wrong name or a disk that refuses is a store error, and leaves nothing behind."""
    with pytest.raises(StoreError, match=r"ends in \.npz"):
        save_pack(tmp_path / "a.zip", images(), title="test")
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        save_pack(tmp_path / "file" / "a.npz", images(), title="test")


def test_real_packs(real_data: Path) -> None:
    """The public data sets open as packs, with the counts on their cards."""
    vehicles = open_pack(real_data / "vehicle6_64_jpeg.npz")
    assert isinstance(vehicles, ImagePack)
    assert vehicles.images.shape == (4795, 64, 64, 3)
    assert np.bincount(vehicles.labels).tolist() == [800, 800, 800, 800, 800, 795]
    assert (vehicles.split == 1).sum() == 994
    assert not set(vehicles.groups[vehicles.split == 0]) & set(vehicles.groups[vehicles.split == 1])
    small = open_pack(real_data / "vehicle6_mini32.npz")
    assert isinstance(small, ImagePack)
    assert small.images.shape == (600, 32, 32, 3)
    speeds = open_pack(real_data / "metrla_week_speed.npz")
    assert isinstance(speeds, SeriesPack)
    assert (speeds.values.shape, speeds.interval_s, speeds.unit) == ((2016, 207), 300.0, "mph")
    assert speeds.distance is not None
    assert (np.diag(speeds.distance) == 0).all()
    cycles = open_pack(real_data / "muenster_cycle15.npz")
    assert isinstance(cycles, SeriesPack)
    assert (cycles.values.shape, cycles.interval_s) == ((70080, 21), 900.0)
    assert np.isnan(cycles.values).any()
