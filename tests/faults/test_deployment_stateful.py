"""Whatever the order of offers, chunks, answers, kills, lost links and full disks: the device is right, and goes on."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from edge_client.deployment import BUSY, Stage
from edge_protocol.blobs import cut
from edge_protocol.manifest import ReleaseManifest, encode_manifest
from tests.edge_client.core_driver import SPEC, artifact
from tests.fakes.small_centre import FLEET
from tests.faults.model_device import TOPICS, Killed, ModelDevice, model_fleet

NEWEST, TAKEN_BACK, FINAL = 6, 38, 39
"""Plain releases; those that bring the files of a plain one again; the one that a device is brought to in the end."""
ENOUGH_ROUNDS, ENOUGH_STEPS = 60, 200
"""Within which a deployment with nothing in its way ends: turns of the device, steps on the disk."""
MOST_BLOBS = 5 + 3
"""Two releases that share a template, and weights, golden answers and delta of a third."""


def texts() -> dict[str, bytes]:
    """Every chunk that the broker may hold, by topic: `core_driver.artifact` makes blobs of one chunk."""
    every = ["template"]
    for counter in range(FINAL + 1):
        every += [f"weights {counter}", f"golden {counter}", f"delta {counter} to {counter + 1}"]
    refs = {text: cut_text(text) for text in every}
    return {TOPICS.chunk(sha, 0): text.encode() for text, sha in refs.items()}


def cut_text(text: str) -> str:
    """Hash of a text."""
    return cut(text.encode())[0].sha256


CHUNKS = texts()


@lru_cache(maxsize=1)
def listed() -> dict[int, bytes]:
    """Every release that signed metadata list: manifests by counter."""
    named = {counter: artifact(counter) for counter in (*range(1, NEWEST + 1), FINAL)}
    named |= {counter: artifact(1 + counter % NEWEST) for counter in range(NEWEST + 1, TAKEN_BACK)}
    named |= {counter: artifact(counter, base=counter - 1) for counter in range(2, NEWEST, 2)}
    made = {counter: ReleaseManifest(FLEET, counter, SPEC, 1.0, (files,), {}) for counter, files in named.items()}
    return {counter: model_fleet().release(manifest) for counter, manifest in made.items()}


def unlisted(counter: int) -> bytes:
    """A release that nobody has signed."""
    return encode_manifest(ReleaseManifest(FLEET, counter, SPEC, 2.0, (artifact(counter),), {}))


class Deployments(RuleBasedStateMachine):
    """A device, and what it has committed."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(mkdtemp(prefix="model-"))
        self.floor, self.highest, self.sent = 0, 0, list[bytes]()

    def teardown(self) -> None:
        """From wherever it is, the device comes to a release that nothing hinders; then remove its folder."""
        try:
            self.settle()
        finally:
            self.device.fetcher.close()
            shutil.rmtree(self.folder)

    @initialize()
    def start(self) -> None:
        """The first boot."""
        listed()
        self.device = ModelDevice(self.folder)

    @rule(counter=st.integers(1, NEWEST))
    def publish(self, counter: int) -> None:
        """A release is offered, new or not, perhaps with a delta that leads nowhere."""
        self.offer(listed()[counter])

    @rule()
    def take_back(self) -> None:
        """Old files are offered under a new counter."""
        self.highest = min(max(self.highest, NEWEST) + 1, TAKEN_BACK - 1)
        self.offer(listed()[self.highest])

    @rule(counter=st.integers(1, 2 * NEWEST))
    def attack(self, counter: int) -> None:
        """A stranger offers a release, and a listed one is forged."""
        self.offer(unlisted(counter))
        self.offer(listed()[counter][:-1] + b"\x01")

    @rule(data=st.data())
    def replay(self, data: st.DataObject) -> None:
        """What was offered once comes again: a ghost that the broker retained, or a replay."""
        if self.sent:
            self.offer(data.draw(st.sampled_from(self.sent)))

    @rule(up=st.booleans())
    def link(self, up: bool) -> None:
        """The link comes or goes; whoever comes back tells what its disk holds."""
        self.act(lambda: self.device.connect(up=up))
        if up and self.device.linked:
            (found, *_) = [*self.device.booting(), None]
            assert self.device.told[-1].running == (found.release if found else 0)

    @rule(data=st.data(), how=st.sampled_from(["right", "right", "right", "spoilt", "twice", "of another blob"]))
    def deliver(self, data: st.DataObject, how: str) -> None:
        """A chunk that was asked for comes, as it should or not."""
        asked = sorted(self.device.link.filters)
        if asked and self.device.linked:
            topic = data.draw(st.sampled_from(asked))
            right = CHUNKS[topic]
            payload = {"spoilt": right[:-1], "of another blob": b"template" + right}.get(how, right)
            for _ in range(2 if how == "twice" else 1):
                self.act(lambda: self.device.chunk(topic, payload))

    @rule(well=st.booleans())
    def answer(self, well: bool) -> None:
        """The installer comes to an end with what it was asked."""
        if self.device.installer.asked:
            self.act(lambda: self.device.feed(self.device.installer.answer(well=well)))

    @rule(well=st.booleans())
    def train(self, well: bool) -> None:
        """The refit ends."""
        self.act(lambda: self.device.trained(well=well))

    @rule(seconds=st.sampled_from([0.1, 6.0, 400.0]))
    def wait(self, seconds: float) -> None:
        """Time passes."""
        self.act(lambda: self.device.tick(seconds))

    @rule(turns=st.integers(1, 4), kill_in=st.none() | st.none() | st.integers(0, 60), full=st.sampled_from([0, 0, 1]))
    def go_on(self, turns: int, kill_in: int | None, full: int) -> None:
        """All that the device waits for comes for a while; perhaps it is killed meanwhile, or its disk is full."""
        self.device.disk.full = bool(full)
        self.device.disk.kill_in = kill_in
        for _ in range(turns):
            self.act(self.turn)
        self.device.disk.kill_in, self.device.disk.full = None, False

    @rule(steps=st.integers(0, 10))
    def kill_soon(self, steps: int) -> None:
        """The process is killed at one of its next steps on the disk."""
        self.device.disk.kill_in = steps

    @rule()
    def reboot(self) -> None:
        """The process ends between two steps, and starts again."""
        self.boot()

    @rule(full=st.booleans())
    def fill(self, full: bool) -> None:
        """The disk is full, or has room again."""
        self.device.disk.full = full

    @invariant()
    def serves_what_is_signed_and_on_the_disk(self) -> None:
        """What answers frames is what the pointer names, whole; its counter never falls."""
        if not hasattr(self, "device"):
            return
        self.device.check_what_serves()
        assert self.device.running >= self.floor
        self.floor = self.device.running
        assert self.device.trust.release_floor >= self.floor
        if self.device.core._releasing.stage is Stage.FETCHING:
            held = len(list((self.folder / "blobs").iterdir()))
            assert held <= MOST_BLOBS, "files of releases that nobody wants any more pile up"

    def offer(self, release: bytes) -> None:
        """Offer, and remember."""
        self.sent.append(release)
        self.act(lambda: self.device.offer(release))

    def act(self, what: Any) -> None:
        """Do something; when that kills the process, start it again."""
        try:
            what()
        except Killed:
            self.boot()

    def boot(self) -> None:
        """The next process on the same folder, with a link."""
        now, full = self.device.now, self.device.disk.full
        self.device.fetcher.close()
        self.device = ModelDevice(self.folder, now)
        self.device.disk.full = full

    def settle(self) -> None:
        """With nothing in its way, a new release is reached in few steps, and then nothing is written any more."""
        self.device.disk.kill_in, self.device.disk.full = None, False
        self.device.connect(up=True)
        final, begun = FINAL, self.device.disk.steps
        self.device.offer(listed()[final])
        for _ in range(ENOUGH_ROUNDS):
            self.turn()
            if self.device.running == final:
                break
        assert self.device.running == final, f"{self.device.core.stage} after {ENOUGH_ROUNDS} turns"
        assert self.device.disk.steps - begun <= ENOUGH_STEPS
        self.device.check_what_serves()
        told = self.device.told[-1]
        assert (told.state, told.release, told.running) == ("committed", final, final)
        kept = {path.name for path in (self.folder / "blobs").iterdir()}
        assert len(kept) <= 5, "more is kept than two releases that share a template"
        for ghost in self.sent:
            self.device.offer(ghost)
        quiet = self.device.disk.steps
        for _ in range(20):
            self.turn()
        assert self.device.running == final
        assert self.device.disk.steps == quiet
        assert self.device.core._releasing.stage not in BUSY

    def turn(self) -> None:
        """Everything that the device waits for comes, as it should."""
        device = self.device
        for topic in list(device.link.filters):
            device.chunk(topic, CHUNKS[topic])
        while device.installer.asked:
            device.feed(device.installer.answer(well=True))
        device.trained(well=True)
        device.tick(10.0)


QUICK = settings(max_examples=60, stateful_step_count=40, suppress_health_check=list(HealthCheck))
LONG = settings(QUICK, max_examples=800, stateful_step_count=80)


@pytest.fixture(autouse=True)
def quiet_log() -> Iterator[None]:
    """Thousands of refusals are no news."""
    logging.disable()
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.timeout(600)
def test_any_short_schedule_leaves_a_device_right() -> None:
    """Counters never fall, nothing unsigned runs, what is told is on the disk, and it ends in few steps."""
    run_state_machine_as_test(Deployments, settings=QUICK)


@pytest.mark.slow
@pytest.mark.timeout(7200)
def test_any_schedule_leaves_a_device_right() -> None:
    """The same for thousands of longer ones."""
    run_state_machine_as_test(Deployments, settings=LONG)


@pytest.mark.parametrize("reboots", [False, True], ids=["superseded", "with a reboot between"])
def test_files_of_releases_that_are_never_installed_do_not_pile_up(tmp_path: Path, reboots: bool) -> None:
    """Each offer is superseded when half of it is there."""
    releases = listed()
    device = ModelDevice(tmp_path)
    device.connect(up=True)
    for counter in (*range(1, NEWEST + 1), *range(NEWEST + 1, 20)):
        device.offer(releases[counter])
        files = counter if counter <= NEWEST else 1 + counter % NEWEST
        for text in ("template", f"weights {files}"):
            topic = TOPICS.chunk(cut_text(text), 0)
            if topic in device.link.filters:
                device.chunk(topic, CHUNKS[topic])
        assert len(list((tmp_path / "blobs").iterdir())) <= 3
        if reboots:
            device.fetcher.close()
            device = ModelDevice(tmp_path)
            device.connect(up=True)
    device.fetcher.close()
