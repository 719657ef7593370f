"""Bytes of releases, counted as the product publishes them."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch

from benchmarks.learning.downlink import Downlink, template_of
from benchmarks.learning.fleet import SPEC
from edge_models.students import Student, build_student
from edge_protocol.delta import make_delta
from edge_protocol.task import TIERS
from export.payload import weights_payload

FIRST = {tier: build_student(SPEC, tier) for tier in TIERS}


@torch.no_grad()
def moved(student: Student, share: float) -> Student:
    """The student with every weight moved at random by about a share of itself."""
    other, generator = deepcopy(student), torch.Generator().manual_seed(1)
    for weight in other.parameters():
        weight.mul_(1 + share * torch.randn(weight.shape, generator=generator))
    return other


def test_a_release_costs_its_delta_or_the_whole() -> None:
    """Weights that moved a little are a difference, the same ones nearly nothing, unrelated ones the whole payload."""
    fetched = Downlink(FIRST, 3)
    near = {tier: moved(student, 0.02) for tier, student in FIRST.items()}
    for students in (near, near, {tier: build_student(SPEC, tier, seed=5) for tier in TIERS}):
        fetched.release(students)
    little, nothing, unrelated = fetched.rounds
    assert 0 < nothing < 0.1 * little < little < 0.5 * fetched.whole
    assert little < unrelated <= 1.05 * fetched.whole


def test_sizes_are_those_of_the_products_own_files() -> None:
    """One device of the smallest tier: the payload, and the delta from it to the next."""
    fetched, after = Downlink(FIRST, 1), {tier: moved(student, 0.02) for tier, student in FIRST.items()}
    fetched.release(after)
    base = weights_payload(FIRST[TIERS[0]], template_of(TIERS[0]))
    delta = make_delta(base, weights_payload(after[TIERS[0]], template_of(TIERS[0]), base=base))
    assert delta is not None
    assert (fetched.whole, fetched.rounds) == (len(base), [pytest.approx(len(delta))])
