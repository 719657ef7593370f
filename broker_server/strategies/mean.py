"""`fedmd` under the name that it had first."""

from __future__ import annotations

from broker_server.strategies.fedmd import FedMd as Mean

__all__ = ["Mean"]
