"""The control without any device: the shared model teaches itself. A rule that does not beat it learnt nothing."""

from __future__ import annotations

from broker_server.strategies.base import Opinion, Strategy


class SelfTraining(Strategy):
    """Ignores every ballot."""

    def teacher(self) -> Opinion:
        """Return the shared model's own opinion."""
        return self.shared
