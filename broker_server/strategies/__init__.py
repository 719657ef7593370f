"""Rules that learn from a fleet, one file each.

`base.Strategy` fuses what devices say about the proxies into one teacher; the server runs these. What benchmarks
compare them with is behind `weights.WeightSharing` and `prototypes.PrototypeSharing`.
"""

from __future__ import annotations

from broker_server.distil_job import DistilSettings
from broker_server.strategies.base import HiddenAnchors, Opinion, Strategy
from broker_server.strategies.dsfl import DsFl
from broker_server.strategies.fedavg import FedAvg
from broker_server.strategies.feddf import FedDf
from broker_server.strategies.feddistill import FedDistill
from broker_server.strategies.fedmd import FedMd
from broker_server.strategies.fedper import FedPer
from broker_server.strategies.fedproto import FedProto
from broker_server.strategies.fedprox import FedProx
from broker_server.strategies.fedrep import FedRep
from broker_server.strategies.fedtgp import FedTGP
from broker_server.strategies.prototypes import PrototypeSharing
from broker_server.strategies.self_training import SelfTraining
from broker_server.strategies.weights import WeightSharing
from edge_protocol.errors import ConfigError

STRATEGIES: dict[str, type[Strategy]] = {
    "dsfl": DsFl,
    "feddf": FedDf,
    "feddistill": FedDistill,
    "fedmd": FedMd,
    "mean": FedMd,
    "self": SelfTraining,
}
WEIGHT_RULES: dict[str, type[WeightSharing]] = {
    "fedavg": FedAvg,
    "fedper": FedPer,
    "fedprox": FedProx,
    "fedrep": FedRep,
}
PROTOTYPE_RULES: dict[str, type[PrototypeSharing]] = {"fedproto": FedProto, "fedtgp": FedTGP}


def make_strategy(settings: DistilSettings, shared: Opinion, anchors: HiddenAnchors | None = None) -> Strategy:
    """Make the strategy that the settings name.

    Raises:
        ConfigError: there is none of that name.
    """
    kind = STRATEGIES.get(settings.strategy)
    if kind is None:
        raise ConfigError(f"strategy: {settings.strategy!r} is not one of {', '.join(sorted(STRATEGIES))}")
    return kind(shared, settings, anchors)


__all__ = [
    "PROTOTYPE_RULES",
    "STRATEGIES",
    "WEIGHT_RULES",
    "HiddenAnchors",
    "Opinion",
    "PrototypeSharing",
    "Strategy",
    "WeightSharing",
    "make_strategy",
]
