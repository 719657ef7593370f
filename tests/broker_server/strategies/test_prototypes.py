"""What holds for every rule that shares prototypes."""

from __future__ import annotations

import numpy as np
import pytest

from broker_server.strategies import PROTOTYPE_RULES
from broker_server.strategies.prototypes import PULL, PrototypeSharing
from edge_models.local_settings import LocalSettings
from edge_models.prototypes import Prototypes
from edge_protocol.errors import RemoteProtocolError
from edge_protocol.ids import DeviceId

A, B = DeviceId("a"), DeviceId("b")
C, K = 3, 4
ONES = np.ones(C, np.int64)
RULES = pytest.mark.parametrize("kind", PROTOTYPE_RULES.values(), ids=PROTOTYPE_RULES)


def sent(seed: int, held: tuple[int, ...] = (1, 1, 1)) -> Prototypes:
    """Class means of one device."""
    mask = np.array(held, np.uint8)
    means = np.random.default_rng(seed).normal(size=(C, K)).astype(np.float32)
    return Prototypes(means * mask[:, None], mask)


@RULES
def test_the_order_of_arrival_does_not_matter(kind: type[PrototypeSharing]) -> None:
    """Any order gives the same prototypes, bit for bit."""
    rules = kind(C, K), kind(C, K)
    for rule, order in zip(rules, ((0, 1, 2), (2, 0, 1)), strict=True):
        for at in order:
            rule.add(DeviceId(f"d{at}"), sent(at), ONES)
    np.testing.assert_array_equal(rules[0].result().means, rules[1].result().means)


@RULES
def test_a_second_message_replaces_the_first(kind: type[PrototypeSharing]) -> None:
    """A device counts once, with what it sent last."""
    twice, once = kind(C, K), kind(C, K)
    twice.add(A, sent(5), 100 * ONES)
    for rule in (twice, once):
        rule.add(A, sent(1), ONES)
        rule.add(B, sent(2), ONES)
    assert len(twice) == 2
    np.testing.assert_array_equal(twice.result().means, once.result().means)


@RULES
def test_only_classes_that_somebody_holds_get_a_prototype(kind: type[PrototypeSharing]) -> None:
    """A class that no device holds is not held; without devices none is."""
    rule = kind(C, K)
    assert rule.result().held.tolist() == [0, 0, 0]
    rule.add(A, sent(1, (1, 0, 0)), ONES)
    rule.add(B, sent(2, (1, 0, 1)), ONES)
    result = rule.result()
    assert result.held.tolist() == [1, 0, 1]
    assert (result.means[1] == 0).all()
    assert np.isfinite(result.means).all()


@pytest.mark.parametrize(
    ("means", "held", "counts", "reason"),
    [
        (np.full((C, K), np.nan, np.float32), np.ones(C, np.uint8), ONES, "not-finite"),
        (np.full((C, K), 1e30, np.float32), np.ones(C, np.uint8), ONES, "not-finite"),
        (np.zeros((C, K + 1), np.float32), np.ones(C, np.uint8), ONES, "wrong-shape"),
        (np.zeros((C, K), np.float32), np.ones(C + 1, np.uint8), ONES, "wrong-shape"),
        (np.zeros((C, K), np.float32), np.ones(C, np.uint8), ONES[:2], "wrong-shape"),
        (np.zeros((C, K), np.float32), np.ones(C, np.uint8), 0 * ONES, "wrong-counts"),
        (np.zeros((C, K), np.float32), np.ones(C, np.uint8), 10**9 * ONES, "wrong-counts"),
    ],
)
@RULES
def test_hostile_prototypes_are_refused_with_a_reason(
    kind: type[PrototypeSharing], means: np.ndarray, held: np.ndarray, counts: np.ndarray, reason: str
) -> None:
    """What is wrong is named, with the device, and what it sent before stays."""
    rule = kind(C, K)
    rule.add(A, sent(1), ONES)
    with pytest.raises(RemoteProtocolError, match=r"^a sent") as caught:
        rule.add(A, Prototypes(means, held), counts)
    assert caught.value.reason == reason
    np.testing.assert_array_equal(next(rule.newest()).means, sent(1).means)


def test_nan_in_a_class_not_held_does_no_harm() -> None:
    """Only what a device says to hold is read."""
    rule = PROTOTYPE_RULES["fedproto"](C, K)
    means = np.ones((C, K), np.float32)
    means[1] = np.nan
    rule.add(A, Prototypes(means, np.array([1, 0, 1], np.uint8)), np.array([1, 0, 1]))
    assert np.isfinite(rule.result().means).all()


@RULES
def test_devices_are_pulled_as_the_rule_says(kind: type[PrototypeSharing]) -> None:
    """One phase, with the rule's own pull."""
    assert [phase.prototype for phase in kind(C, K).phases(LocalSettings())] == [PULL]
    assert [phase.prototype for phase in kind(C, K, pull=1.5).phases(LocalSettings())] == [1.5]
