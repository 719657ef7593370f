"""When the demo is over, what it reads from the server, and that it ends every process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import psutil
import pytest

from broker_server.brokers import BrokerOptions, choose_broker
from broker_server.records import ReleaseRecord, RoundRecord
from broker_server.store.database import Database
from edge_models.tasks import load_task
from edge_protocol.blobs import cut
from edge_protocol.ids import TaskId
from edge_protocol.manifest import Artifact, ReleaseManifest, encode_manifest
from edge_protocol.transport.base import Connected
from edge_protocol.transport.mqtt import MqttTransport
from roadcast.demo import conduct as course
from roadcast.demo.configs import Places
from roadcast.demo.fleet import FLEET
from roadcast.demo.image_shares import ImageSizes
from roadcast.demo.live import Lines
from roadcast.demo.observer import DeviceView, Observer
from roadcast.demo.partition import RawData, Sizes, find_data
from roadcast.demo.records import Records, keep_heads
from roadcast.demo.watch import Watch
from roadcast.output import stderr
from tests.fakes import fleet_talk as talk
from tests.fakes.waiting import next_of, wait_for


class Told:
    """What the server's records would say."""

    def __init__(self, *, over: bool = False, newest: int = 2) -> None:
        self.is_over, self.counter = over, newest

    def newest(self) -> dict[str, int]:
        """The same release of both tasks."""
        return {"vehicle": self.counter, "speed": self.counter}

    def over(self, tasks: Iterable[str], limit: int) -> bool:
        """As it was made."""
        return self.is_over


def _observer(release: int) -> Observer:
    observer = Observer(talk.FLEET)
    observer.devices |= {m.name: DeviceView(m.name, task=m.task, release=release) for m in FLEET}
    return observer


def test_the_demo_goes_on_until_rounds_are_over_and_all_devices_run_the_last_release() -> None:
    """Neither alone is the end; a device that was never heard keeps it waiting."""
    ending = course.Ending(3, limit_s=100, settle_s=20)
    assert ending.reached(_observer(2), Told(), 1) is None
    assert ending.reached(_observer(1), Told(over=True), 2) is None
    assert ending.reached(_observer(1), Told(over=True), 3) is None
    assert ending.reached(Observer(talk.FLEET), Told(over=True), 4) is None
    assert ending.reached(_observer(2), Told(over=True), 5) == []


def test_a_device_that_never_settles_does_not_hold_the_demo_for_ever() -> None:
    """After the patience with devices the demo ends; the verdict then names who lags."""
    ending = course.Ending(3, limit_s=100, settle_s=20)
    assert ending.reached(_observer(1), Told(over=True), 10) is None
    assert ending.reached(_observer(1), Told(over=True), 29) is None
    assert ending.reached(_observer(1), Told(over=True), 31) == []


def test_rounds_that_never_end_are_given_up() -> None:
    """After the limit the demo ends with a reason."""
    ending = course.Ending(3, limit_s=100, settle_s=20)
    assert ending.reached(_observer(1), Told(), 101) == ["the rounds were not over after 100 s"]


def test_no_release_at_all_is_not_settled() -> None:
    """A fleet on release 0 of 0 has not settled."""
    ending = course.Ending(1, limit_s=100, settle_s=20)
    ending.reached(_observer(0), Told(over=True, newest=0), 1)
    assert ending.reached(_observer(0), Told(over=True, newest=0), 2) is None


def test_the_clip_is_plugged_in_once_its_camera_has_a_model(tmp_path: Path) -> None:
    """Before, the camera finds no clip; after, it is the clip of the data."""
    clip = tmp_path / "real.mp4"
    clip.write_bytes(b"clip")
    data = RawData("here", clip, clip, clip, real=True)
    plan = course.Plan(rounds=1, work=tmp_path, data=data, seed=0)
    places = Places(tmp_path)
    course._plug_in(plan, places, _observer(0))
    assert not places.clip.exists()
    for _ in range(2):
        course._plug_in(plan, places, _observer(1))
        assert places.clip.read_bytes() == b"clip"


def test_settings_of_this_process_do_not_reach_into_the_fleet(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that overlays every configuration is left out; one thread a process is asked for."""
    monkeypatch.setenv("ROADCAST__BROKER__PORT", "1")
    monkeypatch.setenv("ROADCAST_DATA", "/x")
    found = course._environment()
    assert "ROADCAST__BROKER__PORT" not in found
    assert (found["ROADCAST_DATA"], found["OMP_NUM_THREADS"]) == ("/x", "1")


def _release(counter: int) -> ReleaseRecord:
    blob, _ = cut(b"x")
    artifact = Artifact("nano", "depthwise", blob, blob, blob, 1)
    manifest = ReleaseManifest(talk.FLEET, counter, load_task("vehicle"), 1.0, (artifact,), {})
    return ReleaseRecord(
        task=TaskId("vehicle"),
        counter=counter,
        round=counter - 1,
        created_s=1.0,
        metrics={},
        notes="",
        manifest=encode_manifest(manifest),
    )


def _round(number: int, state: str, reason: str = "") -> RoundRecord:
    return RoundRecord(
        task=TaskId("vehicle"),
        number=number,
        state=state,
        release=1,
        proxy=None,
        samples=0,
        opened_s=1.0,
        reason=reason,
    )


def test_the_server_s_records_are_read_beside_it(tmp_path: Path) -> None:
    """Releases, what came of rounds, and whether the last one is over, from a database that is in use."""
    from broker_server.effects import SaveRound  # noqa: PLC0415

    database = Database(tmp_path / "server.db")
    with Records(tmp_path) as records:
        assert (records.newest(), records.over(["vehicle"], 1)) == ({}, False)
        for counter in (1, 2):
            database.add_release(_release(counter))
        database.apply([SaveRound(_round(0, "released")), SaveRound(_round(1, "judging"))])
        assert not records.over(["vehicle"], 1)
        database.apply([SaveRound(_round(1, "abandoned", "not better"))])
        assert records.over(["vehicle"], 1)
        assert not records.over(["vehicle"], 2)
        assert records.newest() == {"vehicle": 2}
        assert records.outcomes("vehicle") == ["released", "abandoned: not better"]
        assert [manifest.counter for manifest in records.manifests("vehicle")] == [1, 2]
        facts = course._task_facts(load_task("vehicle"), records)
        assert (facts.headline, facts.higher_is_better, len(facts.rounds)) == ("accuracy", True, 2)
    database.close()


def test_first_heads_are_kept(tmp_path: Path) -> None:
    """A head is copied once, when it is complete; what the device later removes or rewrites stays as it first was."""
    places, member = Places(tmp_path), FLEET[0]
    heads = places.device_state(member.name) / member.task / "heads"
    heads.mkdir(parents=True)
    (heads / "1.safetensors").write_bytes(b"first")
    keep_heads(places, [member])
    assert not (places.heads / member.name).exists()
    (heads / "1.json").write_text("{}")
    keep_heads(places, [member])
    (heads / "1.safetensors").write_bytes(b"again")
    (heads / "2.json").write_text("{}")
    keep_heads(places, [member])
    assert (places.heads / member.name / "1.safetensors").read_bytes() == b"first"
    assert not (places.heads / member.name / "2.safetensors").exists()


@pytest.mark.broker
def test_the_watch_listens_on_a_real_broker(tmp_path: Path) -> None:
    """What a device says reaches the observer; what is retained is there at once."""
    from queue import Queue  # noqa: PLC0415

    with choose_broker("auto", options=BrokerOptions(state_dir=tmp_path / "broker", start_timeout_s=30)) as broker:
        inbox: Queue[object] = Queue()
        speaker = MqttTransport(broker.settings, "speaker", inbox)
        speaker.start()
        next_of(inbox, Connected)
        speaker.publish(*talk.release(3), retain=True)
        observer = Observer(talk.FLEET)
        with Watch(broker.settings, observer, ["vehicle"]) as watch:

            def seen() -> bool:
                speaker.publish(*talk.birth("cam-1"))
                watch.poll(0.05)
                return "cam-1" in observer.devices and "vehicle" in observer.tasks

            wait_for(seen, "birth and release")
        speaker.close()
    assert observer.tasks["vehicle"].release == 3


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_every_process(tmp_path: Path, number: signal.Signals) -> None:
    """Ctrl-C and SIGTERM, whenever they come, leave no process of the fleet behind, within 5 s."""
    command = [sys.executable, "-m", "roadcast", "demo", "--work-dir", str(tmp_path), "--report", str(tmp_path / "r")]
    demo = subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL, start_new_session=True)
    process = psutil.Process(demo.pid)
    started = len(FLEET) + 3 if number == signal.SIGTERM else 5  # once when all are up, once in the middle of it
    wait_for(lambda: len(process.children(recursive=True)) >= started, "fleet", within_s=100)
    os.kill(demo.pid, number)
    assert demo.wait(timeout=5) == 128 + number
    assert not [p for p in psutil.process_iter(["cmdline"]) if any(str(tmp_path) in a for a in p.info["cmdline"] or [])]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_whole_demo_runs_on_small_data(tmp_path: Path) -> None:
    """Broker, server, eight devices, one round of each task: everybody ends on one release, and all is measured."""
    data = find_data(None, tmp_path, seed=1)
    sizes = Sizes(images=ImageSizes(anchors=120, validation=120, proxies=240, test_conditions=1))
    plan = course.Plan(rounds=1, work=tmp_path / "work", data=data, seed=1, sizes=sizes)
    plan.work.mkdir()
    outcome = course.conduct(plan, Lines(stderr()), {"roadcast": "test"})
    assert {score.task for score in outcome.releases} == {"vehicle", "speed"}
    assert len(outcome.devices) == len(outcome.fleet) == len(FLEET)
    assert all(device.release and device.swap_skipped == 0 and device.bytes_up for device in outcome.fleet)
    assert all(device.raw_bytes == 0 and "knowledge" in device.bytes_by_kind for device in outcome.fleet)
    assert outcome.clip is not None
    assert all("release" in task.rounds[0] for task in outcome.tasks)
    assert not [reason for reason in outcome.reasons if "runs release" in reason or "never heard" in reason]
