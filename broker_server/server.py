"""The server process: puts the parts together, runs the pump, and stops in order. Owns the clock and the threads."""

from __future__ import annotations

import logging
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import Full, Queue
from types import FrameType

from broker_server.broadcast import Broadcast
from broker_server.conduct import Conduct
from broker_server.conduct_file import ConductFile, read_conduct
from broker_server.config import ServerConfig
from broker_server.coordinator import Coordinator
from broker_server.events import Outcome
from broker_server.foreign import foreign, warnings
from broker_server.key_setup import ready_roles
from broker_server.periods import NEVER, over
from broker_server.publisher import Publisher
from broker_server.pump import Pump, Speaker
from broker_server.releases import ReleaseFolder
from broker_server.salt import read_salt
from broker_server.setup import resume, task_setup, task_specs
from broker_server.store.blobs import BlobFolder
from broker_server.store.database import Database
from broker_server.task_rounds import TaskRounds
from broker_server.workshop import Desk, Distiller, Workshop, worker_process
from edge_protocol.errors import RoadcastError, StoreError
from edge_protocol.files import alone
from edge_protocol.ids import FleetId
from edge_protocol.topics import Topics
from edge_protocol.transport.base import Inbox, Transport
from edge_protocol.transport.mqtt import mqtt_transport

INBOX = 20_000
IDLE_S = 0.5
BUSY_S = 0.005
PRUNE_S = 3600.0
RENEW_S = 600.0
CLOCK_SET_S = 1.0
"""The wall clock was set when it is off by this much against the steady one."""

log = logging.getLogger(__name__)
Connect = Callable[[ServerConfig, Inbox], Transport]


@dataclass(frozen=True, slots=True)
class Seams:
    """What a simulation replaces: the link, the clocks, the distiller, and the threads that long work runs on.

    Attributes:
        clock: seconds since 1970; may be set at any time.
        steady: seconds since some moment; nobody sets it.
        inbox: events that may wait; 0 for any number.
    """

    connect: Connect
    clock: Callable[[], float]
    steady: Callable[[], float]
    distiller: Distiller
    executors: tuple[Executor, Executor]
    inbox: int = INBOX


def real_seams(config: ServerConfig) -> Seams:
    """MQTT, the wall clock, a worker process, and threads."""
    return Seams(
        connect=lambda c, inbox: mqtt_transport(c.broker, f"roadcast-server-{c.fleet}", inbox),
        clock=time.time,
        steady=time.monotonic,
        distiller=worker_process(config.distil.timeout_s),
        executors=(
            ThreadPoolExecutor(config.distil.parallel, thread_name_prefix="distil"),
            ThreadPoolExecutor(1, thread_name_prefix="release"),
        ),
    )


class Server:
    """A server, from its configuration to its last thread. Make it, `start` it, `step` it, `close` it.

    Raises:
        ConfigError: the configuration, a task, or a key is wrong.
        NotReadyError: no key signs for the fleet or a task yet.
        DataError: a pack cannot be read.
        StoreError: the disk refused.
    """

    def __init__(self, config: ServerConfig, seams: Seams) -> None:
        self.config, self._seams = config, seams
        self._stopping = threading.Event()
        state = Path(config.state_dir)
        self.inbox: Inbox = Queue(seams.inbox)
        self._roles = ready_roles(config)
        specs = task_specs(config)
        blobs = BlobFolder(state / "blobs")
        salt = read_salt(state / "proxies.salt")
        setups = [
            task_setup(spec, config.tasks[name], blobs, config.distil_of(name), salt) for name, spec in specs.items()
        ]
        self.database = Database(state / "server.db")
        self.coordinator = Coordinator([TaskRounds(setup) for setup in setups], config.devices)
        self.topics = Topics(FleetId(config.fleet))
        self.transport = seams.connect(config, self.inbox)
        self.publisher = Publisher(self.topics, blobs, self.transport)
        limit = config.broker.max_packet_bytes
        self._releases = ReleaseFolder(state, config.fleet, self.database, blobs, self._roles, packet_bytes=limit)
        desk = Desk(config, specs, self.database, self._releases, blobs, salt, seams.clock, self._done)
        distilling, making = seams.executors
        self._workshop = Workshop(desk, seams.distiller, distilling=distilling, making=making)
        self.conduct = Conduct(config.devices.quota, config.devices.max_devices, read_conduct(state))
        self._conduct_file = ConductFile(state, self.conduct)
        self.pump = self._make_pump()
        self._pruned_s, self._renewed_s = NEVER, NEVER
        self._ahead_s = seams.clock() - seams.steady()

    def _make_pump(self) -> Pump:
        speaker = Speaker(self.config.fleet)
        self._broadcast = Broadcast(
            self.publisher, self.database, self._roles, self.topics, speaker.encode, keep=self.config.keep_releases
        )
        return Pump(
            coordinator=self.coordinator,
            conduct=self.conduct,
            database=self.database,
            transport=self.transport,
            publisher=self.publisher,
            broadcast=self._broadcast,
            workshop=self._workshop,
            topics=self.topics,
            speaker=speaker,
            inbox=self.inbox,
        )

    @property
    def newest_root(self) -> Path:
        """The file that devices are commissioned with."""
        return self._roles.newest_root

    def start(self) -> None:
        """Take up where the last server stopped, then connect."""
        now = self._seams.clock()
        self._renew(now)
        for name, task in self.coordinator.tasks.items():
            if task.setup.proxy is not None:
                self._broadcast.proxy(name, task.setup.proxy)
        self.pump.do(resume(self.coordinator, self.database, self.config, now), now)
        self.coordinator.standstill.begin(now)
        self.transport.subscribe(self.topics.every_uplink)
        self.transport.start()

    def step(self, timeout_s: float = 0.0) -> int:
        """Do one step of the pump, and now and then tidy up; return how many events were taken."""
        now = self._seams.clock()
        self._follow_clock(now)
        if over(self._renewed_s, RENEW_S, now):
            self._renew(now)
        if over(self._pruned_s, PRUNE_S, now):
            self._pruned_s = now
            keep = self.config.devices
            self.database.prune(
                messages_before_s=now - keep.keep_messages_s, results_before_s=now - keep.keep_results_s
            )
        taken = self.pump.step(now, timeout_s)
        try:
            self._conduct_file.save(now)
        except StoreError as error:
            log.warning("what devices did is not written down: %s", error)
        return taken

    def run(self) -> None:
        """Step until `stop`."""
        while not self._stopping.is_set():
            if self.pump.stuck:
                self._stopping.wait(IDLE_S)
            self.step(self._patience())

    def stop(self) -> None:
        """Have `run` return soon; may be called from a signal handler."""
        self._stopping.set()

    def close(self) -> None:
        """End every thread and process, and close the database. What was not acknowledged will be sent again."""
        self._stopping.set()
        self._workshop.close()
        self.transport.close()
        self.database.close()

    def _follow_clock(self, now: float) -> None:
        """Notice that the clock was set, or that the machine slept: neither makes a device late."""
        by_s = now - self._seams.steady() - self._ahead_s
        if abs(by_s) >= CLOCK_SET_S:
            log.warning("the clock was set by %+.0f s", by_s)
            self._ahead_s += by_s
            self.pump.do(self.coordinator.standstill.clock_set(by_s), now)

    def _renew(self, now: float) -> None:
        """Sign again what nears its end, and publish it."""
        self._renewed_s = now
        try:
            for warning in warnings(foreign(self.database)):
                log.warning(warning)
            for task in self.coordinator.tasks:
                self._releases.list_again(task, now)
            for role in self._roles.renew(now):
                log.warning("%s expires and its key is not here; run: roadcast keys rotate %s", role, role)
            self._broadcast.trust()
        except RoadcastError as error:
            log.error("devices will take no release soon: %s", error)  # noqa: TRY400 - no trace needed

    def _patience(self) -> float:
        if self.pump.busy:
            return BUSY_S
        deadline = self.pump.next_deadline()
        return IDLE_S if deadline is None else min(max(deadline - self._seams.clock(), BUSY_S), IDLE_S)

    def _done(self, outcome: Outcome) -> None:
        """Hand an outcome to the pump, from whatever thread."""
        while not self._stopping.is_set():
            try:
                self.inbox.put(outcome, timeout=IDLE_S)
            except Full:
                continue
            return


def serve(config: ServerConfig, *, ready: Callable[[Server], None] = lambda _: None) -> None:
    """Run a server until SIGTERM or SIGINT.

    Args:
        config: what to run.
        ready: called once the server has taken up its state and begun to connect.

    Raises:
        NotReadyError: another server runs on this state folder.
        RoadcastError: it could not start.
    """
    with alone(Path(config.state_dir), "server"):
        server = Server(config, real_seams(config))
        try:
            with _signals(server.stop):
                server.start()
                ready(server)
                server.run()
        finally:
            server.close()
    log.info("stopped")


@contextmanager
def _signals(stop: Callable[[], None]) -> Iterator[None]:
    def handler(_number: int, _frame: FrameType | None) -> None:
        stop()

    before = {number: signal.signal(number, handler) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, old in before.items():
            signal.signal(number, old)
