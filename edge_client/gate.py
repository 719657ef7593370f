"""Lets an offered release through once signed metadata prove it; owns what was received and not yet believed.

Metadata and offers are retained messages, so they come in any order, late, twice or not at all. An offer waits here
until what came proves it, and is called unproven when that takes too long; it goes on waiting.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TypeAlias

from edge_client.offers import Offered, Unproven
from edge_client.trust_store import TrustStore
from edge_protocol.effects import Drop
from edge_protocol.errors import StoreError, TrustError
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.topics import ReleaseTopic, Topics
from edge_protocol.trust import MAX_METADATA, proven, refreshed, role_of, root_version, rotated

PATIENCE_S = 30.0
"""How long what proves an offer may take to come before the server is told that nothing does."""
AGAIN_S = 5.0
"""Pause between two looks at offers that wait while nothing comes: the clock may have been set, or the disk freed."""
Admission: TypeAlias = Offered | Unproven | Drop


@dataclass(slots=True)
class _Waiting:
    """An offer that nothing proves yet, since when (s of the pump's clock), and whether the server was told."""

    manifest: bytes
    since: float
    told: bool = False


class Gate:
    """Between the link and the brain, for the releases of one task.

    Args:
        task: its name.
        device: whose own release topic counts beside the fleet's.
        topics: of the fleet.
        store: what is trusted.
        subscribe: asks the link for topics.
        clock: seconds since 1970; trusted from the store's clock floor on.
    """

    def __init__(
        self,
        task: TaskId,
        device: DeviceId,
        topics: Topics,
        store: TrustStore,
        subscribe: Callable[[list[str]], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._task, self._topics, self._store, self._subscribe, self._clock = task, topics, store, subscribe, clock
        self._places = (ReleaseTopic(task), ReleaseTopic(task, device))
        self._received: dict[str, bytes] = {}
        self._offers: dict[ReleaseTopic, _Waiting] = {}
        self._trouble: TrustError | None = None
        self._again_at = 0.0

    def topics(self) -> list[str]:
        """Topics of the metadata that may come next: of roots, only the one after the newest."""
        following = f"{root_version(self._store.trusted) + 1}.root"
        return [self._topics.metadata(name) for name in (following, *self._names())]

    def metadata(self, name: str, data: bytes, now: float) -> list[Admission]:
        """Take signed metadata as they came."""
        if len(data) > MAX_METADATA:
            return [Drop("metadata-oversized", f"{name}: {len(data)} bytes exceed {MAX_METADATA}")]
        if self._topics.metadata(name) not in self.topics() or self._received.get(name) == data:
            return []
        self._received[name] = data
        return self._look(now)

    def offer(self, topic: ReleaseTopic, manifest: bytes, now: float) -> list[Admission]:
        """Take the release that the fleet, or this device, is to run."""
        if topic not in self._places:
            return [
                Drop("wrong-topic", f"an offer for {topic.device or 'the fleet'} and task {topic.task!r} came here")
            ]
        before = self._offers.get(topic)
        if before is None or before.manifest != manifest:
            self._offers[topic] = _Waiting(manifest, now)
        return self._look(now)

    def tick(self, now: float) -> list[Admission]:
        """Look again at what waits."""
        return self._look(now) if self._offers and now >= self._again_at else []

    def _names(self) -> tuple[str, ...]:
        return ("timestamp", "snapshot", "targets", role_of(self._task))

    def _look(self, now: float) -> list[Admission]:
        """Believe what can be believed, and let through what that proves."""
        self._again_at = now + AGAIN_S
        told = self._believe()
        for topic, waiting in list(self._offers.items()):
            told += self._judge(topic, waiting, now)
        return told

    def _believe(self) -> list[Admission]:
        """Trust what came; say so when it is refused, once for each kind of trouble.

        Roots first, whose chain asks for no time: they take a clock floor back that was signed at a wrong one.
        """
        before, self._trouble = self._trouble, None
        try:
            known = root_version(self._store.trusted)
            self._store.keep(rotated(self._store.trusted, self._received))
            self._received = {name: data for name, data in self._received.items() if name in self._names()}
            if root_version(self._store.trusted) > known:
                self._subscribe(self.topics()[:1])
            self._store.keep(refreshed(self._store.trusted, self._received, self._task, self._time()))
        except TrustError as error:
            self._trouble = error
        except StoreError as error:
            self._trouble = TrustError("trust-unwritten", str(error))
        now = self._trouble
        if now is None or now.reason == "metadata-missing" or (before is not None and before.reason == now.reason):
            return []
        return [Drop(now.reason, str(now))]

    def _judge(self, topic: ReleaseTopic, waiting: _Waiting, now: float) -> list[Admission]:
        try:
            manifest, proof = proven(self._store.trusted, self._task, waiting.manifest, self._time())
        except TrustError as error:
            if waiting.told or now - waiting.since < PATIENCE_S:
                return []
            waiting.told = True
            return [Unproven(waiting.manifest, str(self._trouble or error))]
        del self._offers[topic]
        if manifest.counter < self._store.release_floor:
            floor = self._store.release_floor
            return [Drop("old-release", f"release {manifest.counter} is below {floor}, which ran here once")]
        return [Offered(waiting.manifest, manifest, proof)]

    def _time(self) -> datetime:
        """The time, by a clock that may be right.

        Raises:
            TrustError: ``clock-untrusted``.
        """
        shown, floor = self._clock(), self._store.clock_floor_s
        if shown < floor:
            raise TrustError(
                "clock-untrusted",
                f"this clock shows {_day(shown)}, and {_day(floor)} is past: set it, no release is taken until then",
            )
        return datetime.fromtimestamp(shown, timezone.utc)


def _day(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, timezone.utc):%F %T} UTC"
