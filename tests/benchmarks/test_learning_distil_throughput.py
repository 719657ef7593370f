"""What the throughput of the distillation is measured on, and what a card is held against."""

from __future__ import annotations

import os

import pytest
import torch

from benchmarks.harness import spread
from benchmarks.learning.distil_throughput import BASE, Way, outcome_of, ways
from edge_protocol.task import Tier

THREADS, CUDA = Way("cpu", 8, fast=False), Way("cuda", 8, fast=True)
NANO: Tier = "nano"


def test_there_is_a_way_for_what_is_here() -> None:
    """One thread first, all of them when there are more, and CUDA only where there is a device."""
    here = ways(quick=True)
    assert here[0] == BASE
    assert len({str(way) for way in here}) == len(here)
    assert max(way.threads for way in here) == (os.cpu_count() or 1)
    assert any(way.device == "cuda" for way in here) == torch.cuda.is_available()
    assert not any(way.fast for way in here if way.device == "cpu")


@pytest.mark.parametrize(("rate", "met"), [(900.0, True), (300.0, False)])
def test_a_card_is_held_against_the_best_of_the_cpu(rate: float, met: bool) -> None:
    """Four times one thread is a loss where eight threads do more."""
    measured = {BASE: 100.0, THREADS: 400.0, CUDA: rate}
    rates = {NANO: {way: spread([value]) for way, value in measured.items()}}
    gains = {NANO: {way: spread([value / 100]) for way, value in measured.items()}}
    outcome = outcome_of(list(measured), rates, gains, card="a card", judge=True)
    (target,) = outcome.targets
    assert target.met == met
    assert f"a card: {rate / 400:.2f} times" in outcome.headline


def test_without_a_card_the_headline_says_so() -> None:
    """Nothing is judged, and one thread is no worse than itself."""
    rates, gains = ({NANO: {BASE: spread([value])}} for value in (100.0, 1.0))
    outcome = outcome_of([BASE], rates, gains, card="", judge=True)
    assert outcome.headline.endswith("1.00 times that; no CUDA device here")
    assert list(outcome.targets) == []
