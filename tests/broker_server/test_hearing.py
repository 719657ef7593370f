"""Who is heard: class means in the feature space of the trunk that devices run, and everything that is refused."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest

from broker_server.bench import Bench
from broker_server.distil_job import DistilJob, DistilSettings, write_job
from broker_server.distiller import answer, inputs_of
from broker_server.hearing import Hearing, feature_spaces, hear
from broker_server.proxy_set import Asked, mingle
from broker_server.strategies.prototype_teacher import PrototypeTeacher
from edge_models.prototypes import class_prototypes
from edge_models.students import Student, build_student
from edge_models.tasks import load_task, plugin_of
from edge_protocol.arrays import pack
from edge_protocol.ids import DeviceId
from edge_protocol.messages import ClassVotes, FullReport, KnowledgeReport, PrototypeReport
from edge_protocol.prototypes import told_arrays
from edge_protocol.task import FEATURES
from export.payload import served
from tests.fakes.small_centre import artifact_files

SPEC = load_task("vehicle")
C = SPEC.outputs
PROXY = "ab" * 32


def asked(proxies: int = 24) -> Asked:
    """The server's samples, some of them hidden anchors."""
    made = plugin_of(SPEC).simulate(SPEC, np.random.default_rng(1), proxies + 60)
    rows = np.arange(len(made))
    return mingle(made.take(rows[:proxies]), made.take(rows[proxies:]), share=0.4, salt=b"salt")


def student() -> Student:
    """The student of `artifact_files`."""
    return build_student(SPEC, "nano", seed=0).eval()


def bench(job: DistilJob, folder: Path, samples: Asked) -> Bench:
    """What the job works with: one tier, nothing to validate on."""
    return Bench(job, folder, SPEC, samples, samples.anchors, {"nano": student()})


@pytest.fixture
def job(tmp_path: Path) -> DistilJob:
    """A job whose release holds the weights that devices run, of one tier."""
    weights = artifact_files().weights
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "nano.weights.safetensors").write_bytes(weights)
    return DistilJob(
        task="vehicle",
        round=4,
        release=7,
        settings=DistilSettings(strategy="fedproto"),
        anchors="",
        proxies="",
        validation="",
        current=str(tmp_path / "7"),
        base={"nano": sha256(weights).hexdigest()},
    )


def means(release: int = 7, number: int = 4, **changes: object) -> PrototypeReport:
    """Class means of some device."""
    drawn = np.random.default_rng(2).normal(size=(C, FEATURES)).astype(np.float32)
    told = told_arrays(drawn, np.full(C, 40))
    return msgspec.structs.replace(
        PrototypeReport("vehicle", SPEC.label_space, number, release, "nano", *told), **changes
    )


def votes(samples: int = 24, **changes: object) -> KnowledgeReport:
    """A report on a proxy set."""
    zero = pack(np.zeros(samples, np.uint8))
    cast = ClassVotes(zero, zero, zero, pack(np.ones(C, np.uint8)))
    return msgspec.structs.replace(KnowledgeReport("vehicle", SPEC.label_space, 4, 7, PROXY, 9, cast), **changes)


def heard(folder: Path, job: DistilJob, reports: dict[str, FullReport]) -> Hearing:
    """Hear these reports in that job."""
    at = folder / "job"
    named = {DeviceId(name): report for name, report in reports.items()}
    write_job(at, job, named)
    job = msgspec.structs.replace(job, reports=tuple(f"{name}.report" for name in sorted(reports)))
    samples = asked()
    return hear(bench(job, at, samples), inputs_of(samples.samples, SPEC))


def test_the_space_is_that_of_the_weights_that_devices_run(job: DistilJob) -> None:
    """Features and the server's own class means are of the rounded weights, not of those in training."""
    samples, weights = asked(), artifact_files().weights
    x = inputs_of(samples.samples, SPEC)
    spaces = feature_spaces(bench(job, Path(), samples), x)
    assert set(spaces) == {"nano"}
    on_device = answer(served(student(), weights), x)[0]
    np.testing.assert_array_equal(spaces["nano"].asked, on_device)
    assert np.abs(on_device - answer(student(), x)[0]).max() > 0
    labels = samples.anchors.targets.astype(np.int64)
    own = answer(served(student(), weights), inputs_of(samples.anchors, SPEC))[0]
    expected = class_prototypes(own, labels, C, k=1)
    np.testing.assert_array_equal(spaces["nano"].own.means, expected.means)
    np.testing.assert_array_equal(spaces["nano"].own.held, expected.held)


def test_each_device_is_taken_or_refused_with_a_reason(tmp_path: Path, job: DistilJob) -> None:
    """Another trunk, task, tier, kind, junk: refused by name, and none of them keeps the good one from counting."""
    found = heard(
        tmp_path,
        job,
        {
            "good": means(),
            "late": means(number=2),
            "old": means(release=6),
            "other": means(label_space="cd34"),
            "tier": means(tier="small"),
            "votes": votes(),
        },
    )
    assert found.rounds == {"good": 4, "late": 2}
    assert isinstance(found.strategy, PrototypeTeacher)
    assert len(found.strategy) == 2
    told = {device: " ".join(reason.split()) for device, reason in found.refused.items()}
    assert "class means are of nano of release 6; the server has nano of release 7" in told["old"]
    assert "cd34" in told["other"]
    assert "small of release 7" in told["tier"]
    assert "KnowledgeReport is none of fedproto's" in told["votes"]
    value = found.strategy.teacher().value
    assert np.isfinite(value).all()
    np.testing.assert_allclose(value.sum(1), 1, rtol=1e-5)


def test_damaged_reports_are_refused_where_they_are_read(tmp_path: Path, job: DistilJob) -> None:
    """NaN and cut bytes on the disk: the reason names what is wrong, and the others count."""
    good = msgspec.msgpack.encode(means())
    at = tmp_path / "job"
    write_job(at, job, {DeviceId(name): means() for name in ("cut", "good", "nan")})
    (at / "reports/cut.report").write_bytes(good[:50])
    data = means().means.data
    (at / "reports/nan.report").write_bytes(good.replace(data, b"\xff" * len(data)))
    named = msgspec.structs.replace(job, reports=("cut.report", "good.report", "nan.report"))
    samples = asked()
    found = hear(bench(named, at, samples), inputs_of(samples.samples, SPEC))
    assert list(found.rounds) == ["good"]
    assert set(found.refused) == {"cut", "nan"}
    assert "NaN" in found.refused["nan"]


def test_without_the_running_weights_no_class_means_are_taken(tmp_path: Path, job: DistilJob) -> None:
    """An operator pushed a release whose students the server lacks: nobody can say what its features mean."""
    pushed = msgspec.structs.replace(job, base={"nano": "0" * 64})
    found = heard(tmp_path, pushed, {"good": means()})
    assert found.rounds == {}
    assert "the server has no trunk of release 7" in found.refused["good"]
    assert found.strategy is not None
    assert len(found.strategy) == 0


def test_votes_that_the_job_does_not_ask_for_any_more_are_refused(tmp_path: Path, job: DistilJob) -> None:
    """Labels, proxy set or packs were changed since reports came: each is told why, and what still fits counts."""
    voted = msgspec.structs.replace(job, settings=DistilSettings(), proxy=PROXY)
    samples = len(asked().samples)
    found = heard(
        tmp_path,
        voted,
        {
            "good": votes(samples),
            "labels": votes(samples, label_space="cd34"),
            "proxy": votes(samples, proxy="cd" * 32),
            "short": votes(samples - 1),
        },
    )
    assert set(found.rounds) == {"good"}
    asks = f"not {samples} of abababababab"
    assert found.refused == {
        "labels": f"labels are of cd34, not {SPEC.label_space}",
        "proxy": f"report answers {samples} samples of proxy set cdcdcdcdcdcd, {asks}",
        "short": f"report answers {samples - 1} samples of proxy set abababababab, {asks}",
    }
    assert found.strategy is not None
    assert np.isfinite(found.strategy.teacher().value).all()


def test_class_means_are_nothing_to_a_strategy_of_votes(tmp_path: Path, job: DistilJob) -> None:
    """A server whose strategy was changed meanwhile refuses what it asked for before."""
    changed = msgspec.structs.replace(job, settings=DistilSettings(strategy="feddistill"), proxy=PROXY)
    found = heard(tmp_path, changed, {"means": means()})
    assert found.rounds == {}
    assert "PrototypeReport is none of feddistill's" in found.refused["means"]
