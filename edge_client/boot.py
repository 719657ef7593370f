"""What a device serves as it starts: the first release of the resolver that can be loaded; asks no clock and no link.

The current release comes first, then the one before, then the factory model. None of them needs the network, the
server or the right time, and a device that is offline for ever serves what it has for ever.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edge_client.candidate import Candidate, load_release
from edge_client.carry import Carry
from edge_client.hands import Hands
from edge_client.installed import Resolved, resolve
from edge_client.lessons import Fitted
from edge_client.offers import Running
from edge_protocol.errors import RoadcastError, StoreError


def boot(hands: Hands, carry: Carry, root: bytes) -> Running:
    """Serve the first release that is whole, can be loaded, and that the commissioned root proves.

    Each load is counted on the disk before it begins, so that a release that takes the agent down is passed over in
    the end. A disk that cannot count is no reason not to serve.
    """
    spec, config = hands.spec, hands.config
    folder, own = Path(config.state_dir) / spec.name, hands.fetcher.folder
    whole, skipped = resolve(folder, own, spec=spec, tier=config.tier, root=root, factory=Path(config.factory))
    for found in whole:
        try:
            candidate = _load(hands, found)
        except (RoadcastError, OSError) as error:
            skipped.append(f"release {found.release}: {error}")
            continue
        if found.blobs != own:
            _prefer_the_factory_s(hands, candidate)
        head = hands.installed.load_head(found.release, spec)
        carry.serve(candidate, Fitted(found.release, *head) if head else None)
        with suppress(StoreError):  # it was raised when this was committed, unless that was cut short
            hands.trust.raise_floor(found.release)
        break
    for reason in skipped:
        carry.drop("fallback", reason)
    serving, bundle = carry.serving, hands.inference.bundle
    return Running(bundle.release, serving.weights.sha256) if bundle and serving else Running()


def _load(hands: Hands, found: Resolved) -> Candidate:
    store = hands.installed
    with suppress(StoreError):
        store.begin_attempt(found.release)
    try:
        return load_release(found.release, found.artifact, found.blob, hands.config.threads)
    finally:
        with suppress(StoreError):
            store.end_attempt(found.release)


def _prefer_the_factory_s(hands: Hands, candidate: Candidate) -> None:
    """A copy of the device's own hides the factory's; here it may be what was damaged."""
    files = candidate.artifact
    for ref in (files.template, files.weights, files.golden):
        hands.fetcher.drop(ref.sha256)
