"""A patient's readings on their way from a record to the personal head, and what stands in for them."""

from __future__ import annotations

from pathlib import Path

import cv2
import msgspec
import numpy as np
import pytest

from devices.packs import ImagePack, save_pack
from devices.preprocess import Preprocess
from devices.runners.base import Answer
from devices.sources import Frame, open_source
from edge_client.labels import open_commissioning
from edge_client.pipelines import Bundle, WholeSample
from edge_client.replay import ReplayStore
from edge_client.results import Tally
from edge_client.seen import Seen
from edge_client.side_inputs import SideInputs
from edge_client.stored import read_stored
from edge_models.head_weights import HeadWeights
from edge_models.tasks import load_task
from edge_protocol.errors import DataError
from edge_protocol.task import ImageInput
from tests.edge_client.test_inference import Constant

CLINIC, VEHICLE = load_task("clinic"), load_task("vehicle")
FEVER = {"temperature": "38.4"}


class Flat(Constant):
    """A student of the clinic to whom all images look alike."""

    def infer(self, x: np.ndarray) -> Answer:
        """Logits of 0."""
        return Answer(np.ones((len(x), 64), np.float32), np.zeros((len(x), 3), np.float32))


def frame(**more: object) -> Frame:
    """A grey image and what else is known."""
    return Frame(sample="s", at_s=1.7e9, image=np.full((32, 32, 3), 90, np.uint8), **more)  # type: ignore[arg-type]


def fever_head() -> HeadWeights:
    """A personal head that refers whoever has a fever, and calls everybody else calm."""
    weight = np.zeros((3, 64 + 6), np.float32)
    weight[2, 64 + 2] = 1.0
    return HeadWeights(weight, np.array([0.5, 0, 0], np.float32), 64)


def clinic(seen: Seen) -> tuple[WholeSample, Tally]:
    """The pipeline of a clinic, and what it answered."""
    assert isinstance(CLINIC.input, ImageInput)
    tally = Tally(task="clinic", source="ward", interval_s=1e9, slot_s=None, emit=lambda _: None)
    return WholeSample(CLINIC, Preprocess(CLINIC.input), tally, seen), tally


def test_a_record_beside_an_image_reaches_the_personal_head(tmp_path: Path) -> None:
    """Two images alike, one of a patient with a fever: the head tells them apart, and both are kept with readings."""
    for name in "abc":
        cv2.imwrite(str(tmp_path / f"{name}.png"), np.random.default_rng(0).integers(0, 255, (32, 32, 3), np.uint8))
    (tmp_path / "a.json").write_bytes(msgspec.json.encode({"temperature": 38.4, "pulse": None}))
    (tmp_path / "b.json").write_bytes(msgspec.json.encode({"temperature": 36.6, "age": "61"}))
    seen = Seen(0.0)
    pipeline, tally = clinic(seen)
    with open_source(f"folder://{tmp_path}", name="ward", side=CLINIC.side) as source:
        while not source.ended:
            found = source.read(5)
            assert found is not None
            assert pipeline.step(found, Bundle(1, Flat(), fever_head()), 0.0)
    assert tally.values == {"refer": 1, "calm": 2}
    store = ReplayStore(tmp_path / "replay.db", 1_000_000)
    store.add(seen.drain())
    store.close()
    sides = read_stored(tmp_path / "replay.db", CLINIC).samples.side
    assert sides[0] == pytest.approx([0, 0, 2, 1, 0, 0])
    assert sides[1] == pytest.approx([0.55, 1, -0.571, 1, 0, 0], abs=1e-3)
    assert sides[2].tolist() == [0] * 6, "a frame without a record is learnt from as it is answered"


def test_a_pack_s_row_is_taken_as_it_is_and_a_record_before_it() -> None:
    """Packs bring the numbers themselves; a frame may bring nothing."""
    side = SideInputs(CLINIC)
    assert side.of(frame()) is None
    row = np.arange(6, dtype=np.float32)
    assert side.of(frame(side=row)) is row
    assert side.of(frame(side=row, record=FEVER)) == pytest.approx([0, 0, 2, 1, 0, 0])


@pytest.mark.parametrize(
    "more",
    [
        {"side": np.zeros(2, np.float32)},
        {"side": np.full(6, np.nan, np.float32)},
        {"record": {"temperature": "hot"}},
        {"record": {"pulse": "1e999"}},
    ],
)
def test_side_inputs_that_are_none_are_refused_and_kept_nowhere(more: dict[str, object]) -> None:
    """One such row would stop every training job that reads the store."""
    seen = Seen(0.0)
    with pytest.raises(DataError):
        clinic(seen)[0].step(frame(**more), None, 0.0)
    assert seen.drain() == []


def test_a_reading_that_the_plug_in_never_asks_for_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    """A misspelt name would be taken for not measured, in silence; of any number of names a few are told."""
    side = SideInputs(CLINIC)
    for _ in range(2):
        assert side.of(frame(record={"Temperature": "38.4", "pulse": "75"})) == pytest.approx([0, 0, 0, 0, 0, 1])
    assert caplog.messages == [
        "records hold a reading 'Temperature', of which this task knows nothing: look how it is spelt"
    ]
    for number in range(100):
        side.of(frame(record={f"x{number}": "1"}))
    assert len(caplog.messages) == 16


def test_a_task_without_side_inputs_takes_none() -> None:
    """A pack that has some is played for such a task too."""
    assert SideInputs(VEHICLE).of(frame(side=np.ones(2, np.float32), record=FEVER)) is None


def test_a_commissioning_pack_brings_the_task_s_side_inputs_or_none(tmp_path: Path) -> None:
    """Other names, and numbers that are none, are refused before a sample is kept."""

    def opened(names: tuple[str, ...], side: np.ndarray) -> object:
        images = np.zeros((2, 32, 32, 3), np.uint8)
        pack = ImagePack.of(images, labels=np.array([0, 1]), classes=CLINIC.labels, side=side, side_names=names)
        save_pack(tmp_path / "pack.npz", pack, title="t", source="s", licence="l")
        return open_commissioning(str(tmp_path / "pack.npz"), CLINIC)

    assert opened((), np.zeros((2, 0), np.float32))
    assert opened(CLINIC.side, np.zeros((2, 6), np.float32))
    turned = opened((*CLINIC.side[::-1], "more"), np.tile(np.arange(7, dtype=np.float32), (2, 1)))
    assert isinstance(turned, ImagePack)
    assert turned.side_names == CLINIC.side
    assert turned.side[1].tolist() == [5, 4, 3, 2, 1, 0], "columns go by name"
    with pytest.raises(DataError, match=r"humidity; the task has age"):
        opened(("humidity",), np.zeros((2, 1), np.float32))
    with pytest.raises(DataError, match="NaN or infinity"):
        opened(CLINIC.side, np.full((2, 6), np.inf, np.float32))
