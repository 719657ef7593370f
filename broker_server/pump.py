"""The server's one consumer: takes events from the inbox, asks the coordinator, and carries its effects out in order.

Every save of a batch is committed before anything else of the batch happens; while the disk refuses, the batch waits,
nothing more is taken from the inbox, and nothing is acknowledged. Owns no decision, and never waits for the network.
"""

from __future__ import annotations

import logging
import os
from collections import deque
from contextlib import suppress
from functools import partial
from queue import Empty
from typing import get_args

from broker_server import effects as e
from broker_server.broadcast import Broadcast
from broker_server.conduct import Conduct
from broker_server.coordinator import Coordinator
from broker_server.events import Distilled, JobFailed, Ordered, ReleaseStored
from broker_server.periods import NEVER, over
from broker_server.publisher import Publisher
from broker_server.rounds import MAX_REASON
from broker_server.store.database import Database
from broker_server.workshop import Workshop
from edge_protocol import messages as m
from edge_protocol.codec import decode, encode, kind_of, task_of
from edge_protocol.effects import Drop, Send
from edge_protocol.errors import LocalProtocolError, ProtocolError, StoreError
from edge_protocol.ids import SERVER, DeviceId
from edge_protocol.topics import ChunkTopic, Presence, Topics, Uplink
from edge_protocol.transport.base import Connected, Disconnected, Inbox, Received, Refused, Transport

BATCH = 128
"""Most events in one transaction."""
MAX_WAITING = 200_000
"""Most messages to devices that wait for the link; the oldest go first, and whoever misses one asks again."""
POLL_RELEASES_S = 1.0
"""Pause between two looks for what operators pushed; a round that is called meanwhile is superseded at the next one."""
_SAVES = get_args(e.Save)

log = logging.getLogger(__name__)


class Speaker:
    """Gives the server's messages their header."""

    def __init__(self, fleet: str) -> None:
        self._fleet, self._boot_id, self._sequence = fleet, os.urandom(8), 0
        self.now = 0.0

    def encode(self, body: m.Body) -> bytes:
        """Write a message down as the server's next one."""
        header = m.Header(self._fleet, SERVER, os.urandom(16), self._boot_id, self._sequence, self.now, True)  # noqa: FBT003 - the wire's order
        self._sequence += 1
        return encode(header, body)


class Pump:
    """Moves events to the coordinator and effects to where they belong.

    Attributes:
        drops: what was refused, counted by reason.
        connected: whether the link is up.
    """

    def __init__(
        self,
        *,
        coordinator: Coordinator,
        conduct: Conduct,
        database: Database,
        transport: Transport,
        publisher: Publisher,
        broadcast: Broadcast,
        workshop: Workshop,
        topics: Topics,
        speaker: Speaker,
        inbox: Inbox,
    ) -> None:
        self.drops = publisher.drops
        self.connected = False
        self._coordinator, self._database, self._transport = coordinator, database, transport
        self._publisher, self._broadcast, self._workshop = publisher, broadcast, workshop
        self._topics, self._speaker, self._inbox, self._conduct = topics, speaker, inbox, conduct
        self._pending: deque[e.Effect] = deque()
        self._out: deque[tuple[str, bytes]] = deque(maxlen=MAX_WAITING)
        self._looked_s = NEVER

    @property
    def stuck(self) -> bool:
        """Whether a batch waits for the disk."""
        return bool(self._pending)

    @property
    def busy(self) -> bool:
        """Whether messages wait for the link that is up."""
        return self.connected and (bool(self._out) or not self._publisher.idle)

    def do(self, effects: list[e.Effect], now: float) -> None:
        """Carry effects out: at a start, what `Coordinator.restore` asked for."""
        self._speaker.now = now
        self._pending += effects
        self._flush()

    def step(self, now: float, timeout_s: float = 0.0) -> int:
        """Take what is in the inbox, at most one batch, and do what follows; return how many events were taken.

        Args:
            now: seconds since 1970.
            timeout_s: how long to wait for the first event.
        """
        self._speaker.now = now
        events = [] if self.stuck else self._take(timeout_s)
        if not self.stuck:
            for event in events:
                self._pending += self._follow(event, now)
            self._pending += self._coordinator.tick(now)
            self._pending += self._look_at_disk(now)
        self._flush()
        self._send_waiting()
        self._publisher.pump(now)
        return len(events)

    def next_deadline(self) -> float | None:
        """When `step` has something to do without an event, or None."""
        due = [self._coordinator.next_deadline(), self._publisher.next_deadline()]
        return min((at for at in due if at is not None), default=None)

    def _take(self, timeout_s: float) -> list[object]:
        events: list[object] = []
        with suppress(Empty):
            while len(events) < BATCH:
                events.append(self._inbox.get(block=not events and timeout_s > 0, timeout=timeout_s or None))
        return events

    def _follow(self, event: object, now: float) -> list[e.Effect]:
        match event:
            case Received():
                return self._receive(event, now)
            case Distilled() | JobFailed() | ReleaseStored() | Ordered():
                return self._coordinator.learn(event, now)
            case Connected(generation):
                log.info("connected to the broker (%d)", generation)
                self.connected = True
                self._publisher.connected(now)
                return self._coordinator.standstill.end(now)
            case Disconnected(reason):
                log.warning("broker lost: %s", reason)
                self.connected = False
                self._coordinator.standstill.begin(now)
            case Refused(reason, detail):
                return [Drop(reason, detail)]
            case _:
                pass
        return []

    def _receive(self, event: Received, now: float) -> list[e.Effect]:
        try:
            match self._topics.parse(event.topic):
                case Uplink(device) if event.retained:
                    return [Drop("retained-uplink", f"{event.topic!r}: {device} left a message with the broker")]
                case Uplink(device, kind):
                    return self._message(event, kind, device, now)
                case Presence(device):
                    return self._message(event, "online", device, now) if event.payload else []
                case ChunkTopic():
                    self._publisher.found(event.topic)
                    return []
                case _:
                    return [Drop("wrong-direction", f"a message came on {event.topic!r}")]
        except ProtocolError as error:
            return [Drop(error.reason, f"{event.topic[:120]}: {error}")]

    def _message(self, event: Received, kind: str, device: DeviceId, now: float) -> list[e.Effect]:
        if reason := self._conduct.refusal(device, len(event.payload), now):
            return [Drop(reason, f"{event.topic[:120]}: {device} said too much")]
        try:
            envelope = decode(event.payload, kind=kind, fleet=self._topics.fleet, sender=device)  # type: ignore[arg-type]
        except ProtocolError as error:
            dropped = Drop(error.reason, f"{event.topic[:120]}: {error}")
            told = f"{error.reason}: {error}"[:MAX_REASON]
            if kind != "knowledge":
                return [dropped]
            return [dropped, *self._coordinator.unreadable(device, told, now, task_of(event.payload))]
        if kind == "birth" and self._conduct.born(device, envelope.header.boot_id, now):
            log.warning("%s: two boards take turns under this name; revoke it, and look for the other one", device)
        return self._coordinator.handle(envelope, now)

    def _flush(self) -> None:
        try:
            self._database.apply([effect for effect in self._pending if isinstance(effect, _SAVES)])
            self._pending = deque(effect for effect in self._pending if not isinstance(effect, _SAVES))
            while self._pending:
                try:
                    self._carry_out(self._pending[0])
                except LocalProtocolError as error:
                    self._unsent(error)
                self._pending.popleft()
        except StoreError as error:
            log.error("nothing is taken or acknowledged until this succeeds: %s", error)  # noqa: TRY400 - no trace needed
            self.drops["store-refused"] += 1

    def _carry_out(self, effect: e.Effect) -> None:
        match effect:
            case Send(body, to) if to is not None:
                kind = kind_of(body)
                self._out.append((self._topics.down(to, kind), self._speaker.encode(body)))
            case Drop(reason, detail):
                self.drops[reason] += 1
                log.debug("dropped: %s: %s", reason, detail)
            case e.PublishRelease(task, counter):
                log.info("task %s: release %d", task, counter)
                self._broadcast.release(task, counter)
            case e.PublishRound(call):
                log.info("task %s: round %d %s", call.task, call.number, "is open" if call.open else "takes no more")
                self._broadcast.round(call)
            case e.Republish(device, sha256, indices):
                now = self._speaker.now
                spend = partial(self._conduct.again, device, now=now)
                if reason := self._publisher.need(sha256, indices, now, spend):
                    self.drops[reason] += 1
            case e.OfferRelease(task, counter, devices):
                log.info("task %s: release %d for %d devices", task, counter, len(devices))
                self._broadcast.offer(task, counter, devices)
            case e.WithdrawRelease(task, devices):
                self._broadcast.withdraw(task, devices)
            case e.Distil() | e.CancelDistil() | e.MakeRelease() | e.ReleaseAgain():
                self._begin(effect)
            case _:
                raise AssertionError(effect)

    def _begin(self, work: e.Work) -> None:
        current = self._coordinator.tasks[work.task].round
        proxy = current.proxy.sha256 if current is not None and current.proxy is not None else ""
        log.info("task %s: round %d: %s", work.task, work.round, type(work).__name__)
        self._workshop.do(work, proxy)

    def _send_waiting(self) -> None:
        while self._out and self._transport.ready:
            topic, payload = self._out[0]
            try:
                if not self._transport.publish(topic, payload):
                    return
            except LocalProtocolError as error:
                self._unsent(error)
            self._out.popleft()

    def _unsent(self, error: LocalProtocolError) -> None:
        log.error("not sent: %s", error)
        self.drops[error.reason] += 1

    def _look_at_disk(self, now: float) -> list[e.Effect]:
        """Find what an operator pushed and ordered, and note what has been cleared."""
        effects: list[e.Effect] = []
        if not over(self._looked_s, POLL_RELEASES_S, now):
            return effects
        self._looked_s = now
        try:
            for name, task in self._coordinator.tasks.items():
                for record in self._database.releases(name, after=task.release):
                    stored = ReleaseStored(record, self._database.draft(name, record.counter))
                    effects += self._coordinator.learn(stored, now)
            for order in self._database.orders():
                effects += self._coordinator.learn(Ordered(order), now)
            self._broadcast.trust()
            self._broadcast.settle()
        except StoreError as error:
            log.warning("cannot look for new releases: %s", error)
        return effects
