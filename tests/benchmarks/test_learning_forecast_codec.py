"""The book of what forecasters' reports cost: by round and way, with what half precision would have told."""

from __future__ import annotations

import numpy as np

from benchmarks.learning.forecast_codec import HALF, LZMA, TOLD, Ledger
from edge_protocol.ids import DeviceId
from edge_protocol.votes import forecast_values

ROAD = DeviceId("road-0")


def test_a_forecaster_is_booked() -> None:
    """The same answer again takes less; half precision takes two bytes a number and stays near the answer."""
    rng, ledger = np.random.default_rng(0), Ledger()
    exact = {
        "mean": rng.normal(size=(200, 3)).astype(np.float32),
        "spread": np.exp(rng.normal(size=(200, 3))).astype(np.float32),
    }
    for number in (1, 2):
        mean, spread = forecast_values(ledger.tell(ROAD, number, exact))
        np.testing.assert_allclose(mean, exact["mean"], rtol=1e-3, atol=1e-6)
        np.testing.assert_allclose(spread, exact["spread"], rtol=1e-3)
    assert ledger.of(TOLD, first=False) < ledger.of(TOLD, first=True) / 2
    assert ledger.of(HALF, first=True) == ledger.of(HALF, first=False) == 200 * 2 * 2 * 3
    assert ledger.of(LZMA, first=True) > 0
