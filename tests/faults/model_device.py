"""A device without a network, a student or a clock of its own: the real brain, hands' work, fetcher and pointers.

Student, trainer and broker are what the test says. The disk is a real folder on which any step may be the last of this
process, or be refused for want of room.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from types import SimpleNamespace
from typing import Any, BinaryIO

from edge_client import effects as e
from edge_client.candidate import Candidate
from edge_client.carry import Carry
from edge_client.core import DeviceCore, Profile, Remembered
from edge_client.disk import Disk, file_sha256
from edge_client.fetcher import Fetcher
from edge_client.gate import Gate
from edge_client.installed import InstalledStore, resolve
from edge_client.offers import Running
from edge_client.plan_effects import BuildPlan, Planned
from edge_client.trust_store import TrustStore
from edge_protocol import messages as m
from edge_protocol.effects import Send
from edge_protocol.ids import DeviceId
from edge_protocol.topics import ChunkTopic, MetadataTopic, ReleaseTopic, Topics
from tests.edge_client.core_driver import SPEC
from tests.fakes.signed_fleet import SignedFleet
from tests.fakes.small_centre import FLEET

TOPICS, DEVICE = Topics(FLEET), DeviceId("cam-1")
DESIRED = ReleaseTopic(SPEC.task_id)


@lru_cache(maxsize=1)
def model_fleet() -> SignedFleet:
    """Who signs for model devices, and for nobody else: what is listed here stays listed."""
    return SignedFleet()


class Killed(BaseException):
    """The process ends here."""


class ModelDisk(Disk):
    """A disk whose next steps may be the last.

    Attributes:
        steps: done since the start of the process.
        kill_in: steps until the process is killed; None for never.
        full: whether what needs room is refused.
    """

    def __init__(self) -> None:
        self.steps, self.full = 0, False
        self.kill_in: int | None = None

    def open(self, path: Path) -> BinaryIO:
        """Open; a new name needs room."""
        self._step(needs_room=not path.exists())
        return super().open(path)

    def write(self, file: BinaryIO, data: bytes, at: int) -> None:
        """Write; killed in the middle of it, half is written."""
        try:
            self._step(needs_room=True)
        except Killed:
            super().write(file, data[: len(data) // 2], at)
            raise
        super().write(file, data, at)

    def truncate(self, file: BinaryIO, size: int) -> None:
        """Change the size."""
        self._step(needs_room=True)
        super().truncate(file, size)

    def sync(self, file: BinaryIO) -> None:
        """Sync; on a folder of the test's machine that costs time and shows nothing."""
        self._step(needs_room=True)

    def rename(self, path: Path, to: Path) -> None:
        """Rename."""
        self._step(needs_room=False)
        super().rename(path, to)

    def sync_folder(self, folder: Path) -> None:
        """Sync."""
        self._step(needs_room=False)

    def unlink(self, path: Path) -> None:
        """Remove."""
        self._step(needs_room=False)
        super().unlink(path)

    def remove_tree(self, folder: Path) -> None:
        """Remove."""
        self._step(needs_room=False)
        super().remove_tree(folder)

    def _mkdir(self, path: Path) -> None:
        self._step(needs_room=True)
        super()._mkdir(path)

    def _step(self, *, needs_room: bool) -> None:
        if self.kill_in is not None:
            if self.kill_in == 0:
                raise Killed
            self.kill_in -= 1
        if needs_room and self.full:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.steps += 1


class Asked:
    """What the fetcher has subscribed to."""

    def __init__(self) -> None:
        self.filters, self.connected = dict[str, None](), True

    def subscribe(self, filters: Any) -> None:
        """Add."""
        self.filters |= dict.fromkeys(filters)

    def unsubscribe(self, filters: Any) -> None:
        """Remove."""
        for each in filters:
            self.filters.pop(each, None)


class ModelInstaller:
    """Loads when the test says so; what it loads is on the disk, and right."""

    def __init__(self, fetcher: Fetcher) -> None:
        self._fetcher, self.asked = fetcher, list[e.Check | e.Probe | BuildPlan]()
        self.candidate: Candidate | None = None
        self.target: Callable[[], int] = lambda: 0

    def ask(self, request: e.Check | e.Probe | BuildPlan) -> None:
        """Queue."""
        self.asked.append(request)

    def serves(self, candidate: Candidate) -> None:
        """Take note."""

    def answer(self, *, well: bool) -> e.Event:
        """Answer the oldest request."""
        match self.asked.pop(0):
            case e.Check(release, artifact):
                blobs = (artifact.template, artifact.weights, artifact.golden)
                if any(file_sha256(self._fetcher.path(ref.sha256)) != ref.sha256 for ref in blobs):
                    assert self.target() != release, "a check of what is not there"
                    return e.CheckFailed(release, "its files were cleared when a newer one took its place")
                student = SimpleNamespace(close=lambda: None)
                self.candidate = Candidate(release, artifact, student, None) if well else None  # type: ignore[arg-type]
                return e.Checked(release) if well else e.CheckFailed(release, "it cannot be loaded")
            case BuildPlan(release):
                return Planned(release)
            case e.Probe(release):
                return e.Passed(release) if well and self.candidate else e.Failed(release, "it is slow")

    def take(self, release: int) -> Candidate | None:
        """Hand the candidate over."""
        candidate = self.candidate
        if candidate is None or candidate.release != release:
            return None
        self.candidate = None
        return candidate


@dataclass
class ModelDevice:
    """One process of the device; another one on the same folder is the next boot.

    Attributes:
        folder: its state directory.
        now: seconds.
        told: what it said about its deployment, since it was started.
        job: of the training under way.
    """

    folder: Path
    now: float = 0.0
    told: list[m.Deployment] = field(default_factory=list)
    job: int | None = None
    linked: bool = False

    def __post_init__(self) -> None:
        self.disk, self.link = ModelDisk(), Asked()
        self.fetcher = Fetcher(self.folder / "blobs", TOPICS, self.link, disk=self.disk)
        self.store = InstalledStore(self.folder / SPEC.name, self.disk)
        self.installer = ModelInstaller(self.fetcher)
        fleet = model_fleet()
        self.trust = TrustStore(self.folder / SPEC.name, fleet.root, self.disk)
        inference = self.inference = SimpleNamespace(bundle=None)
        inference.swap = lambda bundle: setattr(inference, "bundle", bundle)
        nothing = SimpleNamespace(drain=list, add=lambda _: 0, serving=lambda *_, **__: None, poll=lambda _: [])
        hands = SimpleNamespace(
            fetcher=self.fetcher,
            installed=self.store,
            installer=self.installer,
            trust=self.trust,
            gate=Gate(SPEC.task_id, DEVICE, TOPICS, self.trust, self.link.subscribe, lambda: fleet.now),
            config=SimpleNamespace(state_dir=self.folder, threads=1),
            spec=SPEC,
            inference=self.inference,
            lessons=SimpleNamespace(start=self._train, stop=self._stop, refitted=lambda _: None, poll=lambda _: []),
            uplink=SimpleNamespace(send=self._say),
            transport=SimpleNamespace(connected=True),
            drops=Counter(),
            outbox=SimpleNamespace(relink=lambda: None),
            busy="",
            **dict.fromkeys(("replay", "seen", "drift"), nothing),
        )
        self.carry = Carry(hands)  # type: ignore[arg-type]
        running = Running()
        for found in self.booting()[:1]:
            self.store.begin_attempt(found.release)
            self.store.settle(found.release)
            self.carry.serve(Candidate(found.release, found.artifact, None, None), None)  # type: ignore[arg-type]
            self.trust.raise_floor(found.release)
            running = Running(found.release, found.artifact.weights.sha256)
        who = Profile(fleet=FLEET, device=DEVICE, tier="nano", spec=SPEC, report_interval_s=1e9)
        self.installer.target = lambda: self.core._releasing.target
        self.core = DeviceCore(who, Remembered(running=running, attempts=self.store.attempts()), self.now)

    @property
    def running(self) -> int:
        """What answers frames."""
        return 0 if self.inference.bundle is None else int(self.inference.bundle.release)

    def booting(self) -> list[Any]:
        """What the disk would boot."""
        root = model_fleet().root
        return resolve(self.folder / SPEC.name, self.folder / "blobs", spec=SPEC, tier="nano", root=root)[0]

    def feed(self, event: e.Event, _now: float = 0.0) -> None:
        """Give the brain an event, and do what it wants done."""
        self._perform(self.core.handle(event, self.now))

    def offer(self, manifest: bytes) -> None:
        """The desired release comes."""
        for event in self.carry.offered(DESIRED, m.ReleaseOffer(manifest), self.now):
            self.feed(event)

    def connect(self, *, up: bool) -> None:
        """The link comes, or goes."""
        self.linked = up
        if up:
            self.carry.relink()
        self.feed(e.Linked() if up else e.Unlinked())
        for name, data in model_fleet().files().items() if up else ():
            for event in self.carry.metadata(MetadataTopic(name), data, self.now):
                self.feed(event)

    def chunk(self, topic: str, payload: bytes) -> None:
        """A chunk comes in."""
        parsed = TOPICS.parse(topic)
        assert isinstance(parsed, ChunkTopic)
        for event in self.carry.chunk(parsed, payload, self.now):
            self.feed(event)

    def tick(self, seconds: float) -> None:
        """Time passes."""
        self.now += seconds
        for event in self.carry.poll(self.now):
            self.feed(event)
        self._perform(self.core.tick(self.now))

    def trained(self, *, well: bool) -> None:
        """The training under way ends."""
        job, self.job = self.job, None
        if job is not None:
            self.feed(e.Trained(job, None) if well else e.TrainFailed(job, "no memory"))

    def check_what_serves(self) -> None:
        """Fail unless what answers frames is whole on the disk under the pointer, and signed."""
        served = self.carry.serving
        if served is None:
            assert not self.running
            return
        assert [(found.release, found.artifact) for found in self.booting()[:1]] == [(self.running, served)]
        for ref in (served.template, served.weights, served.golden):
            assert sha256(self.fetcher.path(ref.sha256).read_bytes()).hexdigest() == ref.sha256

    def _perform(self, effects: list[e.Effect]) -> None:
        self.carry.perform([each for each in effects if not isinstance(each, e.ReportState)], self.now, self.feed)

    def _train(self, train: e.Train, _now: float) -> list[e.Event]:
        self.job = train.job
        return []

    def _stop(self, job: int) -> None:
        if self.job == job:
            self.job = None

    def _say(self, send: Send, _now: float) -> None:
        if isinstance(send.body, m.Deployment):
            self.told.append(send.body)
