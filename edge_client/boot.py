"""What a device serves when it starts: the first release of the resolver that can be loaded; asks no clock, no link.

The current release comes first, then the one before, then the factory model. None of them needs the network, the
server or the right time, and a device that is offline for ever serves what it has for ever.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edge_client.candidate import Candidate, files_of, load_release
from edge_client.carry import Carry
from edge_client.fetcher import Fetcher
from edge_client.hands import Hands
from edge_client.installed import resolve
from edge_client.lessons import Fitted
from edge_client.offers import Running
from edge_protocol.errors import RoadcastError, StoreError


def boot(hands: Hands, carry: Carry, root: bytes) -> Running:
    """Serve the first release that is whole, can be loaded, and that the commissioned root proves.

    Each load is counted on the disk before it begins, so that a release that takes the agent down is passed over in
    the end. A disk that cannot count is no reason not to serve.
    """
    spec, config, store, own = hands.spec, hands.config, hands.installed, hands.fetcher.folder
    folder, factory = Path(config.state_dir) / spec.name, Path(config.factory)
    whole, skipped = resolve(folder, own, spec=spec, tier=config.tier, root=root, factory=factory)
    running = Running()
    for found in whole:
        with suppress(StoreError):
            store.begin_attempt(found.release)
        try:
            candidate = load_release(found.release, found.artifact, found.blob, config.threads)
        except (RoadcastError, OSError) as error:
            skipped.append(f"release {found.release}: {error}")
            candidate = None
        with suppress(StoreError):
            store.end_attempt(found.release)
        if candidate is not None:
            if found.blobs != own:
                _prefer_the_factory_s(hands.fetcher, candidate)
            head = store.load_head(found.release, spec)
            carry.serve(candidate, Fitted(found.release, *head) if head else None)
            with suppress(StoreError):  # it was raised when this was committed, unless that was cut short
                hands.trust.raise_floor(found.release)
            running = Running(found.release, candidate.artifact.weights.sha256)
            break
    for reason in skipped:
        carry.drop("fallback", reason)
    return running


def _prefer_the_factory_s(fetcher: Fetcher, candidate: Candidate) -> None:
    """A copy of the device's own hides the factory's; here it may be what was damaged."""
    for sha256 in files_of(candidate.artifact):
        fetcher.drop(sha256)
