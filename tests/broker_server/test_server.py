"""The server as a whole: one at a time, ended in order, and without a deep-learning stack in its process."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from broker_server.config import DistilConfig, RoundsConfig, ServerConfig, TaskConfig
from broker_server.distil_job import DistilSettings, TrunkSettings
from broker_server.events import JobFailed
from broker_server.key_setup import Rotation, ready_roles, rotate, signed_roles
from broker_server.records import OrderRecord
from broker_server.server import Server, _signals, real_seams, serve
from broker_server.setup import check_files, read_files, task_setup, task_specs
from broker_server.store.blobs import BlobFolder
from broker_server.workshop import Distiller
from devices.packs import ImagePack, save_pack
from edge_models.tasks import load_task
from edge_protocol.errors import ConfigError, DataError, NotReadyError
from edge_protocol.ids import TaskId
from edge_protocol.messages import MAX_SAMPLES
from edge_protocol.transport.memory import MemoryBroker
from edge_protocol.transport.settings import BrokerSettings
from edge_protocol.trust import CREATED
from tests.fakes.centre import centre_config, make_server, scripted_distiller, write_packs
from tests.fakes.clock import FakeClock

VEHICLE = load_task("vehicle")
WITHIN_S = 20.0
NOWHERE = BrokerSettings(port=9)


def test_the_coordinators_process_loads_no_deep_learning_stack() -> None:
    """Importing the server brings neither torch nor onnx."""
    code = "import sys, broker_server.server as s; print(*sorted({'torch', 'onnx', 'onnxscript'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_signal_asks_for_a_stop_and_handlers_come_back() -> None:
    """SIGTERM sets the stop, and what was installed before is installed again."""
    asked = threading.Event()
    before = signal.getsignal(signal.SIGTERM)
    with _signals(asked.set):
        signal.raise_signal(signal.SIGTERM)
    assert asked.is_set()
    assert signal.getsignal(signal.SIGTERM) is before


def test_serve_runs_until_it_is_stopped_and_leaves_no_thread(tmp_path: Path) -> None:
    """With no broker to reach, the server still starts its work and ends when told."""
    write_packs(tmp_path)
    config = msgspec.structs.replace(centre_config(tmp_path, rounds=RoundsConfig(limit=0)), broker=NOWHERE)
    config = msgspec.structs.replace(config, distil=msgspec.structs.replace(config.distil, timeout_s=0.1))
    threads = set(threading.enumerate())

    def ready(server: Server) -> None:
        threading.Timer(0.5, server.stop).start()

    serve(config, ready=ready)
    left = set(threading.enumerate()) - threads
    assert [thread for thread in left if not isinstance(thread, threading.Timer)] == []


def test_work_that_ends_after_the_stop_is_not_waited_for(tmp_path: Path) -> None:
    """An outcome that finds a full inbox waits for room, but not beyond the end."""
    write_packs(tmp_path)
    config = centre_config(tmp_path, rounds=RoundsConfig(limit=0))
    distiller: Distiller = scripted_distiller([0.5])
    server = make_server(config, MemoryBroker(), FakeClock(), distiller)
    try:
        server.inbox.maxsize = 1
        server.inbox.put("in the way")
        threading.Timer(0.7, server.inbox.get).start()
        server._done(JobFailed(TaskId("vehicle"), 0, "late"))
        assert isinstance(server.inbox.get(timeout=WITHIN_S), JobFailed)
        server.stop()
        server._done(JobFailed(TaskId("vehicle"), 0, "too late"))
        assert server.inbox.empty()
    finally:
        server.close()


def test_patience_follows_the_next_deadline(tmp_path: Path) -> None:
    """Idle, the pump waits half a second at most; with a deadline at hand or messages waiting, less."""
    write_packs(tmp_path)
    config = centre_config(tmp_path, rounds=RoundsConfig(limit=0))
    clock = FakeClock()
    server = make_server(config, MemoryBroker(), clock, scripted_distiller([0.5]))
    try:
        server.start()
        assert 0 < server._patience() <= 0.5
        server.step()
        assert server.pump.busy
        assert server._patience() < 0.01
        while server.pump.busy:
            server.step()
            clock.advance(1.0)
        assert server._patience() == 0.5
    finally:
        server.close()


def test_signatures_are_renewed_and_published_while_the_server_runs(tmp_path: Path) -> None:
    """Devices find a new timestamp before the old one ends, and a root that another process signed, at once."""
    write_packs(tmp_path)
    clock, broker = FakeClock(time.time()), MemoryBroker()
    config = centre_config(tmp_path, rounds=RoundsConfig(limit=0))
    server = make_server(config, broker, clock, scripted_distiller([0.5]))

    def published(name: str) -> bytes:
        server.step()
        clock.advance(2.0)
        server.step()
        return broker.retained.get(server.topics.metadata(name), b"")

    try:
        server.start()
        while not server.database.releases(TaskId("vehicle")):
            published("timestamp")
        files = signed_roles(config).files()
        assert {name: published(name) for name in files} == files
        clock.advance(2 * 86_400)
        assert published("timestamp") != files["timestamp"]
        assert published("timestamp") == signed_roles(config).files()["timestamp"]
        rotate(config, Rotation("root", 1, 1), clock())
        assert published("2.root") == server.newest_root.read_bytes()
    finally:
        server.close()


def test_a_clock_that_was_far_ahead_leaves_the_server_neither_deaf_nor_mute(tmp_path: Path) -> None:
    """Started twelve years ahead, then right: the next step signs a timestamp that devices take, and obeys an order."""
    write_packs(tmp_path)
    right = time.time()
    clock = FakeClock(right)
    config = centre_config(tmp_path, rounds=RoundsConfig(limit=0))
    clock.set(12 * 365 * 86_400)
    server = make_server(config, MemoryBroker(), clock, scripted_distiller([0.5]))

    def timestamp() -> dict[str, Any]:
        signed: dict[str, Any] = json.loads(signed_roles(config).files()["timestamp"])["signed"]
        return signed

    try:
        server.start()
        server.step()
        assert timestamp()[CREATED] > right + 11 * 365 * 86_400
        clock.set(right - clock())
        order = OrderRecord(task=TaskId("vehicle"), counter=9, order="abort", by="ann", at_s=right)
        number = server.database.add_order(order)
        server.step()
        assert timestamp()[CREATED] == int(right)
        assert "waits for a rollout" in str(server.database.answer(number))
    finally:
        server.close()


def broken(_folder: Path, _cancelled: threading.Event) -> None:
    """Distil nothing."""
    raise DataError("no data")


def test_a_clock_that_is_set_makes_no_device_late(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A day forward, and a day back: said once each, and a rest lasts as long as it would have; slewing is neither."""
    write_packs(tmp_path)
    clock = FakeClock()
    config = centre_config(tmp_path, rounds=RoundsConfig(limit=0, pause_s=0))
    server = make_server(config, MemoryBroker(), clock, broken)
    try:
        server.start()
        server.step()
        for by_s in (0.5, 86_400, -86_400):
            clock.set(by_s)
            server.step()
            due = server.coordinator.next_deadline()
            assert due is not None
            assert due - clock() == pytest.approx(30, abs=1)
        said = [record.getMessage() for record in caplog.records if "clock was set" in record.message]
        assert said == ["the clock was set by +86400 s", "the clock was set by -86400 s"]
    finally:
        server.close()


def test_a_server_without_keys_says_how_to_make_them(tmp_path: Path) -> None:
    """It makes none by itself: whoever runs it need not be who may sign roots."""
    config = centre_config(tmp_path, rounds=RoundsConfig())
    shutil.rmtree(tmp_path / "server")
    seams = real_seams(config)
    with pytest.raises(NotReadyError, match="task-vehicle yet; run: roadcast keys init"):
        Server(config, seams)
    for executor in seams.executors:
        executor.shutdown()


@pytest.mark.parametrize(("damage", "says"), [("gone", "key of timestamp is not here"), ("junk", "cannot be opened")])
def test_a_server_whose_own_keys_cannot_sign_does_not_start(tmp_path: Path, damage: str, says: str) -> None:
    """Better no server than one whose releases nobody will take in three days."""
    config = centre_config(tmp_path, rounds=RoundsConfig())
    (key,) = (tmp_path / "keys").glob("timestamp-*.pem")
    if damage == "gone":
        key.unlink()
    else:
        key.write_text("junk")
    with pytest.raises((NotReadyError, ConfigError), match=says):
        ready_roles(config)


def test_a_section_must_bear_its_tasks_name(tmp_path: Path) -> None:
    """A task under another name would be published under one name and asked for under another."""
    config = centre_config(tmp_path, rounds=RoundsConfig())
    wrong = msgspec.structs.replace(config, tasks={"cars": config.tasks["vehicle"]})
    with pytest.raises(ConfigError, match=r"tasks\.cars.*'vehicle'"):
        task_specs(wrong)


def test_a_server_without_its_packs_says_which(tmp_path: Path) -> None:
    """A missing pack is named before anything is started."""
    config = centre_config(tmp_path, rounds=RoundsConfig())
    seams = real_seams(config)
    with pytest.raises(DataError, match=r"anchors\.npz: no such file"):
        Server(config, seams)
    for executor in seams.executors:
        executor.shutdown()


def test_a_task_without_proxies_needs_a_strategy_that_asks_for_none(tmp_path: Path) -> None:
    """Votes need a proxy pack, and the message names the way out; class means need none, but classes."""
    write_packs(tmp_path)
    config = centre_config(tmp_path, rounds=RoundsConfig())
    task = config.tasks["vehicle"]
    bare = msgspec.structs.replace(task, proxies=None)
    shares = msgspec.structs.replace(bare, rounds=RoundsConfig(trunk=TrunkSettings()))
    spec, blobs = task_specs(config)[TaskId("vehicle")], BlobFolder(tmp_path / "blobs")
    for wrong, strategy, said in (
        (bare, "feddistill", r"tasks\.vehicle\.proxies.*fedproto or fedtgp"),
        (bare, "fedporto", r"tasks\.vehicle\.strategy: 'fedporto' is not one of dsfl, .*fedtgp"),
        (shares, "fedtgp", r"tasks\.vehicle\.rounds\.trunk: fedtgp asks for class means"),
    ):
        with pytest.raises(ConfigError, match=said):
            task_setup(spec, wrong, blobs, DistilSettings(strategy=strategy), b"salt")
        with pytest.raises(ConfigError, match=said):
            check_files(with_task(config, msgspec.structs.replace(wrong, strategy=strategy)), {spec.task_id: spec})
    with pytest.raises(ConfigError, match=r"tasks\.speed\.strategy: fedtgp needs classes"):
        read_files(load_task("speed"), bare, DistilSettings(strategy="fedtgp"))
    for right in (bare, task):
        setup = task_setup(spec, right, blobs, DistilSettings(strategy="fedtgp"), b"salt")
        assert (setup.proxy, setup.samples) == (None, 0)
    counted = check_files(with_task(config, msgspec.structs.replace(bare, strategy="fedtgp")), {spec.task_id: spec})
    assert [(name, what) for name, what, *_ in counted] == [("vehicle", "anchors"), ("vehicle", "validation")]


def with_task(config: ServerConfig, task: TaskConfig) -> ServerConfig:
    """A configuration with another section for its vehicle task."""
    return msgspec.structs.replace(config, tasks={"vehicle": task})


def test_a_check_refuses_packs_that_a_server_could_not_run_on(tmp_path: Path) -> None:
    """Anchors or validation without a label, or more proxies than a report answers, stop a check and a start alike."""
    write_packs(tmp_path)
    config = centre_config(tmp_path, rounds=RoundsConfig(), distil=DistilConfig(trust_share=0.5))
    specs, blobs = task_specs(config), BlobFolder(tmp_path / "blobs")
    ((name, spec),) = specs.items()
    plain, many = (
        ImagePack.of(np.zeros((count, size, size, 3), np.uint8), classes=())
        for count, size in ((9, 32), (MAX_SAMPLES - 20, 1))
    )
    for what, pack, said in (
        ("anchors", plain, "none of its 9 samples is labelled"),
        ("validation", plain, "none of its 9 samples is labelled"),
        ("proxies", many, "a proxy set holds"),
    ):
        save_pack(tmp_path / "other.npz", pack, title=what)
        task = msgspec.structs.replace(config.tasks["vehicle"], **{what: str(tmp_path / "other.npz")})
        with pytest.raises(DataError, match=said):
            check_files(with_task(config, task), specs)
        with pytest.raises(DataError, match=said):
            task_setup(spec, task, blobs, config.distil_of(name), b"salt")


def test_a_check_names_classes_that_anchors_or_validation_lack(tmp_path: Path) -> None:
    """Such a pack is taken, for a class may be rare; nothing is asked of proxies."""
    write_packs(tmp_path)
    config = centre_config(tmp_path, rounds=RoundsConfig(), distil=DistilConfig(strategy="mean"))
    images, labels = np.zeros((6, 9, 9, 3), np.uint8), np.array([0, 1, 2, 0, 1, 2])
    for what in ("anchors", "proxies", "validation"):
        save_pack(tmp_path / f"{what}.npz", ImagePack.of(images, classes=VEHICLE.labels[3:], labels=labels), title=what)
    told = {what: warning for _, what, _, warning in check_files(config, task_specs(config))}
    lacking = f"no sample of {', '.join(VEHICLE.labels[:3])}"
    assert told == {"anchors": lacking, "proxies": "", "validation": lacking}


@pytest.mark.parametrize(
    ("share", "strategy", "warned"),
    [(0.01, "feddistill", True), (0.0, "feddistill", False), (0.01, "mean", False), (0.01, "fedproto", False)],
)
def test_a_check_names_classes_of_which_no_anchor_is_hidden(
    tmp_path: Path, share: float, strategy: str, warned: bool
) -> None:
    """A share too small for one anchor of a class is told beside its pack, where devices are weighed by anchors."""
    write_packs(tmp_path)
    config = centre_config(tmp_path, rounds=RoundsConfig(), distil=DistilConfig(trust_share=share, strategy=strategy))
    told = {what: warning for _, what, _, warning in check_files(config, task_specs(config))}
    assert told["anchors"].startswith("none to hide of bike, ") is warned
    assert not any(told[what] for what in ("proxies", "validation"))
