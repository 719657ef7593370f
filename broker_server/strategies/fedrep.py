"""FedPer whose devices fit the head first and then the trunk (FedRep; Collins et al. 2021). Owns the alternation."""

from __future__ import annotations

import msgspec

from broker_server.strategies.fedper import FedPer
from edge_models.local_settings import LocalSettings


class FedRep(FedPer):
    """Two phases of the full length each: the head on the frozen trunk, then the trunk under the frozen head."""

    def phases(self, settings: LocalSettings) -> tuple[LocalSettings, ...]:
        """Head, then trunk: the head must suit the new shared trunk before the trunk learns through it."""
        return (
            msgspec.structs.replace(settings, frozen="trunk"),
            msgspec.structs.replace(settings, frozen="head"),
        )
