"""What a device serves as it starts: the first release of the resolver that can be loaded; asks no clock and no link.

The current release comes first, then the one before, then the factory model. None of them needs the network, the
server or the right time, and a device that is offline for ever serves what it has for ever.
"""

from __future__ import annotations

from contextlib import suppress
from math import inf
from pathlib import Path

from edge_client.candidate import Candidate, load_release
from edge_client.carry import Carry
from edge_client.core import Remembered
from edge_client.hands import Hands
from edge_client.installed import Resolved, resolve
from edge_client.lessons import Fitted
from edge_client.offers import MAX_ATTEMPTS, Running
from edge_protocol.errors import DeploymentError, RoadcastError, StoreError


class Boot:
    """One start: the first release that is whole, can be loaded, and that the commissioned root proves, serves.

    Its load is noted on the disk before it begins, and until it has served for a while or the agent is asked to stop:
    one under which the agent dies time and again is passed over. A disk that cannot count is no reason not to serve.

    Args:
        hands: the parts.
        carry: serves it.
        root: that the device was commissioned with.
        now: seconds, of any clock that never goes back.

    Attributes:
        remembered: what the brain is to know of the disk.
    """

    def __init__(self, hands: Hands, carry: Carry, root: bytes, now: float) -> None:
        self._hands, self._settles_at = hands, now + hands.config.probation.settle_s
        skipped = _serve_first(hands, carry, root)
        for reason in skipped:
            carry.drop("fallback", reason)
        serving, bundle, attempts = carry.serving, hands.inference.bundle, hands.installed.attempts()
        running = Running(bundle.release, serving.weights.sha256) if bundle and serving else Running()
        attempts.pop(running.release, None)  # its load is under way: no reason to refuse what runs
        self._bare = bool(skipped) and not running.release and max(attempts.values(), default=0) >= MAX_ATTEMPTS
        self.remembered = Remembered(
            running=running, answered=hands.outbox.answered, spent=hands.account.exhausted, attempts=attempts
        )

    def tick(self, now: float) -> None:
        """Forget the load once frames were answered for a while; do not stay without a release for ever.

        Raises:
            DeploymentError: every release was left alone and nothing came in its place: start again, they are tried.
        """
        if now < self._settles_at:
            return
        hands = self._hands
        bare = self._bare and hands.inference.bundle is None and not hands.busy
        if not bare and not hands.inference.counters.answered:
            return
        self._settles_at = inf
        with suppress(StoreError):  # one attempt too many is counted
            hands.installed.settle(self.remembered.running.release)
        if bare:
            raise DeploymentError("every release here took the agent down, and no other came; start again to try them")

    def end(self) -> None:
        """The agent was asked to stop: nothing took it down."""
        with suppress(StoreError):
            self._hands.installed.end_attempts()


def _serve_first(hands: Hands, carry: Carry, root: bytes) -> list[str]:
    """Serve what can be loaded; say why what comes before it was passed over."""
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
    return skipped


def _load(hands: Hands, found: Resolved) -> Candidate:
    store = hands.installed
    with suppress(StoreError):
        store.begin_attempt(found.release)
    try:
        return load_release(found.release, found.artifact, found.blob, hands.config.threads)
    except (RoadcastError, OSError):
        with suppress(StoreError):
            store.end_attempt(found.release)
        raise


def _prefer_the_factory_s(hands: Hands, candidate: Candidate) -> None:
    """A copy of the device's own hides the factory's; here it may be what was damaged."""
    files = candidate.artifact
    for ref in (files.template, files.weights, files.golden):
        hands.fetcher.drop(ref.sha256)
