"""What class means alone teach: within a tier, across tiers, beside the shared model, and from devices that lie."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import numpy as np
import pytest

from broker_server.distil_job import PROTOTYPE_STRATEGIES, VOTE_STRATEGIES, DistilSettings
from broker_server.strategies import PROTOTYPE_RULES, STRATEGIES
from broker_server.strategies.base import F4, HiddenAnchors, Opinion
from broker_server.strategies.prototype_teacher import PrototypeTeacher, Space
from edge_models.nearest_prototype import prototype_logits
from edge_models.prototypes import Prototypes
from edge_models.tasks import load_task
from edge_protocol.errors import RemoteProtocolError
from edge_protocol.ids import DeviceId
from edge_protocol.messages import PrototypeReport
from edge_protocol.prototypes import told_arrays
from edge_protocol.task import FEATURES, Tier

SPEC = load_task("vehicle")
C, N, A = SPEC.outputs, 600, 90
RNG = np.random.default_rng(7)
TRUTH = RNG.integers(0, C, N)
CENTRES: Mapping[Tier, F4] = {tier: RNG.normal(0, 0.25, (C, FEATURES)).astype(np.float32) for tier in ("nano", "small")}
Settings = dict[str, float]
RULES = pytest.mark.parametrize("kind", PROTOTYPE_RULES.values(), ids=PROTOTYPE_RULES)


def space(tier: Tier, seed: int = 1, *, own: int = 2) -> Space:
    """A trunk that tells classes apart; the server has `own` anchors of each, so its means are rough."""
    rng, centres = np.random.default_rng(seed), CENTRES[tier]
    asked = centres[TRUTH] + rng.normal(0, 0.6, (N, FEATURES))
    rough = centres + rng.normal(0, 0.6 / np.sqrt(max(own, 1)), centres.shape)
    held = np.full(C, own > 0, np.uint8)
    return Space(asked.astype(np.float32), Prototypes(rough.astype(np.float32) * held[:, None], held))


def doubtful(sure: float = 0.45) -> Opinion:
    """A shared model that is right as often as it is sure."""
    rng = np.random.default_rng(3)
    named = np.where(rng.random(N) < sure, TRUTH, rng.integers(0, C, N))
    value = np.full((N, C), (1 - sure) / (C - 1), np.float32)
    value[np.arange(N), named] = sure
    return Opinion(value)


def teacher(
    kind: type = PROTOTYPE_RULES["fedproto"], tiers: tuple[Tier, ...] = ("nano",), own: int = 2, **changes: object
) -> PrototypeTeacher:
    """A teacher that nobody has told anything; the first samples are its hidden anchors."""
    settings = msgspec.structs.replace(DistilSettings(), **changes)
    hidden = HiddenAnchors(np.arange(A), TRUTH[:A])
    spaces = {tier: space(tier, own=own) for tier in tiers}
    return PrototypeTeacher(kind, SPEC, 5, spaces, doubtful(), settings, hidden)


def told(
    tier: Tier, classes: tuple[int, ...], *, seed: int = 0, turn: int = 0, scale: float = 1.0, count: int = 200
) -> PrototypeReport:
    """Class means of a device with these classes; of the class `turn` further on when it lies."""
    means = CENTRES[tier] + np.random.default_rng(seed).normal(0, 0.05, (C, FEATURES))
    counts = np.zeros(C, np.int64)
    counts[list(classes)] = count
    arrays = told_arrays((scale * np.roll(means, turn, axis=0)).astype(np.float32), counts)
    return PrototypeReport(SPEC.name, SPEC.label_space, 3, 5, tier, *arrays)


def right(opinion: Opinion) -> float:
    """Accuracy on the samples that are no anchors."""
    return float((opinion.value.argmax(1) == TRUTH)[A:].mean())


def hear(one: PrototypeTeacher, **reports: PrototypeReport) -> PrototypeTeacher:
    """Tell a teacher what devices say."""
    for name, report in reports.items():
        one.hear(DeviceId(name), report, 0)
    return one


def test_the_settings_name_the_rules_that_there_are() -> None:
    """What the server takes from a configuration is what can fuse votes, or class means."""
    assert (set(PROTOTYPE_STRATEGIES), set(VOTE_STRATEGIES)) == (set(PROTOTYPE_RULES), set(STRATEGIES))
    assert [DistilSettings(strategy=name).prototypes for name in ("fedproto", "feddistill")] == [True, False]


def test_without_reports_the_shared_model_teaches_itself() -> None:
    """Also when devices answered and hold too little of everything."""
    for one in (teacher(), hear(teacher(), a=told("nano", ()))):
        np.testing.assert_allclose(one.teacher().value, doubtful().value, rtol=1e-6)
        assert sum(one.trust().values()) == 0


@RULES
def test_class_means_of_devices_with_few_classes_each_teach_all(kind: type) -> None:
    """Three devices with two classes each: the teacher beats the shared model and the server's own class means."""
    one = hear(teacher(kind), a=told("nano", (0, 1)), b=told("nano", (2, 3), seed=1), c=told("nano", (4, 5), seed=2))
    assert len(one) == 3
    found = one.teacher()
    np.testing.assert_allclose(found.value.sum(1), 1, rtol=1e-5)
    alone = hear(teacher(kind), a=told("nano", (0,), count=1)).teacher()
    assert right(found) > right(doubtful()) + 0.1
    assert right(found) > right(alone)


@RULES
def test_the_order_of_arrival_does_not_matter(kind: type) -> None:
    """Bit for bit, and a second report replaces the first."""
    first = {"a": told("nano", (0, 1, 2)), "b": told("nano", (2, 3), seed=1)}
    one, other = hear(teacher(kind), **first), hear(teacher(kind), a=told("nano", (5,), seed=9))
    hear(other, **dict(reversed(first.items())))
    assert len(other) == 2
    np.testing.assert_array_equal(one.teacher().value, other.teacher().value)


def test_what_one_tier_knows_reaches_the_others_as_probabilities() -> None:
    """Two tiers teach more than either, though their features are of different spaces."""
    nano, small = told("nano", tuple(range(C))), told("small", tuple(range(C)))
    both = hear(teacher(tiers=("nano", "small")), a=nano, b=small)
    alone = [hear(teacher(tiers=("nano", "small")), a=nano), hear(teacher(tiers=("nano", "small")), b=small)]
    assert right(both.teacher()) > max(right(each.teacher()) for each in alone)
    assert set(both.trust()) == {"a", "b"}
    assert all(share > 0.05 for share in both.trust().values())


@RULES
@pytest.mark.parametrize("lie", ["turned", "far", "zero"])
def test_class_means_that_mislead_leave_the_teaching_to_the_shared_model(kind: type, lie: str) -> None:
    """Means of other classes, means from nowhere, means of nothing: the truth is no less likely than before."""
    report = told("nano", tuple(range(C)), turn=int(lie == "turned"), scale={"far": 1e4, "zero": 0}.get(lie, 1))
    one = hear(teacher(kind, own=0), liar=report)
    said, before = (opinion.value[np.arange(N), TRUTH][A:] for opinion in (one.teacher(), doubtful()))
    assert np.log(said).mean() > np.log(before).mean() - 0.03


def among_honest(
    kind: type, *, honest: int, liars: int, claim: int = 30, age: int = 0, settings: Settings | None = None
) -> PrototypeTeacher:
    """A teacher that honest devices told what they have, of 30 samples a class, and liars means of other classes."""
    one = teacher(kind, ("nano",), 2, **(settings or {}))
    for at in range(honest):
        one.hear(DeviceId(f"d{at}"), told("nano", tuple(range(C)), seed=at, count=30), 0)
    for at in range(liars):
        one.hear(DeviceId(f"liar-{at}"), told("nano", tuple(range(C)), turn=1, count=claim), age)
    return one


def nearest(one: PrototypeTeacher) -> float:
    """Accuracy of the nearest fused prototype."""
    return float((prototype_logits(space("nano").asked, one.prototypes("nano")).argmax(1) == TRUTH).mean())


def lying(one: PrototypeTeacher) -> list[float]:
    """What the liars hold."""
    return [share for device, share in one.trust().items() if device.startswith("liar")]


@RULES
def test_how_many_samples_a_device_claims_changes_nothing(kind: type) -> None:
    """Two liars of five that claim 1,024 samples a class hold as much as with one sample, and less than the honest."""
    modest, loud = (among_honest(kind, honest=3, liars=2, claim=claim) for claim in (1, 10**6))
    np.testing.assert_array_equal(loud.prototypes("nano").means, modest.prototypes("nano").means)
    assert loud.trust() == modest.trust()
    assert right(loud.teacher()) > right(doubtful()) + 0.1


@RULES
@pytest.mark.parametrize(
    ("many", "few"),
    [({"device_cap": 1.0}, {"device_cap": 0.02}), ({"half_life": 99.0}, {"half_life": 0.5})],
    ids=["cap", "age"],
)
def test_the_cap_and_the_age_of_a_report_reach_the_prototypes(kind: type, many: Settings, few: Settings) -> None:
    """Most devices lie and were heard long ago: under a low cap or a short half life, hardly trusted nor fused."""
    heard, faint = (
        among_honest(kind, honest=3, liars=6, age=7, settings=Settings(half_life=99.0) | way) for way in (many, few)
    )
    assert nearest(faint) > nearest(heard) + 0.2
    assert sum(lying(faint)) < sum(lying(heard)) / 2


def test_a_class_without_a_prototype_stays_the_shared_models() -> None:
    """Nobody told of class 5, nor has the server anchors of it: its probability is the shared model's."""
    one = hear(teacher(own=0), a=told("nano", (0, 1, 2, 3, 4)))
    np.testing.assert_allclose(one.teacher().value[:, 5], doubtful().value[:, 5], rtol=1e-5)


def test_old_class_means_fade() -> None:
    """A device that was heard long ago has less of the teacher than one heard now."""
    one = teacher(device_cap=1.0)
    one.hear(DeviceId("old"), told("nano", tuple(range(C))), 6)
    one.hear(DeviceId("new"), told("nano", tuple(range(C)), seed=1), 0)
    assert one.trust()[DeviceId("old")] < one.trust()[DeviceId("new")] / 4


def test_the_shared_model_keeps_its_share() -> None:
    """However good the class means are."""
    one = hear(teacher(shared_share=0.6), a=told("nano", tuple(range(C))))
    assert sum(one.trust().values()) <= 0.4 + 1e-6


def test_without_hidden_anchors_tiers_and_the_shared_model_count_alike() -> None:
    """Nothing says whom to trust: class means become as sharp as the shared model is, no sharper."""
    spaces: dict[Tier, Space] = {"nano": space("nano")}
    one = PrototypeTeacher(PROTOTYPE_RULES["fedproto"], SPEC, 5, spaces, doubtful(), DistilSettings())
    hear(one, a=told("nano", tuple(range(C))))
    assert right(one.teacher()) >= right(doubtful())
    assert sum(one.trust().values()) == pytest.approx(0.25, abs=0.01), (
        "half of it, and half of that is the server's own"
    )


@pytest.mark.parametrize("changes", [{"release": 4}, {"tier": "base"}])
def test_class_means_of_another_trunk_are_refused(changes: dict[str, object]) -> None:
    """Of another release, or of a tier whose trunk the server does not have; nothing of it counts."""
    one = teacher()
    with pytest.raises(RemoteProtocolError) as caught:
        one.hear(DeviceId("a"), msgspec.structs.replace(told("nano", (0,)), **changes), 0)
    assert caught.value.reason == "other-trunk"
    assert len(one) == 0
