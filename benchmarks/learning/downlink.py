"""Bytes that devices fetch, counted as the product publishes them: INT8 payloads, and deltas from then on.

Owns the sizes. Payload, delta and the rule when one is not worth it are the product's, made of the students that a run
trained; a device that was away is counted as if it had fetched every release.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

import numpy as np

from benchmarks.learning.fleet import SPEC, World
from broker_server.distil_job import PROTOTYPE_STRATEGIES
from broker_server.proxy_set import build
from broker_server.releases import WORTH
from edge_models.samples import Samples
from edge_models.students import Student, build_student
from edge_protocol.delta import make_delta
from edge_protocol.task import TIERS, Tier
from export.payload import weights_payload
from export.template import build_template


class Downlink:
    """The releases of a run.

    Args:
        first: students of the first release, which devices fetch whole.
        devices: how many there are; their tiers take turns.
    """

    def __init__(self, first: Mapping[Tier, Student], devices: int) -> None:
        self._devices = devices
        self._last = {tier: weights_payload(student, template_of(tier)) for tier, student in first.items()}
        self.whole = self._mean({tier: len(payload) for tier, payload in self._last.items()})
        """Mean bytes of the first release's weights."""
        self.rounds: list[float] = []
        """Mean bytes of each later one's, a device."""

    def release(self, students: Mapping[Tier, Student]) -> None:
        """Count what devices fetch of the next release: a delta, or the payload where that saves too little."""
        sizes = {}
        for tier, student in students.items():
            base = self._last[tier]
            made = self._last[tier] = weights_payload(student, template_of(tier), base=base)
            delta = make_delta(base, made)
            sizes[tier] = len(made) if delta is None or len(delta) >= WORTH * len(made) else len(delta)
        self.rounds.append(self._mean(sizes))

    def _mean(self, sizes: Mapping[Tier, int]) -> float:
        return float(np.mean([sizes[TIERS[at % len(TIERS)]] for at in range(self._devices)]))


@lru_cache(maxsize=len(TIERS))
def template_of(tier: Tier) -> bytes:
    """The graph that all students of a tier share."""
    return build_template(build_student(SPEC, tier), SPEC.input.shape)


def proxy_bytes(world: World, strategy: str) -> int:
    """Size of the blob of samples that devices are asked about, fetched once; 0 under rules that ask for no answer."""
    asked = strategy not in ("self", *PROTOTYPE_STRATEGIES)
    return len(build(Samples.concat([world.proxies, world.hidden]))) if asked else 0
