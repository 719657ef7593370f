"""A device measures what answers its frames when it is asked: whole agents, with and without plans; every refusal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from devices.runners.ort_runner import OrtRunner
from edge_client.effects import MeasureLatency
from edge_client.inference import Inference
from edge_client.latency_probe import PATIENCE_S, LatencyProbe
from edge_client.latency_queries import LEAST
from edge_client.pipelines import Bundle
from edge_models.tasks import load_task
from edge_protocol import messages as m
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.edge_client.tensorrt_rig import answers_go_on, answers_right, device, installed, provider
from tests.fakes.small_centre import artifact_files
from tests.fakes.trt import fake_tensorrt
from tests.fakes.trt_board import TrtBoard
from tests.fakes.waiting import wait_for

SPEC = load_task("vehicle")


def measured(rig: DeviceRig, seconds: float = 0.2) -> m.Measured:
    """Ask, and wait for the answer."""
    heard = len(rig.centre.of(m.Measured))
    rig.centre.tell("cam-1", m.Measure("vehicle", seconds))
    rig.until(lambda: len(rig.centre.of(m.Measured)) > heard, "a measurement", within_s=120)
    found: m.Measured = rig.centre.of(m.Measured)[-1]
    return found


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DeviceRig]:
    """A camera that serves release 1."""
    made = DeviceRig(device_config(tmp_path))
    made.centre.release(1, {"nano": artifact_files()})
    made.until(lambda: made.agent.core.running.release == 1, "release 1")
    yield made
    made.close()


def test_a_device_that_serves_measures_between_its_frames(rig: DeviceRig) -> None:
    """Percentiles of the serving release, by the provider that ran; frames go on; told until acknowledged, once."""
    rig.centre.deaf.add("measured")
    told = measured(rig)
    assert (told.task, told.release, told.ran, told.reason) == ("vehicle", 1, "CPUExecutionProvider", "")
    assert told.queries >= LEAST
    assert 0 < told.values["p50_ms"] <= told.values["p95_ms"] <= told.values["max_ms"]
    assert told.values["p95_ms"] <= told.values["p95_bound_ms"]
    assert told.values["contended"] > 0
    answers_go_on(rig)
    assert rig.agent.inference._between is None
    heard = len(rig.centre.of(m.Measured))
    rig.centre.deaf.clear()
    rig.until(lambda: len(rig.centre.of(m.Measured)) > heard, "the same again, for it was not acknowledged")
    assert {one.asked for one in rig.centre.of(m.Measured)} == {told.asked}


@pytest.mark.parametrize("version", ["8.5.2.2", "8.6.2", "10.3.0", "10.16.1.11", "11.4.0"])
def test_a_device_that_serves_with_tensorrt_measures_its_plan(version: str, tmp_path: Path) -> None:
    """The very plan that answers frames, of a build and of a refit, named by version and GPU; no second one is made."""
    board = TrtBoard(tmp_path, fake_tensorrt(version))
    rig = device(tmp_path, board)
    for release in (1, 2):
        installed(rig, release, artifact_files(seed=release))
        blocks = len(board.library.blocks)
        told = measured(rig)
        assert (told.release, told.reason) == (release, "")
        assert told.ran == f"TensorRT {version} on compute capability 8.7" == provider(rig)
        assert told.queries >= LEAST
        assert 0 < told.values["p50_ms"] <= told.values["p95_bound_ms"]
        assert "contended" not in told.values
        assert len(board.library.blocks) == blocks
        answers_go_on(rig)
        answers_right(rig, artifact_files(seed=release))
    assert board.builds == 1
    rig.close()


def test_a_device_whose_gpu_failed_measures_what_answers_since(tmp_path: Path) -> None:
    """ONNX Runtime stands in for the plan, and is what is measured and named."""
    board = TrtBoard(tmp_path)
    rig = device(tmp_path, board)
    installed(rig, 1, artifact_files())
    board.library.cudaStreamSynchronize = lambda stream: 719  # type: ignore[method-assign]
    rig.until(lambda: provider(rig) == "CPUExecutionProvider", "the standby")
    told = measured(rig)
    assert (told.ran, told.reason) == ("CPUExecutionProvider", "")
    assert told.queries >= LEAST
    answers_go_on(rig)
    rig.close()


def test_a_plan_that_fails_within_the_measurement_costs_no_frame(tmp_path: Path) -> None:
    """The answer is a reason or ONNX Runtime's figures, never a mixture; frames are answered by either."""
    board = TrtBoard(tmp_path)
    rig = device(tmp_path, board)
    installed(rig, 1, artifact_files())
    rig.centre.tell("cam-1", m.Measure("vehicle", 30.0))
    rig.until(lambda: rig.agent.inference._between, "a measurement")
    board.library.cudaStreamSynchronize = lambda stream: 719  # type: ignore[method-assign]
    rig.until(lambda: rig.centre.of(m.Measured), "an answer")
    (told,) = rig.centre.of(m.Measured)
    assert (told.ran, told.queries, told.values) == ("", 0, {})
    assert "CUDA error 719" in told.reason or "changed meanwhile" in told.reason
    rig.until(lambda: provider(rig) == "CPUExecutionProvider", "the standby")
    answers_go_on(rig)
    answers_right(rig, artifact_files())
    rig.close()


def test_a_device_that_installs_gives_the_measurement_up(rig: DeviceRig) -> None:
    """A newer release is not held up, and neither is measured halfway."""
    rig.centre.tell("cam-1", m.Measure("vehicle", 30.0))
    rig.until(lambda: rig.agent.inference._between, "a measurement")
    rig.centre.release(2, {"nano": artifact_files(seed=1)})
    rig.until(lambda: rig.agent.core.running.release == 2, "release 2")
    rig.until(lambda: rig.centre.of(m.Measured), "an answer")
    (told,) = rig.centre.of(m.Measured)
    assert (told.release, told.values) == (1, {})
    assert "meanwhile" in told.reason


def test_a_device_that_serves_nothing_says_so(tmp_path: Path) -> None:
    """The answer names the request and has no values; a request for another task is dropped and counted."""
    rig = DeviceRig(device_config(tmp_path))
    rig.centre.tell("cam-1", m.Measure("speed", 1.0))
    told = measured(rig, 1.0)
    assert (told.values, told.ran, told.release) == ({}, "", 0)
    assert "nothing answers frames" in told.reason
    assert rig.agent._drops["wrong-task"] == 1
    rig.close()


class Scene:
    """A probe beside an inference loop without sources, whose student is made by hand."""

    def __init__(self) -> None:
        self.inference = Inference([], 8)
        files = artifact_files()
        self.bundle = Bundle(3, OrtRunner(files.template, files.weights))
        self.inference.swap(self.bundle)
        self.probe = LatencyProbe(SPEC, self.inference, 1)

    def start(self, number: int = 1, *, busy: str = "") -> m.Measured | None:
        """Ask."""
        return self.probe.start(MeasureLatency(bytes([number]) * 16, 0.1), 0.0, busy=busy)


def test_one_at_a_time_and_none_beside_training() -> None:
    """A second request is refused at once, the first goes on; the same request again is no second one."""
    scene = Scene()
    refused = scene.start(1, busy="trains")
    assert refused is not None
    assert "trains already" in refused.reason
    assert scene.start(2) is None
    refused = scene.start(3)
    assert refused is not None
    assert (refused.asked, refused.release) == (b"\x03" * 16, 3)
    assert "measures already" in refused.reason
    scene.inference.start()
    told = wait_for(lambda: scene.probe.poll(1.0, busy=""), "an answer", within_s=60)
    scene.inference.stop()
    assert told is not None
    assert (told.asked, told.reason) == (b"\x02" * 16, "")
    assert scene.probe.poll(2.0, busy="") is None
    assert scene.start(3) is None, "it was answered: it has been refused"
    assert scene.probe.poll(3.0, busy="") is None


@pytest.mark.parametrize(
    ("now", "busy", "says"),
    [(0.1 + PATIENCE_S, "", "frames left time for 0 queries, 200 are needed"), (1.0, "trains", "trains meanwhile")],
)
def test_a_measurement_that_cannot_go_on_is_given_up(now: float, busy: str, says: str) -> None:
    """Frames that leave it no time, and training that begins; the loop is asked for nothing more."""
    scene = Scene()
    assert scene.start() is None
    assert scene.probe.poll(1.0, busy="") is None
    told = scene.probe.poll(now, busy=busy)
    assert told is not None
    assert says in told.reason
    assert (told.values, told.release) == ({}, 3)
    assert scene.inference._between is None


def test_a_student_of_another_shape_is_a_reason() -> None:
    """What the runner says is told, cut to what a message may hold."""
    scene = Scene()
    scene.inference.swap(Bundle(4, OrtRunner(artifact_files("speed").template, artifact_files("speed").weights)))
    assert scene.start() is None
    scene.inference.start()
    told = wait_for(lambda: scene.probe.poll(1.0, busy=""), "an answer", within_s=60)
    scene.inference.stop()
    assert told is not None
    assert "student takes float32" in told.reason
    assert np.isfinite(scene.bundle.runner.infer(np.zeros((1, *SPEC.input.shape), np.float32)).logits).all()
