"""A release that a device may take: what it is, and which of its artifacts. Pure, owns nothing."""

from __future__ import annotations

from dataclasses import dataclass

from edge_client.effects import Offered
from edge_protocol.manifest import Artifact


@dataclass(frozen=True, slots=True)
class Offer:
    """A release that passed every check that needs no file; what is taken of it, and the plain artifact behind that."""

    counter: int
    offered: Offered
    artifact: Artifact
    plain: Artifact
