"""The agent of one device: joins brain, link, disk, runner and trainer; one inbox, and the pump its only consumer.

Threads: the pump (this module's loop; it alone touches the brain, the databases and the fetcher), the transport's own,
``inference``, one reader a source, ``installer``, ``board-watch``. Training is a subprocess: no torch is loaded here.
"""

from __future__ import annotations

import gc
import signal
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from pathlib import Path
from queue import Empty, Queue
from time import monotonic, time

from edge_client import board
from edge_client.board_telemetry import watch_this_board
from edge_client.board_watch import BoardWatch
from edge_client.boot import Boot
from edge_client.build import MakeTransport, Parts, build_parts, make_fetcher, mqtt_link, open_memories, read_root
from edge_client.carry import Carry
from edge_client.config import DeviceConfig
from edge_client.core import DeviceCore
from edge_client.disk import Disk
from edge_client.drift_watch import DriftWatch
from edge_client.effects import Event, Linked, Stopping, Unlinked
from edge_client.fetcher import Fetcher
from edge_client.gate import Gate
from edge_client.hands import Hands
from edge_client.inference import Inference
from edge_client.installed import InstalledStore
from edge_client.installer import Installer
from edge_client.labels import LabelFile
from edge_client.lessons import Lessons
from edge_client.notify import notify
from edge_client.planner import MakeWorkshop, Planner
from edge_client.stamp import Stamp
from edge_client.stored import latest_raw
from edge_client.training import Training
from edge_client.trust_store import TrustStore
from edge_client.uplink import Uplink
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.codec import decode, encode
from edge_protocol.effects import Send
from edge_protocol.errors import RemoteProtocolError
from edge_protocol.ids import SERVER
from edge_protocol.topics import ChunkTopic, Downlink, MetadataTopic, ReleaseTopic, RoundTopic, Topics
from edge_protocol.transport.base import Connected, Disconnected, Inbox, LastWill, Received, Refused

INBOX = 4096
_LONGEST_WAIT_S = 0.5
_BUSY_WAIT_S = 0.1
_HOUSEKEEPING_S = 1.0
_CLOSE_S, _ALONE_S = 2.0, 1.0
_ASK_AGAIN_S = 10.0  # NATS has been seen to lose what is retained while it grants a filter
_BURST = 64


class Agent:
    """Everything that runs on one device.

    Args:
        config: the device's.
        make_transport: makes the link; MQTT as configured when None.
        trainer: command that runs a training job; `edge_client.trainer` when empty.
        disk: how blobs and pointers are written.
        wall: the board's clock, seconds since 1970.
        workshop: finds TensorRT; this machine's when None.

    Raises:
        ConfigError: the configuration does not fit the task.
        DataError: the commissioning pack cannot be read.
        StoreError: the privacy account is damaged.
    """

    def __init__(
        self,
        config: DeviceConfig,
        make_transport: MakeTransport | None = None,
        trainer: tuple[str, ...] = (),
        disk: Disk | None = None,
        wall: Callable[[], float] = time,
        workshop: MakeWorkshop | None = None,
    ) -> None:
        self.config, self.spec, state = config, load_task(config.task), Path(config.state_dir)
        self._inbox: Inbox = Queue(INBOX)
        trust = TrustStore(state / self.spec.name, root := read_root(config), disk)
        self._topics = Topics(config.fleet_id)
        stamp = Stamp(config.fleet_id, config.device_id, lambda: trust.clock_floor_s)
        self.outbox, self.replay, refused = open_memories(config, self.spec)
        parts = build_parts(config, self.spec, self.replay, self._inbox.put, self.outbox.told_until)
        self.inference = Inference(parts.feeds, config.queue)
        will = LastWill(self._topics.online(config.device_id), encode(stamp.header(), m.Presence(online=False)))
        self.transport = (make_transport or partial(mqtt_link, config))(self._inbox, will)
        self._watch = watch_this_board(config, self._inbox.put, parts.cameras)
        fetcher = make_fetcher(config, self._topics, self.transport, self._inbox.put, disk)
        self._installed = InstalledStore(state / self.spec.name, disk)
        self._gate = Gate(self.spec.task_id, config.device_id, self._topics, trust, self.transport.subscribe, wall)
        self._installer = self._make_installer(parts, fetcher, workshop)
        self._drops: Counter[str] = Counter({"state-in-memory": refused})
        kept = parts.seen.latest_samples
        self._uplink = Uplink(self._topics, config.device_id, stamp, self.outbox, self.transport, self._drops, kept)
        train = config.train
        training = Training(state / "jobs", train.timeout_s, trainer, train.pause, BoardWatch(self.inference))
        self._lessons = Lessons(config, self.spec, training, fetcher.path, lambda: self.carry.serving, parts.account)
        hands = self._make_hands(parts, fetcher, trust)
        self.carry = Carry(hands)
        self._label_file = LabelFile(state / config.labels.file) if config.labels.file else None
        self._stopping = threading.Event()
        self._housekeeping_at, self._ask_again_at = 0.0, inf
        self._boot = Boot(hands, self.carry, root, monotonic())
        self.core = DeviceCore(board.profile(config, self.spec), self._boot.remembered, monotonic())

    def run(self) -> None:
        """Serve until `stop`, SIGTERM or SIGINT; then leave in order within 5 s.

        Raises:
            DeploymentError: nothing served for a while, and what is on the disk is to be tried again by the next start.
        """
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: self.stop())
        try:
            self.start()
            notify("READY=1")
            while not self._stopping.is_set():
                self.turn()
        finally:
            notify("STOPPING=1")
            self.close()

    def stop(self) -> None:
        """Ask the pump to end."""
        self._stopping.set()

    def start(self) -> None:
        """Begin to answer frames, then subscribe and connect: the first answer waits for nothing but its frame."""
        gc.freeze()  # what lives as long as the agent is not searched for garbage while frames wait
        gc.enable()
        self.inference.start(wait_s=_ALONE_S)
        self.transport.subscribe([self._topics.every_downlink(self.config.device_id), *self._asked()])
        self._installer.start()
        self._watch.start()
        self.transport.start()

    def turn(self) -> None:
        """Take what is in the inbox, and do what is due; waits at most half a second."""
        try:
            self._take(self._inbox.get(timeout=self._wait_s()))
            for _ in range(_BURST):
                self._take(self._inbox.get_nowait())
        except Empty:
            pass
        now = monotonic()
        self._feed_all(self.carry.poll(now), now)
        self.carry.perform(self.core.tick(now), now, self._feed)
        if now >= self._housekeeping_at:
            self._housekeeping_at = now + _HOUSEKEEPING_S
            self._keep_house(now)

    def close(self) -> None:
        """End every thread and file; safe to call once."""
        now = monotonic()
        if self._stopping.is_set():
            self._boot.end()
        self.carry.perform(self.core.handle(Stopping(), now), now, self._feed)
        self._watch.stop()
        self.inference.stop(_CLOSE_S)
        self._drain_results(now)
        leaving = threading.Thread(target=self.transport.close, name="leaving", daemon=True)
        leaving.start()
        self.carry.close()
        leaving.join(_CLOSE_S)

    def _take(self, event: object) -> None:
        now = monotonic()
        match event:
            case Received():
                self._receive(event, now)
            case Connected():
                self._ask_again_at = now + _ASK_AGAIN_S
                self.carry.relink()
                self._feed(Linked(), now)
            case Disconnected():
                self._feed(Unlinked(), now)
            case Refused():
                self.carry.drop(event.reason, event.detail)
            case m.IntervalResult() | m.Telemetry():
                self._uplink.send(Send(event, durable=isinstance(event, m.IntervalResult)), now)
            case _:
                self._feed(event, now)  # type: ignore[arg-type]  # the installer's own events

    def _receive(self, received: Received, now: float) -> None:
        if not received.payload:
            return
        try:
            topic = self._topics.parse(received.topic)
            match topic:
                case ChunkTopic():
                    self._feed_all(self.carry.chunk(topic, received.payload, now), now)
                    return
                case MetadataTopic():
                    self._feed_all(self.carry.metadata(topic, received.payload, now), now)
                    return
                case Downlink():
                    kind: m.Kind = "ack" if topic.kind == "ack" else "command"
                case ReleaseTopic():
                    kind = "release"
                case RoundTopic():
                    kind = "round"
                case _:
                    self.carry.drop("unknown-topic", received.topic)
                    return
            envelope = decode(received.payload, kind=kind, fleet=self.config.fleet, sender=SERVER)
        except RemoteProtocolError as error:
            self.carry.drop(error.reason, str(error))
            return
        if isinstance(topic, ReleaseTopic) and isinstance(envelope.body, m.ReleaseOffer):
            self._feed_all(self.carry.offered(topic, envelope.body, now), now)
        else:
            self._feed(envelope, now)

    def _asked(self) -> list[str]:
        return [*self._topics.desired(self.config.device_id, self.spec.task_id), *self._gate.topics()]

    def _feed(self, event: Event, now: float) -> None:
        """Give the brain an event, and do what it wants done."""
        self.carry.perform(self.core.handle(event, now), now, self._feed)

    def _feed_all(self, events: list[Event], now: float) -> None:
        for event in events:
            self._feed(event, now)

    def _wait_s(self) -> float:
        deadlines = [self.core.next_deadline(), self._housekeeping_at, *self.carry.deadlines()]
        longest = _BUSY_WAIT_S if self._lessons.busy else _LONGEST_WAIT_S
        return max(0.0, min(min(deadlines) - monotonic(), longest))

    def _keep_house(self, now: float) -> None:
        if now >= self._ask_again_at and self.transport.connected:
            self._ask_again_at = inf
            self.transport.subscribe(self._asked())
        self.carry.keep_samples()
        if self._label_file is not None:
            for sample, label in self._label_file.poll():
                self.carry.remember(m.Label(self.spec.name, sample, label[:64]))
        if self.inference.turned():
            notify("WATCHDOG=1")
        self._uplink.flush(now)
        self._boot.tick(now)

    def _drain_results(self, now: float) -> None:
        with suppress(Empty):
            while True:
                event = self._inbox.get_nowait()
                if isinstance(event, m.IntervalResult):
                    self._uplink.send(Send(event, durable=True), now)

    def _make_hands(self, parts: Parts, fetcher: Fetcher, trust: TrustStore) -> Hands:
        config = self.config
        return Hands(
            config=config,
            spec=self.spec,
            outbox=self.outbox,
            replay=self.replay,
            seen=parts.seen,
            drift=DriftWatch(Path(config.state_dir) / "drift.json", config.drift, parts.seen.doubts),
            fetcher=fetcher,
            inference=self.inference,
            installer=self._installer,
            installed=self._installed,
            trust=trust,
            gate=self._gate,
            lessons=self._lessons,
            account=parts.account,
            transport=self.transport,
            uplink=self._uplink,
            drops=self._drops,
        )

    def _make_installer(self, parts: Parts, fetcher: Fetcher, workshop: MakeWorkshop | None) -> Installer:
        return Installer(
            spec=self.spec,
            config=self.config,
            blob=fetcher.path,
            planner=Planner(self.config, fetcher.path, workshop),
            seen=parts.seen,
            stored=partial(latest_raw, Path(self.config.state_dir) / "replay.db", self.spec),
            prepare=parts.prepare,
            running=lambda: self.inference.bundle,
            frames=self.inference.counters,
            answer=self._inbox.put,
        )
