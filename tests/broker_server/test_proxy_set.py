"""Packs to samples, samples to the blob that devices pull."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save

from broker_server.proxy_set import Asked, build, drawn, load_samples, mingle, read, unguarded
from devices.packs import ImagePack, SeriesPack, save_pack
from edge_models.samples import UNLABELLED, Samples
from edge_models.tasks import load_task, plugin_of
from edge_protocol.errors import DataError
from edge_protocol.messages import MAX_SAMPLES

VEHICLE, SPEED, CLINIC = load_task("vehicle"), load_task("speed"), load_task("clinic")


def save_images(path: Path, classes: tuple[str, ...] = VEHICLE.labels) -> Path:
    """Save four images of 64 by 64 pixels, the last one unlabelled."""
    images = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), dtype=np.uint8)
    save_pack(path, ImagePack.of(images, classes=classes, labels=np.array([0, 1, 2, -1])), title="four")
    return path


def save_series(path: Path, rows: int = 60) -> Path:
    """Save two sensors."""
    values = np.random.default_rng(0).normal(50, 5, (rows, 2)).astype(np.float32)
    time_s = 300.0 * np.arange(rows)
    save_pack(
        path, SeriesPack(values=values, time_s=time_s, interval_s=300, sensors=("a", "b"), unit="mph"), title="two"
    )
    return path


def test_images_come_in_the_size_of_the_task(tmp_path: Path) -> None:
    """A pack of 64 by 64 becomes samples of 32 by 32 with their labels."""
    samples = load_samples(save_images(tmp_path / "images.npz"), VEHICLE)
    assert samples.raw.shape == (4, 32, 32, 3)
    assert samples.raw.dtype == np.uint8
    assert samples.targets.tolist() == [0, 1, 2, -1]


def test_series_are_cut_into_windows(tmp_path: Path) -> None:
    """A series pack becomes windows of the task's length, each with its sensor's scale."""
    samples = load_samples(save_series(tmp_path / "series.npz"), SPEED)
    assert samples.raw.shape[1:] == SPEED.input.raw_shape
    assert samples.scale.shape == (len(samples), 2)
    assert samples.labelled.any()


@pytest.mark.parametrize("task", [VEHICLE, SPEED])
def test_blob_round_trips_and_is_deterministic(task: object) -> None:
    """The same samples give the same bytes, and a device reads the raw samples back; no label travels."""
    spec = VEHICLE if task is VEHICLE else SPEED
    samples = plugin_of(spec).simulate(spec, np.random.default_rng(0), 20)
    blob = build(samples)
    assert blob == build(samples)
    np.testing.assert_array_equal(read(blob, spec), samples.raw)
    assert b"targets" not in blob


def test_other_packs_are_refused(tmp_path: Path) -> None:
    """A series cannot feed a camera task, images cannot feed a forecast, and other classes are named."""
    images, series = save_images(tmp_path / "i.npz"), save_series(tmp_path / "s.npz")
    for path, spec in ((series, VEHICLE), (images, SPEED)):
        with pytest.raises(DataError, match="cannot feed"):
            load_samples(path, spec)
    with pytest.raises(DataError, match=r"'vehicle' knows no tram, bus; its classes are bike, car"):
        load_samples(save_images(tmp_path / "other.npz", ("tram", "car", "bus")), VEHICLE)
    with pytest.raises(DataError):
        load_samples(tmp_path / "missing.npz", VEHICLE)


def test_classes_are_meant_by_name(tmp_path: Path) -> None:
    """In another order, or some of the task's only, they get the task's numbers; what is unlabelled stays so."""
    other = ("truck", "bike", "car")
    samples = load_samples(save_images(tmp_path / "other.npz", other), VEHICLE)
    assert samples.targets.tolist() == [*map(VEHICLE.labels.index, other), UNLABELLED]


def test_a_pack_without_labels_is_good_for_proxies_alone(tmp_path: Path) -> None:
    """A folder without sub-folders makes one; where labels are needed it is refused, like an empty one."""
    for name, count in (("plain", 3), ("empty", 0)):
        save_pack(tmp_path / f"{name}.npz", ImagePack.of(np.zeros((count, 9, 9, 3), np.uint8), classes=()), title=name)
        samples = load_samples(tmp_path / f"{name}.npz", VEHICLE)
        assert samples.targets.tolist() == [UNLABELLED] * count
        with pytest.raises(DataError, match=f"none of its {count} samples is labelled"):
            load_samples(tmp_path / f"{name}.npz", VEHICLE, labelled=True)
    with pytest.raises(DataError, match="none of its 0 samples is labelled"):
        load_samples(save_series(tmp_path / "short.npz", rows=3), SPEED, labelled=True)


def test_anchors_with_readings_hide_among_proxies_without(tmp_path: Path) -> None:
    """What a device knows beside an image is nothing that the server looks at, so it need not be in every pack."""
    images = np.random.default_rng(0).integers(0, 256, (30, 9, 9, 3), np.uint8)
    side = np.ones((30, len(CLINIC.side)), np.float32)
    anchors = ImagePack.of(images, classes=CLINIC.labels, labels=np.arange(30) % 3, side=side, side_names=CLINIC.side)
    save_pack(tmp_path / "anchors.npz", anchors, title="a")
    save_pack(tmp_path / "proxies.npz", ImagePack.of(images[:5], classes=()), title="p")
    loaded = [load_samples(tmp_path / f"{name}.npz", CLINIC) for name in ("proxies", "anchors")]
    assert len(mingle(*loaded, share=1 / 3, salt=b"").samples) == 5 + 9


@pytest.mark.parametrize("n", [0, MAX_SAMPLES + 1])
def test_sets_that_no_report_can_answer_are_refused(n: int) -> None:
    """No sample, or more than a report may hold, is an error on the server."""
    with pytest.raises(DataError, match="proxy set"):
        build(Samples.of(np.zeros((n, 1), np.uint8)))


@pytest.mark.parametrize(
    "blob", [b"junk", save({"other": np.zeros(3)}), save({"raw": np.zeros((2, 8, 8, 3), np.uint8)})]
)
def test_other_blobs_are_refused(blob: bytes) -> None:
    """Bytes that are no proxy set, or one of another task, are an error."""
    with pytest.raises(DataError):
        read(blob, VEHICLE)


def test_hidden_anchors_are_where_only_the_salt_says() -> None:
    """A third of each class is hidden, never trained on, in an order that another salt does not give."""
    plugin = plugin_of(VEHICLE)
    proxies = plugin.simulate(VEHICLE, np.random.default_rng(0), 40)
    anchors = plugin.simulate(VEHICLE, np.random.default_rng(1), 36)
    asked = mingle(proxies, anchors, share=1 / 3, salt=b"secret")
    again, other = (mingle(proxies, anchors, share=1 / 3, salt=salt) for salt in (b"secret", b"other"))
    assert len(asked.samples) == 40 + len(asked.hidden)
    assert len(asked.anchors) == 36 - len(asked.hidden)
    assert 6 <= len(asked.hidden) <= 12
    assert sorted([*asked.proxies, *asked.hidden]) == list(range(len(asked.samples)))
    shown = {raw.tobytes() for raw in asked.samples.raw[asked.hidden]}
    assert shown <= {raw.tobytes() for raw in anchors.raw}
    assert not shown & {raw.tobytes() for raw in asked.anchors.raw}
    np.testing.assert_array_equal(asked.hidden, again.hidden)
    assert asked.hidden.tolist() != other.hidden.tolist()


def test_no_share_hides_nothing_and_a_cap_bounds_it() -> None:
    """Share 0 leaves proxies and anchors as they are; of many windows only so many are hidden."""
    plugin = plugin_of(SPEED)
    proxies, anchors = (plugin.simulate(SPEED, np.random.default_rng(seed), 60) for seed in (0, 1))
    plain = mingle(proxies, anchors, share=0, salt=b"")
    assert plain.samples is proxies
    assert plain.anchors is anchors
    assert len(mingle(proxies, anchors, share=0.5, salt=b"", most=10).hidden) == 10


def labelled(*counts: int) -> Samples:
    """Anchors of the vehicle task, so many of each class."""
    names = np.repeat(np.arange(len(counts)), counts)
    raw = np.random.default_rng(0).integers(0, 256, (len(names), *VEHICLE.input.raw_shape), dtype=np.uint8)
    return Samples.of(raw, names.astype(np.int64))


@pytest.mark.parametrize(
    ("counts", "hidden"),
    [
        ((2400, 2400, 2400, 2400, 2400, 60), [47, 47, 47, 47, 48, 20]),
        ((300, 300, 300, 300, 300, 30), [49, 49, 49, 49, 50, 10]),
        ((30, 30, 30, 30, 30, 30), [10] * 6),
    ],
)
def test_a_bound_on_hidden_anchors_leaves_rare_classes_theirs(counts: tuple[int, ...], hidden: list[int]) -> None:
    """A rare class hides its whole share, the others what is left in equal parts; below the bound, everybody theirs."""
    anchors = labelled(*counts)
    asked = mingle(labelled(1), anchors, share=1 / 3, salt=b"")
    found = np.bincount(asked.samples.targets[asked.hidden], minlength=6).tolist()
    assert sorted(found) == sorted(hidden)
    assert found[5] == hidden[5]
    assert unguarded(anchors, VEHICLE, share=1 / 3) == ()


def test_a_class_without_a_hidden_anchor_is_named() -> None:
    """Two anchors of which a third is hidden are none; of forecasts, and where nothing is hidden, nothing is said."""
    assert unguarded(labelled(60, 60, 2, 60, 60), VEHICLE, share=1 / 3) == (VEHICLE.labels[2], VEHICLE.labels[5])
    assert unguarded(labelled(60), VEHICLE, share=0) == ()
    windows = plugin_of(SPEED).simulate(SPEED, np.random.default_rng(0), 60)
    assert unguarded(windows, SPEED, share=1 / 3) == ()


def asked_of(task: str = "vehicle", salt: bytes = b"secret") -> Asked:
    """Forty proxies, and a third of ninety anchors hidden among them."""
    spec = load_task(task)
    proxies, anchors = (plugin_of(spec).simulate(spec, np.random.default_rng(at), n) for at, n in ((0, 40), (1, 90)))
    return mingle(proxies, anchors, share=1 / 3, salt=salt)


@pytest.mark.parametrize("task", ["vehicle", "speed"])
def test_each_round_draws_other_anchors_of_every_class(task: str) -> None:
    """Half of each class counts, the rest pass for proxies; the same round draws the same; what is asked stays."""
    asked = asked_of(task)
    rounds = [drawn(asked, share=0.5, salt=b"secret", number=number) for number in range(1, 9)]
    for each in rounds:
        assert sorted([*each.proxies, *each.hidden]) == list(range(len(asked.samples)))
        assert set(each.hidden) < set(asked.hidden)
        assert each.samples is asked.samples
        if task == "vehicle":
            assert set(asked.samples.targets[each.hidden]) == set(asked.samples.targets[asked.hidden])
    assert len({tuple(each.hidden) for each in rounds}) == 8
    assert {at for each in rounds for at in each.hidden} == set(asked.hidden)
    again = drawn(asked, share=0.5, salt=b"secret", number=3)
    np.testing.assert_array_equal(again.hidden, rounds[2].hidden)
    assert drawn(asked, share=0.5, salt=b"other", number=3).hidden.tolist() != again.hidden.tolist()


def test_all_may_be_drawn_and_none_where_none_is_hidden() -> None:
    """Share 1 has every hidden anchor count; without hidden anchors everything is a proxy."""
    asked = asked_of()
    np.testing.assert_array_equal(drawn(asked, share=1, salt=b"", number=1).hidden, asked.hidden)
    plain = mingle(asked.samples, asked.anchors, share=0, salt=b"")
    assert len(drawn(plain, share=0.5, salt=b"", number=1).hidden) == 0
    assert len(drawn(plain, share=0.5, salt=b"", number=1).proxies) == len(plain.samples)
