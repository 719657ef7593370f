"""What holds for every rule that shares weights: streaming, checks and phases."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.strategies import WEIGHT_RULES
from broker_server.strategies.fedavg import FedAvg
from broker_server.strategies.weights import State, WeightSharing
from edge_models.local_settings import LocalSettings
from edge_protocol.errors import RemoteProtocolError
from edge_protocol.ids import DeviceId

A, B = DeviceId("a"), DeviceId("b")
RULES = pytest.mark.parametrize("kind", WEIGHT_RULES.values(), ids=WEIGHT_RULES)


def state(value: float = 0.0) -> dict[str, np.ndarray]:
    """A small student: trunk, its batch statistics, and a head."""
    return {
        "trunk.weight": np.full((2, 3), value, np.float32),
        "trunk.seen": np.array(round(value), np.int64),
        "head.weight": np.full((2, 2), value, np.float32),
        "head.bias": np.full(2, value, np.float32),
    }


def hostile(name: str, value: np.ndarray) -> State:
    """A state with one tensor replaced."""
    return {**state(), name: value}


@RULES
@given(st.permutations(range(5)), st.integers(0, 2**32 - 1))
def test_the_order_of_arrival_does_not_matter(kind: type[WeightSharing], order: list[int], seed: int) -> None:
    """Any order of the same states gives the same mean, to the rounding of float32."""
    rng = np.random.default_rng(seed)
    sent = [{**state(), "trunk.weight": rng.normal(size=(2, 3)).astype(np.float32)} for _ in range(5)]
    counts = rng.integers(1, 1000, 5).tolist()
    rules = kind(state()), kind(state())
    for rule, sequence in zip(rules, (range(5), order), strict=True):
        for at in sequence:
            rule.add(DeviceId(f"d{at}"), rule.part(sent[at]), counts[at])
    np.testing.assert_allclose(rules[0].result()["trunk.weight"], rules[1].result()["trunk.weight"], rtol=1e-6)


@RULES
def test_nobody_leaves_the_start_as_it_was(kind: type[WeightSharing]) -> None:
    """Without devices the result is what is shared of the start."""
    rule = kind(state(3))
    assert len(rule) == 0
    np.testing.assert_equal(rule.result(), rule.part(state(3)))


@RULES
def test_equal_states_stay_as_they_are(kind: type[WeightSharing]) -> None:
    """The mean of equal states is that state, with names and dtypes as they were."""
    rule = kind(state())
    for device, examples in ((A, 7), (B, 1000)):
        rule.add(device, rule.part(state(0.1)), examples)
    result = rule.result()
    np.testing.assert_equal(result, rule.part(state(0.1)))
    assert {name: value.dtype for name, value in result.items()} == {
        name: value.dtype for name, value in rule.part(state()).items()
    }


def test_a_second_state_of_a_device_is_refused() -> None:
    """A running sum cannot take back: the first state counts, the second is named and changes nothing."""
    rule = FedAvg(state())
    rule.add(A, state(1), 10)
    with pytest.raises(RemoteProtocolError, match="a has sent its state") as caught:
        rule.add(A, state(5), 10)
    assert caught.value.reason == "second-state"
    rule.add(B, state(3), 10)
    assert len(rule) == 2
    np.testing.assert_equal(rule.result(), state(2))


@pytest.mark.parametrize(
    ("sent", "examples", "reason", "names"),
    [
        (hostile("trunk.weight", np.full((2, 3), np.nan, np.float32)), 5, "not-finite", "trunk.weight"),
        (hostile("head.bias", np.array([1, np.inf], np.float32)), 5, "not-finite", "head.bias"),
        (hostile("head.bias", np.zeros((1, 2), np.float32)), 5, "wrong-shape", "head.bias"),
        (hostile("head.bias", np.zeros(2, np.float64)), 5, "wrong-dtype", "head.bias"),
        (hostile("trunk.backdoor", np.zeros(2, np.float32)), 5, "wrong-names", "sent 'trunk.backdoor'"),
        ({"head.bias": np.zeros(2, np.float32)}, 5, "wrong-names", "did not send 'head.weight'"),
        (state(), 0, "wrong-examples", "0 samples"),
        (state(), -3, "wrong-examples", "-3 samples"),
        (state(), 10**12, "wrong-examples", "10"),
    ],
)
def test_hostile_states_are_refused_with_a_reason(sent: State, examples: int, reason: str, names: str) -> None:
    """What is wrong is named, with the device, and the sum and the device's turn stay as they were."""
    rule = FedAvg(state())
    rule.add(B, state(4), 1)
    with pytest.raises(RemoteProtocolError, match=names) as caught:
        rule.add(A, sent, examples)
    assert caught.value.reason == reason
    assert str(caught.value).startswith("a ")
    np.testing.assert_equal(rule.result(), state(4))
    rule.add(A, state(4), 1)


def test_only_one_sum_is_kept() -> None:
    """However many devices send, the rule holds no array beside the start and one sum of its size."""
    rule = FedAvg(state())
    for at in range(50):
        rule.add(DeviceId(f"d{at}"), state(at), 1)
    held = [value for table in (rule._start, rule._sum) for value in table.values()]
    assert len(held) == 2 * len(state())
    assert not any(isinstance(kept, np.ndarray) for kept in vars(rule).values())


@RULES
def test_phases_keep_what_they_do_not_own(kind: type[WeightSharing]) -> None:
    """Every phase trains with the settings it was given, but for what the rule is about."""
    settings = LocalSettings(epochs=7, learning_rate=0.5, seed=9)
    for phase in kind(state()).phases(settings):
        assert (phase.epochs, phase.learning_rate, phase.seed) == (7, 0.5, 9)
