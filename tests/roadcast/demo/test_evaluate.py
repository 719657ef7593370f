"""Releases and devices are measured on held-out data with real students in the real runner."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from devices.packs import ImagePack, SeriesPack, open_pack, save_pack
from devices.preprocess import PreprocessConfig
from edge_models.habits import sensor_numbers
from edge_models.head_weights import HeadWeights
from edge_models.tasks import load_task
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.errors import DataError
from edge_protocol.manifest import Artifact, ReleaseManifest
from edge_protocol.task import TaskSpec
from export import build_artifact
from roadcast.demo.evaluate import Held, Judged, answer, held_out
from roadcast.demo.fleet import Member
from roadcast.demo.partition import Shares


def _images(path: Path, count: int = 40) -> ImagePack:
    spec = load_task("vehicle")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 255, (count, 32, 32, 3), dtype=np.uint8)
    pack = ImagePack.of(images, classes=spec.labels, labels=np.arange(count) % len(spec.labels))
    save_pack(path, pack, title="test")
    return pack


def _series(path: Path, *, start: int = 0, rows: int = 60) -> None:
    at = np.arange(start, start + rows, dtype=np.float64)
    values = (50 + 10 * np.sin(at[:, None] / 9 + np.arange(3))).astype(np.float32)
    pack = SeriesPack(values=values, time_s=at * 300, interval_s=300.0, sensors=("a", "b", "c"), unit="mph")
    save_pack(path, pack, title="test")


def _manifest(spec: TaskSpec, counter: int, blobs: Path, files: tuple[bytes, bytes, bytes]) -> ReleaseManifest:
    refs: list[BlobRef] = []
    for data in files:
        blobs.mkdir(exist_ok=True)
        (blobs / sha256(data).hexdigest()).write_bytes(data)
        refs.append(cut(data)[0])
    artifact = Artifact("nano", spec.students["nano"], refs[0], refs[1], refs[2], 1)
    return ReleaseManifest("demo", counter, spec, 1.0, (artifact,), {})


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Judged:
    """Two releases of an untrained nano student of `vehicle`, with different weights."""
    import torch  # noqa: PLC0415

    from edge_models.students import build_student  # noqa: PLC0415

    spec, blobs = load_task("vehicle"), tmp_path_factory.mktemp("server") / "blobs"
    manifests = []
    for counter in (1, 2):
        student = build_student(spec, "nano", seed=counter).eval()
        built = build_artifact(spec, "nano", student, torch.rand(2, *spec.input.shape).numpy())
        manifests.append(_manifest(spec, counter, blobs, (built.template, built.weights, built.golden)))
    return Judged(manifests, blobs)


def test_every_tier_of_every_release_is_scored(judged: Judged, tmp_path: Path) -> None:
    """Each release has its own accuracy on the same images, equal to what its logits say."""
    pack = _images(tmp_path / "test.npz")
    held = held_out(judged.spec, tmp_path / "test.npz", tmp_path / "none.npz")
    scores = list(judged.releases(held))
    assert [(score.release, score.tier, score.student) for score in scores] == [
        (1, "nano", "depthwise"),
        (2, "nano", "depthwise"),
    ]
    artifact = judged.manifests[2].artifact_for("nano")
    files = [(judged._blobs / ref.sha256).read_bytes() for ref in (artifact.template, artifact.weights)]
    said = answer(files[0], files[1], held.inputs)
    assert scores[1].scores["accuracy"] == pytest.approx((said.logits.argmax(1) == pack.labels).mean())


def test_a_device_is_scored_with_shared_and_own_head(judged: Judged, tmp_path: Path) -> None:
    """A head that always says the commonest class scores its share; a head that was not kept scores nothing."""
    member = Member(name="cam-1", task="vehicle", tier="nano", preprocess={"gains": [0.9, 1.0, 1.2]})
    shares = Shares(tmp_path / "data")
    pack = _images(shares.device("cam-1", "test"))
    heads = tmp_path / "heads"
    heads.mkdir()
    bias = np.zeros(6, np.float32)
    bias[3] = 100
    (heads / "2.safetensors").write_bytes(HeadWeights(np.zeros((6, 64), np.float32), bias).to_bytes())
    score = judged.device(member, shares, heads)
    assert (score.first, score.last, score.conditions) == (1, 2, "its own road")
    assert score.before_own is None
    assert score.after_own == pytest.approx((pack.labels == 3).mean())
    assert 0 <= score.before_shared <= 1


def test_a_device_sees_through_its_own_preprocessing(judged: Judged, tmp_path: Path) -> None:
    """Gains of the device's camera change what its student is asked."""
    _images(tmp_path / "test.npz")
    plain = held_out(judged.spec, tmp_path / "test.npz", tmp_path / "none.npz")
    tinted = held_out(judged.spec, tmp_path / "test.npz", tmp_path / "none.npz", PreprocessConfig(gains=(0.5, 1, 1)))
    assert not np.array_equal(plain.inputs, tinted.inputs)
    assert np.array_equal(plain.samples.targets, tinted.samples.targets)


def test_series_are_scaled_by_their_past_only(tmp_path: Path) -> None:
    """Level and spread of held-out windows come from history, never from what is held out."""
    spec = load_task("speed")
    _series(tmp_path / "past.npz")
    _series(tmp_path / "test.npz", start=60)
    held = held_out(spec, tmp_path / "test.npz", tmp_path / "past.npz")
    assert isinstance(held, Held)
    past = 50 + 10 * np.sin(np.arange(60)[:, None] / 9 + np.arange(3))
    assert np.unique(held.samples.scale[:, 0]) == pytest.approx(np.sort(past.mean(axis=0)), abs=1e-2)
    assert held.samples.labelled.all()
    names = open_pack(tmp_path / "test.npz").sensors  # type: ignore[union-attr]
    assert set(held.samples.side[:, 0]) == set(sensor_numbers(names)[:, 0]), "heads with habits are asked by name"


def test_a_pack_of_another_kind_is_refused(tmp_path: Path) -> None:
    """Pictures do not measure a forecast."""
    _images(tmp_path / "images.npz")
    _series(tmp_path / "series.npz")
    with pytest.raises(DataError, match="something else than task 'speed'"):
        held_out(load_task("speed"), tmp_path / "images.npz", tmp_path / "series.npz")
    with pytest.raises(DataError, match="something else than task 'vehicle'"):
        held_out(load_task("vehicle"), tmp_path / "series.npz", tmp_path / "images.npz")
