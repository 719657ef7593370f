"""Cohorts of validation samples, and what is lost on each."""

from __future__ import annotations

import numpy as np

from broker_server.cohorts import cohorts_of, compare
from devices.packs import ImagePack, SeriesPack
from edge_models.samples import Samples
from edge_models.tasks import load_task, plugin_of
from edge_models.windows import cut_windows

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")


def images(count: int = 300) -> tuple[Samples, ImagePack]:
    """Labelled images, and the pack that they would come from."""
    samples = plugin_of(VEHICLE).simulate(VEHICLE, np.random.default_rng(0), count)
    return samples, ImagePack.of(samples.raw.astype(np.uint8), classes=VEHICLE.labels, labels=samples.targets)


def series(rows: int = 400) -> tuple[Samples, SeriesPack]:
    """Labelled windows of two sensors of different level over more than a day."""
    time_s = 300 * np.arange(rows, dtype=np.float64)
    values = np.array([30.0, 60.0]) + np.random.default_rng(0).normal(0, [1.0, 4.0], (rows, 2))
    pack = SeriesPack(values=values.astype(np.float32), time_s=time_s, interval_s=300, sensors=("a", "b"), unit="mph")
    samples = cut_windows(pack.values, pack.time_s, SPEED)
    return samples.take(samples.labelled), pack


def test_images_fall_into_classes_and_shades() -> None:
    """Every sample is in one class and one shade; dark is darker than bright."""
    samples, pack = images()
    found = cohorts_of(samples, VEHICLE, pack)
    for kind in ("class/", "light/"):
        masks = [mask for name, mask in found.items() if name.startswith(kind)]
        assert (np.sum(masks, axis=0) == 1).all()
    assert (samples.targets[found[f"class/{VEHICLE.labels[2]}"]] == 2).all()
    assert samples.raw[found["light/dark"]].mean() < samples.raw[found["light/bright"]].mean()


def test_windows_fall_into_sensors_and_quarters_of_the_day() -> None:
    """Windows of the sensor with the higher level are its own; the first window is of the first quarter."""
    samples, pack = series()
    found = cohorts_of(samples, SPEED, pack)
    assert (samples.scale[found["sensor/b"], 0] > 50).all()
    assert (samples.scale[found["sensor/a"], 0] < 50).all()
    quarters = [mask for name, mask in found.items() if name.startswith("hours/")]
    assert len(quarters) == 4
    assert (np.sum(quarters, axis=0) == 1).all()
    assert found["hours/00-06"][0]


def test_a_cohort_of_one_sample_is_none() -> None:
    """A class with a single sample is not compared."""
    samples, pack = images(20)
    one = samples.take([0, *np.flatnonzero(samples.targets != samples.targets[0]).tolist()])
    names = cohorts_of(one, VEHICLE, pack)
    assert f"class/{VEHICLE.labels[int(samples.targets[0])]}" not in names
    assert len(names) > 3


def test_a_class_that_is_forgotten_is_a_loss_there_alone() -> None:
    """A candidate that calls every bus a car loses the class whole, and no other class."""
    samples, pack = images()
    perfect = np.eye(6, dtype=np.float32)[samples.targets]
    forgets = perfect.copy()
    forgets[samples.targets == 3] = np.eye(6, dtype=np.float32)[0]
    found = compare(perfect, forgets, samples, VEHICLE, cohorts_of(samples, VEHICLE, pack))
    lost = found[f"class/{VEHICLE.labels[3]}"]
    assert (lost.current, lost.candidate, lost.loss, lost.doubt) == (1.0, 0.0, 1.0, 0.0)
    assert all(found[f"class/{name}"].loss == 0 for at, name in enumerate(VEHICLE.labels) if at != 3)


def test_errors_are_in_the_unit_of_the_sensor() -> None:
    """A forecast that is one spread further off for one sensor loses that sensor's spread."""
    samples, pack = series()
    right = np.concatenate([np.nan_to_num(samples.targets), np.zeros_like(samples.targets)], axis=1)
    cohorts = cohorts_of(samples, SPEED, pack)
    off = right + np.where(cohorts["sensor/b"][:, None], np.float32(1), np.float32(0))
    found = compare(right, off, samples, SPEED, cohorts)
    assert found["sensor/a"].loss == 0
    assert np.isclose(found["sensor/b"].loss, samples.scale[cohorts["sensor/b"], 1].mean(), rtol=1e-4)


def test_neighbours_that_agree_raise_the_doubt() -> None:
    """The same flips in one run of neighbours are surer chance than spread out evenly: the doubt is larger."""
    samples, pack = images(400)
    everything = {"all": np.ones(400, np.bool_)}
    perfect = np.eye(6, dtype=np.float32)[samples.targets]
    wrong = np.eye(6, dtype=np.float32)[(samples.targets + 1) % 6]
    rows = np.arange(400)
    runs = compare(perfect, np.where((rows < 100)[:, None], wrong, perfect), samples, VEHICLE, everything)["all"]
    spread = compare(perfect, np.where((rows % 4 == 0)[:, None], wrong, perfect), samples, VEHICLE, everything)["all"]
    assert runs.loss == spread.loss == 0.25
    assert runs.doubt > 2 * spread.doubt
    assert len(pack.images) == 400


def test_a_score_has_the_larger_spread_of_its_two_students() -> None:
    """Half of the samples wrong is the standard error of a fair coin, whatever the other student's is."""
    samples, _ = images(400)
    perfect = np.eye(6, dtype=np.float32)[samples.targets]
    coin = np.where((np.arange(400) % 2 == 0)[:, None], np.roll(perfect, 1, axis=1), perfect)
    everything = {"all": np.ones(400, np.bool_)}
    for pair in ((perfect, coin), (coin, perfect)):
        assert np.isclose(compare(*pair, samples, VEHICLE, everything)["all"].spread, 0.025, rtol=0.01)
