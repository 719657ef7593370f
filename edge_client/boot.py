"""What a device serves as it starts: the newest release that its disk holds whole; asks no clock and no link."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edge_client.candidate import load_release
from edge_client.carry import Carry
from edge_client.hands import Hands
from edge_client.installed import resolve
from edge_client.lessons import Fitted
from edge_client.releasing import Running
from edge_protocol.errors import RoadcastError, StoreError


def boot(hands: Hands, carry: Carry, root: bytes) -> Running:
    """Serve the newest release that is whole, can be loaded, and that the commissioned root proves."""
    spec, config = hands.spec, hands.config
    folder = Path(config.state_dir) / spec.name
    whole, skipped = resolve(folder, hands.fetcher.folder, spec=spec, tier=config.tier, root=root)
    for found in whole:
        try:
            candidate = load_release(found.release, found.artifact, hands.fetcher.path, config.threads)
        except RoadcastError as error:
            skipped.append(f"release {found.release}: {error}")
            continue
        head = hands.installed.load_head(found.release, spec)
        carry.serve(candidate, Fitted(found.release, *head) if head else None)
        with suppress(StoreError):  # it was raised when this was committed, unless that was cut short
            hands.trust.raise_floor(found.release)
        break
    for reason in skipped:
        carry.drop("fallback", reason)
    serving, bundle = carry.serving, hands.inference.bundle
    return Running(bundle.release, serving.weights.sha256) if bundle and serving else Running()
