"""The mean of probabilities, made sharper (DS-FL's entropy reduction; Itahara et al. 2021). Owns the temperature.

A mean over skewed devices is flat, and a flat teacher teaches little: softmax(mean / T) lowers its entropy where there
is a favourite, and never changes which it is. Many classes that nearly tie come out flatter, for none keeps a 0.
Which samples are asked at all is the matter of `label_cache`. Forecasts are averaged as by FedMD.
"""

from __future__ import annotations

import numpy as np

from broker_server.strategies.base import Opinion
from broker_server.strategies.feddf import softmax
from broker_server.strategies.fedmd import FedMd

TEMPERATURE = 0.1
"""As published."""


class DsFl(FedMd):
    """FedMD's mean, sharpened; the shared model speaks as it is when no device does."""

    def teacher(self) -> Opinion:
        """Average what was added, then lower its entropy."""
        mean = super().teacher()
        if not len(self) or mean.spread is not None:
            return mean
        return Opinion(softmax(mean.value.astype(np.float64) / TEMPERATURE))
