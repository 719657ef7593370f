"""What dishonest devices say in the benchmarks: as bad as claimed, and within the wire's rules."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.learning.attackers import ATTACKS, Attack
from edge_protocol.arrays import pack, unpack
from edge_protocol.votes import ClassVotes

CLASSES, SAMPLES = 4, 60


def votes(rng: np.random.Generator) -> ClassVotes:
    """What an honest device of all classes but the last says."""
    density = rng.integers(0, 8, SAMPLES).astype(np.uint8)
    speaks = density > 0
    classes = (rng.integers(0, CLASSES - 1, SAMPLES) * speaks).astype(np.uint8)
    confidence = (rng.integers(0, 4, SAMPLES) * speaks).astype(np.uint8)
    return ClassVotes(pack(classes), pack(confidence), pack(density), pack(np.array([1, 1, 1, 0], np.uint8)))


def scene() -> Attack:
    """Five devices, of which the last two lie."""
    rng = np.random.default_rng(0)
    shared = rng.dirichlet(np.ones(CLASSES), SAMPLES).astype(np.float32)
    return Attack({at: votes(rng) for at in range(5)}, {3, 4}, shared, rng)


@pytest.mark.parametrize("name", ATTACKS)
def test_only_liars_lie(name: str) -> None:
    """Honest votes stay as they are, and no lie is what its device would have said."""
    attack = scene()
    told = ATTACKS[name](attack)
    assert all(told[at] is attack.said[at] for at in range(3))
    assert all(told[at] != attack.said[at] for at in attack.liars)


def test_a_quiet_echo_says_aloud_what_the_shared_model_says() -> None:
    """What it names beside that costs it nothing: the lowest levels, of what is second likeliest."""
    attack = scene()
    lie = ATTACKS["quiet echo"](attack)[4]
    named, density = unpack(lie.classes), unpack(lie.density).astype(int)
    order = attack.shared.argsort(1)
    assert set(density) == {1, 7}
    np.testing.assert_array_equal(named, np.where(density == 7, order[:, -1], order[:, -2]))


def test_flipped_and_swapped_names_take_the_held_classes_along() -> None:
    """Class c is called the next one and is held under that name; a swap leaves the third class alone."""
    attack = scene()
    honest, flipped, swapped = attack.said[3], ATTACKS["flip"](attack)[3], ATTACKS["swap"](attack)[3]
    speaks = unpack(honest.density).astype(int) > 0
    was, became = unpack(honest.classes)[speaks], unpack(flipped.classes)[speaks]
    np.testing.assert_array_equal(became, (was + 1) % CLASSES)
    assert unpack(flipped.held).tolist() == [0, 1, 1, 1]
    np.testing.assert_array_equal(unpack(swapped.classes)[speaks], np.array([1, 0, 2, 3])[was])
    assert flipped.density == swapped.density == honest.density


def test_loud_lies_are_as_loud_as_the_wire_allows() -> None:
    """The least likely class everywhere, with the highest levels."""
    attack = scene()
    lie = ATTACKS["least likely"](attack)[4]
    np.testing.assert_array_equal(unpack(lie.classes), attack.shared.argmin(1))
    assert set(lie.density.data) == {7}
    assert set(lie.confidence.data) == {3}


def test_colluders_stay_within_what_honest_devices_say() -> None:
    """Each class named was named by an honest device on that sample, at least as loudly; both say the same."""
    attack = scene()
    told = ATTACKS["hull"](attack)
    assert told[3] == told[4]
    classes, density = unpack(told[3].classes), unpack(told[3].density)
    for at in range(SAMPLES):
        loud = [int(unpack(v.density)[at]) for v in attack.honest if unpack(v.classes)[at] == classes[at]]
        assert density[at] == 0 or density[at] in loud


def test_an_adaptive_liar_is_honest_on_about_half() -> None:
    """Levels are honest throughout; names are on some samples and not on others."""
    attack = scene()
    lie, honest = ATTACKS["adaptive"](attack)[3], attack.said[3]
    speaks = unpack(honest.density).astype(int) > 0
    same = (unpack(lie.classes) == unpack(honest.classes))[speaks]
    assert 0.25 < same.mean() < 0.75
    assert lie.density == honest.density
