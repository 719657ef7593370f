"""Learning rates over a training."""

from __future__ import annotations

import pytest

from edge_models.schedules import one_cycle


def test_the_rate_rises_and_falls() -> None:
    """From a twenty-fifth to 1 at a fifth of the steps, and to nearly nothing."""
    rates = [one_cycle(done / 100) for done in range(100)]
    assert rates[0] == pytest.approx(0.04)
    assert max(rates) == rates[20] == pytest.approx(1, rel=1e-3)
    assert 0 < rates[-1] < 0.01
