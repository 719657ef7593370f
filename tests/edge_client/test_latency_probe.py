"""A device measures what it serves when it is asked: a real agent and subprocess, and every way in which it cannot."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edge_client.effects import MeasureLatency
from edge_client.latency_job import LEAST_QUERIES
from edge_client.latency_probe import PATIENCE_S, LatencyProbe
from edge_client.pipelines import Bundle
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.blobs import cut
from edge_protocol.manifest import Artifact
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.fakes.small_centre import artifact_files
from tests.fakes.waiting import wait_for

SPEC = load_task("vehicle")


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DeviceRig]:
    """A camera that serves release 1."""
    made = DeviceRig(device_config(tmp_path))
    made.centre.release(1, {"nano": artifact_files()})
    made.until(lambda: made.agent.core.running.release == 1, "release 1")
    yield made
    made.close()


def test_a_device_that_serves_measures_beside_its_frames(rig: DeviceRig) -> None:
    """Percentiles of the serving release, by the provider that ran; frames go on; told until acknowledged, once."""
    answered = rig.agent.inference.counters.answered
    rig.centre.deaf.add("measured")
    rig.centre.tell("cam-1", m.Measure("vehicle", 0.2))
    rig.until(lambda: rig.centre.of(m.Measured), "a measurement")
    told: m.Measured = rig.centre.of(m.Measured)[0]
    assert (told.task, told.release, told.ran, told.reason) == ("vehicle", 1, "CPUExecutionProvider", "")
    assert told.queries >= LEAST_QUERIES
    assert 0 < told.values["p50_ms"] <= told.values["p95_ms"] <= told.values["max_ms"]
    assert told.values["p95_ms"] <= told.values["p95_bound_ms"]
    assert told.values["contended"] > 0
    rig.until(lambda: rig.agent.inference.counters.answered > answered + 20, "frames that go on")
    assert not (Path(rig.config.state_dir) / "latency").exists()
    rig.centre.deaf.clear()
    rig.until(lambda: len(rig.centre.of(m.Measured)) > 1, "the same again, for it was not acknowledged")
    assert {one.asked for one in rig.centre.of(m.Measured)} == {told.asked}


def test_a_device_that_serves_nothing_says_so(tmp_path: Path) -> None:
    """The answer names the request and has no values; a request for another task is dropped and counted."""
    rig = DeviceRig(device_config(tmp_path))
    rig.centre.tell("cam-1", m.Measure("speed", 1.0))
    rig.centre.tell("cam-1", m.Measure("vehicle", 1.0))
    rig.until(lambda: rig.centre.of(m.Measured), "an answer")
    (told,) = rig.centre.of(m.Measured)
    assert (told.values, told.ran, told.release) == ({}, "", 0)
    assert "nothing answers frames" in told.reason
    assert rig.agent._drops["wrong-task"] == 1
    rig.close()


class Serving:
    """A probe with a command in place of the subprocess, and files of a release that only have names."""

    def __init__(self, folder: Path, script: str, provider: str = "CPUExecutionProvider") -> None:
        command = (sys.executable, "-c", script)
        self.probe = LatencyProbe(device_config(folder), SPEC, lambda digest: folder / digest, command)
        ref = cut(b"file")[0]
        self._artifact = Artifact("nano", "depthwise", ref, ref, ref, 1)
        runner: Any = type("Runner", (), {"provider": provider})()
        self._bundle = Bundle(3, runner)

    def start(self, number: int = 1, *, training: bool = False) -> m.Measured | None:
        """Ask."""
        wanted = MeasureLatency(bytes([number]) * 16, 1.0)
        return self.probe.start(wanted, self._artifact, self._bundle, 0.0, training=training)

    def outcome(self) -> m.Measured:
        """Wait for the answer."""
        told = wait_for(lambda: self.probe.poll(1.0), "an answer")
        assert told is not None
        return told


def writes(ran: str) -> str:
    """A subprocess that has measured."""
    result = f'{{"ran": "{ran}", "queries": 7, "values": {{"p50_ms": 1.5}}}}'
    return f"import sys, pathlib; pathlib.Path(sys.argv[1], 'result.json').write_text('{result}')"


@pytest.mark.parametrize(
    ("script", "says"),
    [
        ("import sys; sys.exit(9)", "ended with code 9: no word"),
        ("import os; os.kill(os.getpid(), 9)", "ended with code -9"),
        ("import sys, pathlib; pathlib.Path(sys.argv[1], 'error').write_text('no room'); sys.exit(1)", "no room"),
        ("pass", "its result cannot be read"),
        ("import sys, pathlib; pathlib.Path(sys.argv[1], 'result.json').write_text('{')", "its result cannot be read"),
        (writes("TensorrtExecutionProvider"), "frames are answered by CPUExecutionProvider"),
    ],
)
def test_a_subprocess_that_fails_is_an_answer(script: str, says: str, tmp_path: Path) -> None:
    """It ends badly, is killed, says why, writes nothing or nonsense, or measured what does not serve."""
    serving = Serving(tmp_path, script)
    assert serving.start() is None
    told = serving.outcome()
    assert says in told.reason
    assert (told.values, told.release, told.asked) == ({}, 3, b"\x01" * 16)
    assert not (tmp_path / "state/latency").exists()


def test_one_at_a_time_and_none_beside_training(tmp_path: Path) -> None:
    """A second request is refused at once, the first goes on; the same request again is no second one."""
    serving = Serving(tmp_path, writes("CPUExecutionProvider"))
    busy = serving.start(1, training=True)
    assert busy is not None
    assert "trains already" in busy.reason
    assert serving.start(2) is None
    refused = serving.start(3)
    assert refused is not None
    assert "measures already" in refused.reason
    told = serving.outcome()
    assert (told.asked, told.queries, told.values) == (b"\x02" * 16, 7, {"p50_ms": 1.5})
    assert serving.probe.poll(2.0) is None
    assert serving.start(3) is None, "it was answered: it has been refused"
    assert serving.probe.poll(3.0) is None


def test_a_subprocess_that_hangs_is_killed(tmp_path: Path) -> None:
    """Past its time it goes, and says so; the device that ends takes it along."""
    started: list[Callable[[], object]] = []
    for number in (1, 2):
        serving = Serving(tmp_path / str(number), "import time; time.sleep(600)")
        assert serving.start() is None
        process = serving.probe._current
        assert process is not None
        started.append(process.process.poll)
        if number == 1:
            assert serving.probe.poll(1.0) is None
            told = serving.probe.poll(1.0 + PATIENCE_S)
            assert told is not None
            assert "killed" in told.reason
        serving.probe.stop()
    assert all(poll() is not None for poll in started)


def test_a_disk_that_refuses_is_an_answer(tmp_path: Path) -> None:
    """Where the job's folder should be is a file."""
    serving = Serving(tmp_path, "pass")
    (tmp_path / "state").write_text("a file")
    told = serving.start()
    assert told is not None
    assert "could not be started" in told.reason
