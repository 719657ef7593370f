"""Roadcast's own rule: by hand, by properties that hold whatever devices say, and against devices that lie."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.distil_job import DistilSettings
from broker_server.proxy_set import Asked, drawn
from broker_server.strategies.base import HiddenAnchors, Opinion
from broker_server.strategies.feddistill import CONCENTRATED, FedDistill
from edge_models.samples import Samples
from edge_protocol.ids import DeviceId
from edge_protocol.messages import ClassVotes
from edge_protocol.votes import MEAN_STEP, MOST_MEAN
from edge_protocol.votes import class_votes as class_votes_of
from tests.broker_server.strategies.ballots import class_votes, forecast_votes, forecasts

SETTINGS = DistilSettings(shared_share=0.2, device_cap=0.5, half_life=2.0)
SHARED = Opinion(np.array([[0.5, 0.3, 0.2], [0.1, 0.1, 0.8]], np.float32))
FORECAST = Opinion(np.zeros((1, 1), np.float32), np.ones((1, 1), np.float32))

ballots = st.builds(
    class_votes,
    st.lists(st.integers(0, 2), min_size=2, max_size=2),
    st.integers(0, 3),
    st.lists(st.integers(0, 7), min_size=2, max_size=2),
    st.lists(st.integers(0, 1), min_size=3, max_size=3),
)


def teacher(
    *votes: ClassVotes, ages: tuple[int, ...] = (), settings: DistilSettings = SETTINGS
) -> npt.NDArray[np.float32]:
    """Fuse ballots of devices d0, d1, …; return the teacher's probabilities."""
    strategy = FedDistill(SHARED, settings)
    for at, vote in enumerate(votes):
        strategy.add(DeviceId(f"d{at}"), vote, ages[at] if ages else 0)
    return strategy.teacher().value


def test_ratios_by_hand() -> None:
    """A device of one class that knows the first sample e times better than the second raises that class there."""
    votes = class_votes([0, 0], density=[4, 3], held=[1, 0, 0])
    fused = teacher(votes, settings=DistilSettings(shared_share=0, device_cap=1))
    e = np.e
    ratio = 0.5 * np.array([2 * e / (1 + e), 2 / (1 + e)]) + 0.5 * SHARED.value[:, 0] / 0.3
    joint = np.column_stack([0.3 * ratio, SHARED.value[:, 1:]])
    np.testing.assert_allclose(fused, joint / joint.sum(1, keepdims=True), atol=1e-5)


def test_silence_and_absence_leave_the_shared_model_alone() -> None:
    """A device that is silent everywhere, or holds nothing, changes nothing; nor does nobody."""
    np.testing.assert_allclose(teacher(class_votes([2, 2], density=0)), SHARED.value, atol=1e-6)
    np.testing.assert_allclose(teacher(class_votes([2, 2], held=[0, 0, 0])), SHARED.value, atol=1e-6)
    np.testing.assert_allclose(teacher(), SHARED.value, atol=1e-6)


def test_age_halves_the_weight_each_half_life() -> None:
    """A report two rounds old has half the weight of a fresh one; the shared model gets what it lost."""
    weights = []
    for age in (0, 2):
        strategy = FedDistill(SHARED, SETTINGS)
        strategy.add(DeviceId("a"), class_votes([0, 1], density=[2, 6]), age)
        weights.append(strategy.class_weights())
    np.testing.assert_allclose(weights[1][0], weights[0][0] / 2)
    np.testing.assert_allclose(weights[1].sum(0), 1, rtol=1e-6)


@given(st.lists(ballots, min_size=1, max_size=6), st.randoms(use_true_random=False))
def test_the_order_of_arrival_does_not_matter(votes: list[ClassVotes], random: object) -> None:
    """Any order of the same ballots gives the same teacher, bit for bit."""
    order = list(range(len(votes)))
    random.shuffle(order)  # type: ignore[attr-defined]
    strategies = FedDistill(SHARED, SETTINGS), FedDistill(SHARED, SETTINGS)
    for strategy, sequence in zip(strategies, (range(len(votes)), order), strict=True):
        for at in sequence:
            strategy.add(DeviceId(f"d{at}"), votes[at])
    np.testing.assert_array_equal(strategies[0].teacher().value, strategies[1].teacher().value)


@given(st.lists(ballots, min_size=0, max_size=5), ballots)
def test_a_second_ballot_replaces_the_first(others: list[ClassVotes], first: ClassVotes) -> None:
    """A device that votes twice counts once, with its last word."""
    last = class_votes([1, 2])
    strategy = FedDistill(SHARED, SETTINGS)
    for vote in (first, last):
        strategy.add(DeviceId("z"), vote)
    for at, vote in enumerate(others):
        strategy.add(DeviceId(f"d{at}"), vote)
    assert len(strategy) == len(others) + 1
    np.testing.assert_allclose(strategy.teacher().value, teacher(*others, last), atol=1e-6)


@given(st.lists(ballots, min_size=1, max_size=6))
def test_no_device_gets_more_than_the_cap(votes: list[ClassVotes]) -> None:
    """Whatever a device says, in votes, confidence, density or held classes, its weight stays under the cap."""
    strategy = FedDistill(SHARED, SETTINGS)
    for at, vote in enumerate(votes):
        strategy.add(DeviceId(f"d{at}"), vote)
    weights = strategy.class_weights()
    assert (weights[:-1] <= SETTINGS.device_cap + 1e-6).all()
    assert (weights >= -1e-6).all()
    np.testing.assert_allclose(weights.sum(0), 1, rtol=1e-5)


@given(st.lists(ballots, max_size=6), st.integers(0, 7))
def test_louder_is_not_heard_better(votes: list[ClassVotes], level: int) -> None:
    """A device that raises every density alike says the same: only differences between samples count."""
    held = [1, 1, 1]
    pair = [teacher(*votes, class_votes([0, 1], density=max(1, density), held=held)) for density in (level, 3)]
    np.testing.assert_allclose(pair[0], pair[1], atol=1e-5)


@given(st.lists(ballots, max_size=6))
def test_the_teacher_is_a_distribution(votes: list[ClassVotes]) -> None:
    """Probabilities are at least 0 and sum to 1."""
    fused = teacher(*votes)
    assert (fused >= 0).all()
    np.testing.assert_allclose(fused.sum(1), 1, atol=1e-5)


def flipped(truth: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """The next class instead of the right one."""
    del rng
    return (truth + 1) % 3


def anyhow(truth: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Classes by chance."""
    return rng.integers(0, 3, len(truth))


def always(truth: npt.NDArray[np.int64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """One class for everything."""
    del rng
    return np.zeros_like(truth)


@pytest.mark.parametrize("lie", [flipped, anyhow, always])
def test_liars_in_the_majority_lose_their_weight(
    lie: Callable[[npt.NDArray[np.int64], np.random.Generator], npt.NDArray[np.int64]],
) -> None:
    """Four honest devices and six liars of full confidence: hidden anchors tell them apart."""
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 3, 300)
    unsure = np.full((300, 3), 0.2, np.float32)
    unsure[np.arange(300), np.where(rng.random(300) < 0.7, truth, rng.integers(0, 3, 300))] = 0.6
    rows = np.arange(0, 300, 5)
    right = {}
    for anchors in (HiddenAnchors(rows, truth[rows]), None):
        strategy = FedDistill(Opinion(unsure), SETTINGS, anchors)
        for at in range(4):
            said = np.where(rng.random(300) < 0.85, truth, rng.integers(0, 3, 300))
            odds = np.full((300, 3), 0.3, np.float32)
            odds[np.arange(300), said] = 2.0
            strategy.add(DeviceId(f"honest-{at}"), class_votes_of(odds, np.ones(3, np.uint8)))
        for at in range(6):
            odds = np.full((300, 3), 0.05, np.float32)
            odds[np.arange(300), lie(truth, rng)] = 90.0
            strategy.add(DeviceId(f"liar-{at}"), class_votes_of(odds, np.ones(3, np.uint8)))
        right[anchors is None] = (strategy.teacher().value.argmax(1) == truth).mean()
        if anchors:
            trust = strategy.trust()
            honest = sum(share for device, share in trust.items() if device.startswith("honest"))
            assert sum(trust.values()) - honest < 0.1 * honest
    assert right[False] > 0.9
    assert right[False] >= right[True]


def fleet_with(
    echoes: int, noise: float = 0.0, odds_of_noise: float = 90.0
) -> tuple[FedDistill, npt.NDArray[np.int64]]:
    """Twelve devices that know three of six classes each; the first ones repeat the shared model instead, all loud.

    But for a share of the samples (`noise`), on which they name any class with these odds.
    """
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 6, 1200)
    believed = np.where(rng.random(1200) < 0.6, truth, rng.integers(0, 6, 1200))
    shared = np.full((1200, 6), 0.1, np.float32)
    shared[np.arange(1200), believed] = 0.5
    rows = np.arange(0, 1200, 20)
    strategy = FedDistill(Opinion(shared), DistilSettings(), HiddenAnchors(rows, truth[rows]))
    for at in range(12):
        held = np.isin(np.arange(6), [at % 6, (at + 1) % 6, (at + 3) % 6])
        said = np.where(rng.random(1200) < 0.8, truth, rng.integers(0, 6, 1200))
        odds = np.where(held, 0.3, 0).astype(np.float32) * np.ones((1200, 1), np.float32)
        odds[np.arange(1200), said] += 2 * held[said]
        if at < echoes:
            held[:] = True
            blurred = rng.random(1200) < noise
            named = np.where(blurred, rng.integers(0, 6, 1200), believed)
            odds = np.full((1200, 6), 0.05, np.float32)
            odds[np.arange(1200), named] = np.where(blurred, odds_of_noise, 90.0)
        strategy.add(DeviceId(f"d{at:02}"), class_votes_of(odds, held.astype(np.uint8)))
    return strategy, truth


@pytest.mark.parametrize(
    ("echoes", "noise", "odds_of_noise"),
    [(1, 0.0, 90.0), (5, 0.0, 90.0), (1, 0.1, 90.0), (5, 0.1, 90.0), (1, 0.4, 0.2), (5, 0.4, 0.2)],
)
def test_who_repeats_the_shared_model_is_not_heard(echoes: int, noise: float, odds_of_noise: float) -> None:
    """Who names loudly what the shared model names, with few changes or quiet ones, leaves what the others teach."""
    strategy, truth = fleet_with(echoes, noise, odds_of_noise)
    taught, honest = ((one.teacher().value.argmax(1) == truth).mean() for one in (strategy, fleet_with(0)[0]))
    alone = (strategy.shared.value.argmax(1) == truth).mean()
    assert taught - alone > 0.7 * (honest - alone) > 0.05
    assert sum(share for device, share in strategy.trust().items() if device < f"d{echoes:02}") < 0.05


def street(rng: np.random.Generator, liars: int) -> tuple[FedDistill, npt.NDArray[np.int64]]:
    """Nine tenths of the proxies are of a class that everybody knows, the anchors of all alike; the first ones lie."""
    truth = np.concatenate(
        [np.where(rng.random(2000) < 0.88, 0, rng.integers(0, 6, 2000)), np.repeat(np.arange(6), 10)]
    )
    n = len(truth)

    def seen(right: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
        return np.where(rng.random(n) < right, truth, (truth + rng.integers(1, 6, n)) % 6)

    shared = np.full((n, 6), 0.05, np.float32)
    shared[np.arange(n), seen(np.where(truth == 0, 0.97, 0.62))] = 0.75
    rows = np.arange(2000, n)
    strategy = FedDistill(Opinion(shared), DistilSettings(), HiddenAnchors(rows, truth[rows]))
    for at in range(12):
        held = np.isin(np.arange(6), [0, 1 + at % 5, 1 + (at + 1) % 5])
        named = seen(np.full(n, 0.93))
        density = np.where(held[named], rng.integers(3, 6, n), 0).tolist()
        vote = class_votes((named * (np.array(density) > 0)).tolist(), density=density, held=held.tolist())
        lie = class_votes(rng.integers(0, 6, n).tolist(), density=rng.integers(1, 8, n).tolist(), held=[1] * 6)
        strategy.add(DeviceId(f"d{at:02}"), lie if at < liars else vote)
    return strategy, truth


def test_proxies_need_not_be_mixed_like_the_anchors() -> None:
    """Where everybody agrees on nearly all that there is, honest devices repeat nobody, and a liar is not heard."""
    strategy, truth = street(np.random.default_rng(0), liars=1)
    alone, taught = ((said.value.argmax(1) == truth)[:2000].mean() for said in (strategy.shared, strategy.teacher()))
    assert alone < 0.95
    assert taught > 0.98
    assert strategy.trust()["d00"] < 0.05


@pytest.mark.parametrize("anchors", [0, 20])
def test_who_agrees_with_a_model_that_never_errs_repeats_nothing(anchors: int) -> None:
    """Anchors that tell of no error tell of no echo: one sample more or less of agreement makes no difference."""
    truth = np.arange(200) % 2
    shared = Opinion(np.where(truth[:, None] == np.arange(2), 0.9, 0.1).astype(np.float32))
    rows = np.arange(anchors)
    strategy = FedDistill(shared, DistilSettings(device_cap=1), HiddenAnchors(rows, truth[rows]) if anchors else None)
    differs = truth.copy()
    differs[100] = 1 - differs[100]
    for name, said in (("agrees", truth), ("differs", differs)):
        strategy.add(DeviceId(name), class_votes(said.tolist(), density=[4] * 200, held=[1, 1]))
    assert strategy.trust()["agrees"] == pytest.approx(strategy.trust()["differs"], rel=0.1)


def test_a_class_without_a_hidden_anchor_is_the_shared_models() -> None:
    """Where nobody can be judged no device is heard, however many claim the class."""
    strategy, truth = fleet_with(0)
    assert strategy.anchors is not None
    rows = strategy.anchors.rows[strategy.anchors.truth != 2]
    unjudged = FedDistill(strategy.shared, strategy.settings, HiddenAnchors(rows, truth[rows]))
    for device, ballot in zip(strategy.devices(), strategy.ballots(), strict=True):
        unjudged.add(device, ballot.votes)
    np.testing.assert_array_equal(unjudged.class_weights()[:-1, 2], 0)
    assert unjudged.class_weights()[:-1, 3].sum() > 0.2


def test_forecasts_fuse_by_share_and_keep_their_disagreement() -> None:
    """One capped device at mean 1: share 0.4, so mean 0.4, and variance 1 + 0.4 - 0.16."""
    strategy = FedDistill(FORECAST, SETTINGS)
    strategy.add(DeviceId("a"), forecast_votes([1.0]))
    fused = strategy.teacher()
    assert fused.value.item() == pytest.approx(0.4)
    assert fused.spread is not None
    assert fused.spread.item() == pytest.approx(1.24**0.5)


SPREADS = Opinion(np.zeros((8, 1), np.float32), np.ones((8, 1), np.float32))


def test_sharp_forecasts_count_no_more_than_the_floor() -> None:
    """A spread of nearly 0 on some samples pulls there as much as half the shared spread."""
    pulls = []
    for sharp in (0.5, 0.01):
        strategy = FedDistill(SPREADS, DistilSettings(shared_share=0.2, device_cap=1.0))
        strategy.add(DeviceId("a"), forecasts([1.0] * 8, [sharp] * 2 + [1.0] * 6))
        strategy.add(DeviceId("b"), forecast_votes([0.0] * 8))
        pulls.append(strategy.teacher().value)
    np.testing.assert_allclose(pulls[0], pulls[1], rtol=1e-3)
    assert pulls[0][0] > 1.5 * pulls[0][-1], "it is heard where it claims to know"


@given(spread=st.lists(st.floats(0.01, 100), min_size=8, max_size=8))
def test_claims_move_a_forecasters_share_and_do_not_raise_it(spread: list[float]) -> None:
    """What it asks for is on average at most what everybody asks for, and nowhere more than four times that."""
    strategy = FedDistill(SPREADS, SETTINGS)
    strategy.add(DeviceId("a"), forecasts([1.0] * 8, spread))
    (ballot,) = strategy.ballots()
    asked = strategy._forecast_weight(ballot)
    assert asked.mean(0) <= 1.001
    assert asked.max() <= CONCENTRATED


def test_one_forecaster_far_away_cannot_carry_the_teacher_off() -> None:
    """With the furthest mean and the sharpest spread on the wire, trust of nearly 0 stays nearly nothing."""
    rng = np.random.default_rng(7)
    truth = rng.normal(size=(200, 1)).astype(np.float32)
    shared = Opinion(np.zeros_like(truth), np.ones_like(truth))
    anchors = HiddenAnchors(np.arange(0, 200, 4), truth[::4])
    errors, shares = [], []
    for liars in (0, 1, 4):
        strategy = FedDistill(shared, SETTINGS, anchors)
        for at in range(10):
            honest = (truth[:, 0] + rng.normal(0, 0.5, 200)).tolist()
            lie = forecasts([MOST_MEAN * MEAN_STEP] * 200, [0.01] * 200)
            strategy.add(DeviceId(f"road-{at}"), lie if at < liars else forecasts(honest, [0.5] * 200))
        errors.append(float(np.abs(strategy.teacher().value - truth).mean()))
        shares.append(sum(strategy.trust()[DeviceId(f"road-{at}")] for at in range(liars)))
    assert errors[1] < 1.05 * errors[0]
    assert errors[2] < 1.3 * errors[0]
    assert shares[2] < 0.1


def test_a_forecaster_that_errs_on_hidden_anchors_loses_its_weight() -> None:
    """Of two devices with equal claims the one that was wrong on the anchors hardly counts; missing is missing."""
    shared = Opinion(np.zeros((40, 1), np.float32), np.ones((40, 1), np.float32))
    truth = np.full((20, 1), 1.0, np.float32)
    truth[15:] = np.nan
    strategy = FedDistill(shared, SETTINGS, HiddenAnchors(np.arange(20), truth))
    strategy.add(DeviceId("right"), forecast_votes([1.0] * 40, 0.5))
    strategy.add(DeviceId("wrong"), forecast_votes([-3.0] * 40, 0.5))
    trust = strategy.trust()
    assert trust["right"] > 10 * trust["wrong"]
    assert strategy.teacher().value.mean() > 0.3


def share_of_liars(known: Asked, counted: Asked, shared: Opinion) -> float:
    """What four honest devices leave of the teacher to two that lie but on the anchors they know."""
    truth, rng = counted.samples.targets.astype(np.int64), np.random.default_rng(5)
    strategy = FedDistill(shared, DistilSettings(), HiddenAnchors(counted.hidden, truth[counted.hidden]))
    for at in range(4):
        seen = np.where(rng.random(len(truth)) < 0.9, truth, rng.integers(0, 3, len(truth)))
        strategy.add(DeviceId(f"honest-{at}"), class_votes(seen.tolist()))
    lie = (truth + 1) % 3
    lie[known.hidden] = truth[known.hidden]
    for at in range(2):
        strategy.add(DeviceId(f"liar-{at}"), class_votes(lie.tolist()))
    return sum(share for device, share in strategy.trust().items() if device.startswith("liar"))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_knowing_the_anchors_of_the_last_round_gains_little(seed: int) -> None:
    """Liars that know which anchors counted get a third of the teacher that round, and far less the next."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(0, 3, 600)
    hidden = np.sort(rng.choice(600, 120, replace=False))
    samples = Samples.of(rng.integers(0, 256, (600, 2, 2, 3)).astype(np.uint8), truth)
    asked = Asked(samples, np.setdiff1d(np.arange(600), hidden), hidden, samples.take(slice(0)))
    shared = np.full((600, 3), 0.2, np.float32)
    shared[np.arange(600), np.where(rng.random(600) < 0.7, truth, (truth + 1) % 3)] = 0.6
    last, new = (drawn(asked, share=0.5, salt=b"secret", number=number) for number in (1, 2))
    nobody = Asked(samples, asked.proxies, hidden[:0], asked.anchors)
    then, now, blind = (
        share_of_liars(known, counted, Opinion(shared)) for known, counted in ((last, last), (last, new), (nobody, new))
    )
    assert then > 0.28
    assert blind < now < 2 / 3 * then
