"""Rounds that ask for class means, on a device: its installer's leave, the trunk asked for, k, and the report."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from edge_client import effects as e
from edge_client import trainer
from edge_client.core import Remembered
from edge_client.jobs import write_job
from edge_client.knowledge import read_prototypes
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.effects import Drop
from edge_protocol.errors import DataError, StoreError
from edge_protocol.prototypes import told_arrays, told_values
from edge_protocol.task import FEATURES
from tests.edge_client.core_driver import SPEC, Driver, call
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.edge_client.test_trainer import SPEED, VEHICLE, fill, job
from tests.fakes.small_centre import artifact_files

CLASSES = len(VEHICLE.labels)
WITHIN_S = 400.0


def asked(number: int, release: int, *, collecting: bool = True) -> m.PrototypeCall:
    """A round of the vehicle task without proxies."""
    return m.PrototypeCall(SPEC.name, SPEC.label_space, number, release, 4e9, collecting)


def told(number: int, release: int) -> m.PrototypeReport:
    """A report of no class."""
    nothing = told_arrays(np.zeros((CLASSES, FEATURES), np.float32), np.zeros(CLASSES, np.int64))
    return m.PrototypeReport(SPEC.name, SPEC.label_space, number, release, "nano", *nothing)


def test_a_device_with_leave_answers_without_fetching_anything() -> None:
    """Train on the release that the round names, adopt the head, report durably, and be idle when it has arrived."""
    driver = Driver(prototypes=True)
    driver.do(e.Linked())
    driver.install(1)
    before = len(driver.all(e.Fetch))
    driver.say(asked(1, 1))
    train = driver.last(e.Train)
    assert (train.release, train.artifact, train.call) == (1, None, asked(1, 1))
    assert len(driver.all(e.Fetch)) == before
    done = driver.do(e.Trained(train.job, told(1, 1)))
    assert [type(x).__name__ for x in done][:2] == ["Adopt", "Send"]
    assert driver.core.session.value == "reporting"
    driver.do(e.Delivered(1))
    assert driver.core.session.value == "idle"
    assert driver.say(asked(1, 1)) == [], "once a round"


def test_a_device_without_leave_tells_nothing_and_goes_on_answering_other_rounds() -> None:
    """The call is dropped under a reason that the state shows; a round of proxies that follows is answered."""
    driver = Driver()
    driver.do(e.Linked())
    driver.install(1)
    assert [x.reason for x in driver.say(asked(1, 1)) if isinstance(x, Drop)] == ["prototypes-not-allowed"]
    assert not [x for x in driver.all(e.Train) if x.call]
    driver.say(call(2, 1))
    assert driver.last(e.Fetch).ref == call(2, 1).proxy


def test_a_call_for_prototypes_ends_the_round_of_proxies_before_it() -> None:
    """With leave or without: what is fetched for a round that is over is given up."""
    for leave in (True, False):
        driver = Driver(prototypes=leave)
        driver.do(e.Linked())
        driver.install(1)
        driver.say(call(1, 1))
        driver.say(asked(2, 1))
        assert driver.last(e.Abandon).sha256 == call(1, 1).proxy.sha256
        assert bool([x for x in driver.all(e.Train) if x.call]) is leave


def test_an_older_trunk_is_not_told_of() -> None:
    """A device that had to stay on an older release waits for the round's own, and answers when it runs."""
    driver = Driver(Remembered(), prototypes=True)
    driver.do(e.Linked())
    driver.install(1)
    driver.say(asked(1, 2))
    driver.wait(60)
    assert not [x for x in driver.all(e.Train) if x.call]
    driver.install(2)
    assert driver.last(e.Train).call == asked(1, 2)


def test_a_closed_round_ends_its_training() -> None:
    """Nobody waits for these class means any more."""
    driver = Driver(prototypes=True)
    driver.do(e.Linked())
    driver.install(1)
    driver.say(asked(1, 1))
    stopped = driver.say(asked(1, 1, collecting=False))
    assert e.Stop(driver.last(e.Train).job) in stopped


def test_a_failed_training_is_tried_again() -> None:
    """As for any round, later."""
    driver = Driver(prototypes=True)
    driver.do(e.Linked())
    driver.install(1)
    driver.say(asked(1, 1))
    jobs = driver.last(e.Train).job
    driver.do(e.TrainFailed(jobs, "out of memory"))
    driver.until(lambda: driver.last(e.Train).job != jobs)
    assert driver.last(e.Train).call == asked(1, 1)


def test_the_trainer_tells_means_of_classes_with_k_samples(tmp_path: Path) -> None:
    """Counts and means are those of the labelled samples; a class of fewer than k is left out, and 0 there."""
    write_job(tmp_path, msgspec.structs.replace(job(tmp_path, VEHICLE, proxies=0, samples=60), prototype_k=11))
    trainer.run_job(tmp_path)
    assert not (tmp_path / "votes.safetensors").exists()
    found = load_file(tmp_path / "prototypes.safetensors")
    counts = np.bincount(np.asarray(fill(tmp_path / "again", VEHICLE, 60).targets), minlength=CLASSES)
    assert 0 < (counts < 11).sum() < CLASSES, "some classes have fewer, some do not"
    np.testing.assert_array_equal(found["counts"], np.where(counts >= 11, counts, 0))
    assert found["means"].shape == (CLASSES, FEATURES)
    np.testing.assert_array_equal(found["means"].any(axis=1), counts >= 11)
    report = read_prototypes(tmp_path, spec=VEHICLE, tier="nano", call=asked(1, 1), release=1)
    means, behind = told_values(report, CLASSES)
    np.testing.assert_allclose(means, found["means"], atol=2e-2)
    assert (behind <= found["counts"]).all()


def test_a_forecaster_has_no_class_means(tmp_path: Path) -> None:
    """The job fails by name instead of telling nonsense."""
    write_job(tmp_path, msgspec.structs.replace(job(tmp_path, SPEED, proxies=0), prototype_k=3))
    with pytest.raises(DataError, match="no class means"):
        trainer.run_job(tmp_path)


@pytest.mark.parametrize("spoilt", ["nan", "huge", "shape", "gone", "junk"])
def test_damaged_class_means_are_no_report(tmp_path: Path, spoilt: str) -> None:
    """NaN, what half precision cannot hold, another width, no file and junk: an error that names the file."""
    means, counts = np.zeros((CLASSES, FEATURES), np.float32), np.full(CLASSES, 9, np.int64)
    means[2, 5] = {"nan": np.nan, "huge": 1e9}.get(spoilt, 0.0)
    path = tmp_path / "prototypes.safetensors"
    if spoilt != "gone":
        save_file({"means": means[:, : 63 if spoilt == "shape" else FEATURES], "counts": counts}, path)
    if spoilt == "junk":
        path.write_bytes(b"junk")
    with pytest.raises(StoreError, match="prototypes"):
        read_prototypes(tmp_path, spec=VEHICLE, tier="nano", call=asked(1, 1), release=1)


@pytest.mark.timeout(900)
def test_a_whole_device_answers_a_round_without_proxies(tmp_path: Path) -> None:
    """With the real trainer: one report of one message, its head serves, and a restart does not answer again."""
    labels = {"commissioning": f"{tmp_path}/images.npz"}
    config = device_config(tmp_path, labels=labels, privacy={"prototype_k": 5})
    rig = DeviceRig(config, trainer=())
    rig.centre.release(1, {"nano": artifact_files()})
    rig.centre.ask(1, 1)
    rig.until(lambda: rig.centre.of(m.PrototypeReport), "report", within_s=WITHIN_S)
    (report,) = rig.centre.of(m.PrototypeReport)
    assert (report.round, report.release, report.tier) == (1, 1, "nano")
    assert (report.task, report.label_space) == ("vehicle", load_task("vehicle").label_space)
    assert told_values(report, CLASSES)[1].max() >= 4
    rig.until(lambda: len(rig.agent.outbox) == 0, "the last ack", within_s=WITHIN_S)
    assert rig.agent.outbox.answered == 1
    rig.close()
    again = DeviceRig(config, rig.broker)
    again.until(lambda: again.centre.of(m.DeviceState), "state", within_s=WITHIN_S)
    assert not again.centre.of(m.PrototypeReport), "an answered round is not answered again"
    again.close()
