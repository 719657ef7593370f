"""The whole agent against a small centre: real runner, real files, real threads; no network."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest

from edge_client.agent import Agent
from edge_client.jobs import read_result
from edge_client.lessons import LESSON
from edge_client.pipelines import Bundle
from edge_models.head_weights import HeadWeights
from edge_models.trunk_changes import decode_change
from edge_protocol import messages as m
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from edge_protocol.trunks import TrunkAsk
from tests.edge_client.device_rig import DeviceRig, device_config, series_pack
from tests.edge_client.test_training import WRITE
from tests.fakes.small_centre import SmallCentre, artifact_files


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DeviceRig]:
    """A camera that has booted with nothing installed."""
    made = DeviceRig(device_config(tmp_path))
    yield made
    made.close()


def running(rig: DeviceRig, release: int) -> bool:
    """Whether a release answers frames."""
    return rig.agent.core.running.release == release


def told(rig: DeviceRig) -> m.Deployment:
    """What the device last said about its deployment."""
    found: m.Deployment = rig.centre.of(m.Deployment)[-1]
    return found


def test_a_release_is_fetched_checked_swapped_in_and_no_frame_is_skipped(rig: DeviceRig) -> None:
    """From nothing to release 1 to release 2 while frames flow; every frame is answered from the first release on."""
    files = artifact_files()
    rig.centre.release(1, {"nano": files})
    rig.until(lambda: running(rig, 1), "release 1")
    assert told(rig).state == "committed"
    assert told(rig).weights == rig.agent.core.running.weights
    answered = rig.agent.inference.counters
    waiting = answered.frames - answered.answered
    rig.centre.release(2, {"nano": artifact_files(seed=1)})
    rig.until(lambda: running(rig, 2), "release 2")
    count = answered.answered
    rig.until(lambda: answered.answered > count + 20, "more answers")
    rig.until(lambda: [s for s in rig.centre.of(m.DeviceState) if s.release == 2], "a state of release 2")
    state = next(s for s in rig.centre.of(m.DeviceState) if s.release == 2)
    assert state.counts["swap_skipped"] == 0
    assert state.counts["frames"] - state.counts["answered"] - state.counts["queue_dropped"] <= waiting + 2
    assert state.values["latency_p50_ms"] <= state.values["latency_p95_ms"]
    assert state.counts["bytes_down"] > len(files.weights)
    folders = {path.name for path in (Path(rig.config.state_dir) / "blobs").iterdir()}
    assert len(folders) <= 6, "two releases of three files at most"


def test_labels_come_from_operators_and_from_a_file(tmp_path: Path) -> None:
    """A remembered sample becomes a labelled one in the replay store."""
    rig = DeviceRig(device_config(tmp_path, labels={"file": "labels.csv"}, replay={"every_s": 1000}))
    rig.until(lambda: rig.agent.inference.counters.frames > 30, "frames")
    rig.centre.tell("cam-1", m.Label("vehicle", "main-3", "truck"))
    (Path(rig.config.state_dir) / "labels.csv").write_text("main-5,car\nbroken\n")

    def kept() -> dict[str, int]:
        return dict(rig.agent.replay._db.execute("select sample, class from samples where class >= 0").fetchall())

    rig.until(lambda: len(kept()) == 2, "both labels")
    assert kept() == {"main-3": 5, "main-5": 1}
    rig.close()


def test_results_are_kept_until_the_server_has_them(tmp_path: Path) -> None:
    """Counts made while the broker is away arrive after it is back, once."""
    rig = DeviceRig(device_config(tmp_path))
    rig.centre.release(1, {"nano": artifact_files()})
    rig.until(lambda: running(rig, 1), "release 1")
    link = rig.agent.transport
    assert isinstance(link, MemoryTransport)
    link.cut()
    rig.until(lambda: rig.centre.of(m.Presence)[-1] == m.Presence(online=False), "the last will")
    result = m.IntervalResult("vehicle", "main", 0, 60, 1, {"car": 3})
    rig.agent._inbox.put(result)
    rig.until(lambda: len(rig.agent.outbox) == 1, "the outbox")
    link.start()
    rig.until(lambda: rig.centre.of(m.IntervalResult), "the result")
    rig.until(lambda: len(rig.agent.outbox) == 0, "the ack")
    assert rig.centre.of(m.IntervalResult) == [result]
    rig.close()


def test_a_sensor_forecasts_and_learns_from_what_came_to_pass(tmp_path: Path) -> None:
    """Windows are answered per sensor and horizon; matured truth fills the replay store."""
    config = device_config(
        tmp_path,
        task="speed",
        labels={"commissioning": str(series_pack(tmp_path, 120, name="history.npz"))},
        sources=[{"name": "road", "uri": f"pack://{series_pack(tmp_path)}", "rate_hz": 100, "loop": True}],
    )
    rig = DeviceRig(config)
    assert len(rig.agent.replay) > 100
    rig.centre.release(1, {"nano": artifact_files("speed")}, task="speed")
    rig.until(lambda: running(rig, 1), "release 1")
    before = len(rig.agent.replay)
    rig.until(lambda: len(rig.agent.replay) > before, "matured samples")
    rig.until(lambda: len(rig.centre.of(m.IntervalResult)) > 40, "results")
    keys = {key for result in rig.centre.of(m.IntervalResult) for key in result.values}
    assert keys == {f"loop{i}/+{h}min" for i in range(3) for h in (15, 30, 60)}
    rig.close()


def test_a_logger_s_rows_are_told_once_although_its_file_is_read_at_each_start(tmp_path: Path) -> None:
    """After a restart the old rows fill the windows again, and only intervals that nobody was told of are results."""
    log, rows = tmp_path / "log.csv", [f"{1.7e9 + 300 * at:.0f},{50 + at % 7}\n" for at in range(40)]
    log.write_text("time,loop\n" + "".join(rows[:30]))
    config = device_config(tmp_path, task="speed", sources=[{"name": "road", "uri": f"csv://{log}"}])
    rig = DeviceRig(config)
    rig.centre.release(1, {"nano": artifact_files("speed")}, task="speed")
    rig.until(lambda: running(rig, 1), "release 1")
    with log.open("a") as growing:
        growing.writelines(rows[30:36])
    rig.until(lambda: len(ends(rig)) >= 5, "results")
    rig.until(lambda: len(rig.agent.outbox) == 0, "the acks")
    before = set(ends(rig))
    rig.close()
    again = DeviceRig(config, rig.broker)
    with log.open("a") as growing:
        growing.writelines(rows[36:])
    again.until(lambda: len(ends(again)) >= 3, "results of the new rows")
    assert not before & set(ends(again))
    again.close()


def ends(rig: DeviceRig) -> list[float]:
    """Ends of the intervals that the centre was told of."""
    return [result.end_s for result in rig.centre.of(m.IntervalResult)]


def test_a_round_is_answered_by_the_real_trainer_and_its_head_serves(tmp_path: Path) -> None:
    """Release, refit, round, report, personal head: with the subprocess that a device runs."""
    pack = f"{tmp_path}/images.npz"
    config = device_config(tmp_path, labels={"commissioning": pack})
    rig = DeviceRig(config, trainer=())
    rig.centre.release(1, {"nano": artifact_files()})
    rig.centre.call(1, 1)
    rig.until(lambda: rig.centre.of(m.KnowledgeReport), "report", within_s=90)
    (report,) = rig.centre.of(m.KnowledgeReport)
    assert (report.round, report.release, report.examples, report.votes.samples) == (1, 1, 60, 24)
    rig.until(lambda: "shared_accuracy" in rig.centre.of(m.DeviceState)[-1].values, "scores")
    state = rig.centre.of(m.DeviceState)[-1]
    assert state.values["personal_accuracy"] > state.values["shared_accuracy"]
    assert state.values["train_peak_mb"] > 50
    assert "train_energy_j" not in state.values, "nobody told the watts of this board"
    bundle = rig.agent.inference.bundle
    assert bundle is not None
    assert bundle.head is not None
    hard = read_result(Path(config.state_dir), LESSON).hard
    assert hard
    assert not [each.sample for each in hard if repr(each.sample) in repr(rig.centre.heard)], "it stays here"
    rig.until(lambda: len(rig.agent.outbox) == 0, "the last ack")
    rig.close()
    again = DeviceRig(config, rig.broker)
    assert again.agent.inference.bundle is not None
    assert isinstance(again.agent.inference.bundle.head, HeadWeights)
    again.until(lambda: again.centre.of(m.Presence), "link")
    again.until(lambda: again.centre.of(m.DeviceState), "state")
    assert not again.centre.of(m.KnowledgeReport), "an answered round is not answered again after a restart"
    again.close()


@pytest.mark.timeout(600)
@pytest.mark.parametrize("granted", [0, 3])
def test_a_trunk_s_change_leaves_a_device_only_when_its_owner_allows_it(tmp_path: Path, granted: int) -> None:
    """A round asks for ten steps: the device grants three, or, as by default, none; the report comes in both cases."""
    labels = {"commissioning": f"{tmp_path}/images.npz"}
    rig = DeviceRig(device_config(tmp_path, labels=labels, train={"trunk_steps": granted}), trainer=())
    rig.centre.release(1, {"nano": artifact_files()})
    rig.centre.call(1, 1, trunk=TrunkAsk(10, 16, 0.003, 0.5))
    rig.until(lambda: rig.centre.of(m.KnowledgeReport), "report", within_s=280)
    (report,) = rig.centre.of(m.KnowledgeReport)
    if not granted:
        assert report.trunk is None
    else:
        assert (report.trunk.steps, report.trunk.base) == (3, sha256(artifact_files().weights).hexdigest())
        assert decode_change(report.trunk.data)
    assert rig.agent._uplink.raw_bytes == 0
    rig.close()


def test_a_device_whose_privacy_budget_is_spent_says_so_and_goes_on_serving(tmp_path: Path) -> None:
    """One report by a stand-in trainer, then none; the state tells why, and nothing exact of the samples."""
    privacy = {"epsilon_per_report": 2.0, "epsilon_total": 2.5}
    config = device_config(tmp_path, labels={"commissioning": f"{tmp_path}/images.npz"}, privacy=privacy)
    rig = DeviceRig(config, trainer=(sys.executable, "-c", WRITE))
    rig.centre.release(1, {"nano": artifact_files()})
    rig.centre.call(1, 1)
    spent = "privacy budget spent"
    rig.until(lambda: [s for s in rig.centre.of(m.DeviceState) if s.session == spent], "the end", within_s=90)
    assert len(rig.centre.of(m.KnowledgeReport)) == 1
    rig.centre.call(2, 1)
    rig.until(lambda: rig.agent._lessons.busy, "a lesson of its own")
    rig.until(lambda: not rig.agent._lessons.busy, "its end")
    assert len(rig.centre.of(m.KnowledgeReport)) == 1
    state = rig.centre.of(m.DeviceState)[-1]
    assert state.values["privacy_epsilon"] == pytest.approx(2.0, abs=0.01)
    assert state.values["privacy_epsilon_total"] == 2.5
    assert not {"shared_accuracy", "personal_accuracy"} & set(state.values)
    assert "replay_samples" not in state.counts
    frames = state.counts["answered"]
    rig.until(lambda: rig.centre.of(m.DeviceState)[-1].counts["answered"] > frames, "more answers")
    rig.close()
    again = DeviceRig(config, rig.broker)
    again.until(lambda: again.centre.of(m.DeviceState), "state")
    assert again.centre.of(m.DeviceState)[0].session == spent
    again.close()


def test_the_agent_leaves_within_five_seconds(tmp_path: Path) -> None:
    """Run in a thread as `run` does it; every thread of its own ends."""
    config = device_config(tmp_path)
    broker = MemoryBroker()
    centre = SmallCentre(broker)
    agent = Agent(config, lambda inbox, will: MemoryTransport(broker, inbox, will))
    thread = threading.Thread(target=agent.run)
    thread.start()
    deadline = time.monotonic() + 20
    while agent.inference.counters.frames < 5 and time.monotonic() < deadline:
        time.sleep(0.02)
    begun = time.monotonic()
    agent.stop()
    thread.join(10)
    assert time.monotonic() - begun < 5
    assert not thread.is_alive()
    names = {each.name for each in threading.enumerate()}
    assert not names & {"inference", "installer", "source-main"}
    centre.turn()
    assert centre.of(m.Presence)[-1] == m.Presence(online=False)


def test_a_real_process_serves_without_torch_and_ends_on_sigterm(tmp_path: Path) -> None:
    """Nothing that the serving agent imports pulls in a deep-learning stack or the server's parts."""
    config = device_config(tmp_path)
    import msgspec  # noqa: PLC0415
    import yaml  # noqa: PLC0415

    (tmp_path / "device.yaml").write_text(yaml.safe_dump(msgspec.to_builtins(config)))
    script = (
        "import sys\nfrom roadcast.commands.client import app\n"
        "try:\n    app(sys.argv[1:], standalone_mode=False)\n"
        "finally:\n    heavy = ('torch', 'onnx', 'onnxscript', 'sqlalchemy', 'alembic', 'fastapi', 'matplotlib')\n"
        "    print('loaded', [name for name in heavy if name in sys.modules])\n"
    )
    command = [sys.executable, "-c", script, "run", "--config", str(tmp_path / "device.yaml"), "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 30
        while not (Path(config.state_dir) / "replay.db-wal").exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        time.sleep(0.5)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=20)
    assert process.returncode == 0, err
    assert "loaded []" in out
    assert '"swap_skipped": 0' in out or '"swap_skipped":0' in out


def test_a_bundle_with_side_inputs_answers_with_and_without_them() -> None:
    """A personal head of a clinic sees the device's own inputs; those it lacks count as not measured."""
    from devices.runners.ort_runner import OrtRunner  # noqa: PLC0415

    files = artifact_files()
    weight = np.zeros((6, 66), np.float32)
    weight[2, 64] = 1.0
    x = np.zeros((2, 3, 32, 32), np.float32)
    with OrtRunner(files.template, files.weights) as runner:
        bundle = Bundle(1, runner, HeadWeights(weight, np.zeros(6, np.float32)))
        assert bundle.answer(x, np.float32([5, 0]))[0][:, 2].tolist() == [5, 5]
        assert bundle.answer(x)[0][:, 2].tolist() == [0, 0]
