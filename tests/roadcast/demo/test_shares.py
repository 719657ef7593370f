"""Who gets what: no vehicle and no sensor twice, nothing held out seen, every share of use."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest

from devices.packs import UNLABELLED, ImagePack, SeriesPack
from edge_protocol.errors import DataError
from roadcast.demo.fleet import cameras, sensors
from roadcast.demo.image_shares import ImageSizes, share_images, under
from roadcast.demo.series_shares import SeriesSizes, by_road, share_series

CLASSES = ("a", "b", "c")
SMALL = ImageSizes(anchors=30, validation=30, proxies=60, test_conditions=2)
SERIES = SeriesSizes(anchors=1, proxies=1, validation=2, device=2, test=2, anchor_rows=40, proxy_rows=30)


def _images(count: int = 600) -> ImagePack:
    """Images that carry their own number in two pixels; three in a row are one vehicle."""
    rng = np.random.default_rng(3)
    images = rng.integers(60, 200, (count, 16, 16, 3), dtype=np.uint8)
    groups = np.arange(count) // 3
    return ImagePack.of(
        images, classes=CLASSES, labels=groups % 3, groups=groups, split=(groups % 5 == 0).astype(np.uint8)
    )


def _series(sensors: int = 14, rows: int = 200) -> SeriesPack:
    rng = np.random.default_rng(5)
    return SeriesPack(
        values=rng.normal(50, 5, (rows, sensors)).astype(np.float32),
        time_s=np.arange(rows, dtype=np.float64) * 300,
        interval_s=300.0,
        sensors=tuple(f"s{i}" for i in range(sensors)),
        unit="mph",
    )


def _disjoint(parts: Iterable[Iterable[object]]) -> bool:
    return all(not set(a) & set(b) for a, b in combinations([list(part) for part in parts], 2))


def test_no_vehicle_is_in_two_shares() -> None:
    """Server, cameras and held-out images share no vehicle; and every training image is used at most once."""
    shares = share_images(_images(), cameras(), SMALL, np.random.default_rng(0))
    trained = [shares.anchors, shares.validation, shares.proxies]
    for camera in shares.cameras.values():
        trained.append(ImagePack.of(np.zeros((0, 16, 16, 3), np.uint8), classes=CLASSES))
        trained.append(camera.commissioning)
    groups = [set(pack.groups.tolist()) for pack in trained]
    assert _disjoint(groups)
    assert _disjoint([set().union(*groups), shares.test.groups.tolist()])
    assert _disjoint([camera.test.groups.tolist() for camera in shares.cameras.values()])


def test_the_server_s_images_are_balanced_and_proxies_have_no_labels() -> None:
    """Anchors hold equally many of each class; no label of a proxy leaves the pack."""
    shares = share_images(_images(), cameras(), SMALL, np.random.default_rng(0))
    assert np.bincount(shares.anchors.labels).tolist() == [9, 9, 9]
    assert len(shares.proxies) == 54
    assert set(shares.proxies.labels.tolist()) == {UNLABELLED}


def test_every_camera_has_images_of_its_own_to_learn_from_and_to_be_measured_on() -> None:
    """Class skew leaves no camera with next to nothing."""
    shares = share_images(_images(), cameras(), SMALL, np.random.default_rng(0))
    sizes = [len(camera.commissioning) for camera in shares.cameras.values()]
    assert min(sizes) > 0.4 * sum(sizes) / 4
    assert all(len(camera.test) and len(camera.live) for camera in shares.cameras.values())


def test_the_same_seed_deals_the_same_shares() -> None:
    """Dealing is reproducible, pictures included."""
    one, two = (share_images(_images(), cameras(), SMALL, np.random.default_rng(9)) for _ in range(2))
    assert np.array_equal(one.test.images, two.test.images)
    assert np.array_equal(one.cameras["cam-east"].live.images, two.cameras["cam-east"].live.images)


def test_conditions_are_drawn_by_their_share() -> None:
    """A camera in the fog sees fog; the order of images and their labels stay."""
    pack = _images(90)
    fogged = under(pack, {"fog": 1.0}, np.random.default_rng(0))
    mixed = under(pack, {"clean": 0.5, "night": 0.5}, np.random.default_rng(0))
    dark = (mixed.images.mean(axis=(1, 2, 3)) < 80).mean()
    assert fogged.images.std() < pack.images.std()
    assert np.array_equal(fogged.labels, pack.labels)
    assert 0.3 < dark < 0.7


def test_too_few_images_are_refused() -> None:
    """The message says how many are needed; a pack without held-out images is refused too."""
    with pytest.raises(DataError, match=r"needs 320 training .* has 72 and 18"):
        share_images(_images(90), cameras(), SMALL, np.random.default_rng(0))
    pack = _images()
    with pytest.raises(DataError, match="and 0"):
        share_images(replace(pack, split=np.zeros(len(pack), np.uint8)), cameras(), SMALL, np.random.default_rng(0))


def test_no_sensor_is_in_two_shares_and_nobody_sees_the_future() -> None:
    """Sensors are dealt once; what is held out comes after everything that anybody has."""
    names = [member.name for member in sensors()]
    shares = share_series(_series(), names, SERIES, np.random.default_rng(0))
    owners = [shares.anchors, shares.proxies, shares.validation, shares.test]
    owners += [device.history for device in shares.devices.values()]
    assert _disjoint([pack.sensors for pack in owners])
    seen = [shares.anchors, shares.proxies, shares.validation, shares.past]
    seen += [part for device in shares.devices.values() for part in (device.history, device.live)]
    held = [shares.test, *(device.test for device in shares.devices.values())]
    assert max(pack.time_s[-1] for pack in seen) < min(pack.time_s[0] for pack in held)
    assert shares.past.sensors == shares.test.sensors
    assert (len(shares.anchors), len(shares.proxies)) == (40, 30)


def test_neighbours_are_grouped_by_road() -> None:
    """Two roads that do not meet end in different groups."""
    near = np.abs(np.arange(4)[:, None] - np.arange(4)[None]).astype(float)
    apart = np.full((4, 4), np.inf)
    groups = by_road(np.block([[near, apart], [apart, near]]), [4, 4], np.random.default_rng(1))
    assert sorted(map(sorted, groups)) == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_a_directed_distance_counts_both_ways() -> None:
    """A one-way street joins its ends all the same."""
    distance = np.full((3, 3), np.inf)
    distance[0, 1] = distance[1, 2] = 1.0
    np.fill_diagonal(distance, 0)
    assert sorted(by_road(distance, [3], np.random.default_rng(0))[0].tolist()) == [0, 1, 2]


def test_proxies_are_the_busiest_hours() -> None:
    """Windows that all devices answer are cut where readings change."""
    pack = _series()
    values = np.full_like(pack.values, 50.0)
    values[60:90] += np.random.default_rng(0).normal(0, 20, (30, 14)).astype(np.float32)
    names = [member.name for member in sensors()]
    shares = share_series(replace(pack, values=values), names, SERIES, np.random.default_rng(0))
    assert 55 <= shares.proxies.time_s[0] / 300 <= 65


def test_too_few_sensors_are_refused() -> None:
    """The message says how many are needed."""
    with pytest.raises(DataError, match=r"needs 14 sensors and 40 rows .* has 6 and 140"):
        share_series(_series(6), [member.name for member in sensors()], SERIES, np.random.default_rng(0))
