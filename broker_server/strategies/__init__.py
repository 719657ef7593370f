"""Rules that fuse what devices say about the proxies into one teacher, one file each behind `base.Strategy`."""

from __future__ import annotations

from broker_server.distil_job import DistilSettings
from broker_server.strategies.base import HiddenAnchors, Opinion, Strategy
from broker_server.strategies.feddistill import FedDistill
from broker_server.strategies.mean import Mean
from broker_server.strategies.self_training import SelfTraining
from edge_protocol.errors import ConfigError

STRATEGIES: dict[str, type[Strategy]] = {"feddistill": FedDistill, "mean": Mean, "self": SelfTraining}


def make_strategy(settings: DistilSettings, shared: Opinion, anchors: HiddenAnchors | None = None) -> Strategy:
    """Make the strategy that the settings name.

    Raises:
        ConfigError: there is none of that name.
    """
    kind = STRATEGIES.get(settings.strategy)
    if kind is None:
        raise ConfigError(f"distil.strategy: {settings.strategy!r} is not one of {', '.join(sorted(STRATEGIES))}")
    return kind(shared, settings, anchors)


__all__ = ["STRATEGIES", "HiddenAnchors", "Opinion", "Strategy", "make_strategy"]
