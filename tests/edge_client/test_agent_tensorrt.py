"""The whole agent on boards with a GPU: plans serve; ONNX Runtime does until there is one, and where there is none."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np
import pytest

from devices.runners.ort_runner import OrtRunner
from devices.runners.trt_process import build_apart
from edge_protocol import messages as m
from export.golden import make_golden
from export.graph import inlined, outlined
from export.passes.base import apply
from export.passes.int8 import Target, to_int8
from export.passes.simplify import simplify
from tests.edge_client.device_rig import DeviceRig
from tests.edge_client.tensorrt_rig import (
    again,
    answers_go_on,
    answers_right,
    device,
    installed,
    other_template,
    provider,
    reason,
    state,
)
from tests.fakes.small_centre import Files, artifact_files
from tests.fakes.trt import fake_tensorrt
from tests.fakes.trt_board import TrtBoard
from tests.fakes.trt_machine import python_with

VERSIONS = ("8.5.2.2", "8.6.2", "10.0.1", "10.3.0", "10.16.1.11", "11.4.0")


@pytest.mark.parametrize("version", VERSIONS)
def test_a_release_is_served_by_a_plan_and_the_next_one_by_the_same_plan(version: str, tmp_path: Path) -> None:
    """In each version: a build for the first, a refit for the second, and neither after a restart."""
    board = TrtBoard(tmp_path, fake_tensorrt(version))
    rig = device(tmp_path, board)
    for release in (1, 2):
        installed(rig, release, artifact_files(seed=release))
        assert provider(rig) == f"TensorRT {version} on compute capability 8.7"
        answers_right(rig, artifact_files(seed=release))
        assert board.builds == 1
    assert reason(rig) == ""
    assert state(rig).values["on_tensorrt"] == 1
    rig = again(rig, board)
    rig.until(lambda: provider(rig).startswith("TensorRT"), "the kept plan")
    answers_right(rig, artifact_files(seed=2))
    answers_go_on(rig)
    assert board.builds == 1
    rig.close()


def test_onnx_runtime_serves_while_a_plan_is_built(tmp_path: Path) -> None:
    """After a change of JetPack: at once, for as long as it takes, and the state says how far the build is."""
    old = TrtBoard(tmp_path, fake_tensorrt("8.6.2"))
    rig = device(tmp_path, old)
    installed(rig, 1, artifact_files())
    board = TrtBoard(tmp_path, fake_tensorrt("10.3.0"))
    board.open.clear()
    rig = again(rig, board)
    assert provider(rig) == "CPUExecutionProvider"
    rig.until(lambda: board.builds, "a build")
    answers_go_on(rig)
    rig.until(lambda: state(rig).values.get("plan_share") == 0.5, "progress")
    assert state(rig).values["plan_left_s"] > 0
    assert state(rig).counts["plan_builds"] == 1
    board.open.set()
    rig.until(lambda: provider(rig).startswith("TensorRT 10.3.0"), "the plan")
    answers_right(rig, artifact_files())
    assert "plan_share" not in state(rig).values
    rig.close()


def test_a_plan_serves_while_that_of_the_next_release_is_built(tmp_path: Path) -> None:
    """Another graph needs another plan: the old one answers, and rounds wait, until it is there."""
    board = TrtBoard(tmp_path)
    rig = device(tmp_path, board)
    installed(rig, 1, artifact_files())
    board.open.clear()
    rig.centre.release(2, {"nano": other_template(artifact_files(seed=1))})
    rig.until(lambda: board.builds == 2, "a second build")
    assert rig.agent.core.stage == "building"
    assert provider(rig).startswith("TensorRT")
    answers_go_on(rig)
    assert state(rig).values["plan_left_s"] >= 0, "the first build tells how long"
    board.open.set()
    rig.until(lambda: rig.agent.core.running.release == 2, "release 2")
    answers_right(rig, artifact_files(seed=1))
    rig.close()


def test_another_power_mode_needs_another_plan(tmp_path: Path) -> None:
    """It is built while the old one answers; when the build fails, the old one goes on, and the reason says so."""
    board = TrtBoard(tmp_path)
    rig = device(tmp_path, board)
    installed(rig, 1, artifact_files())
    rig.until(lambda: provider(rig).startswith("TensorRT"), "the plan")
    before = rig.agent.inference.bundle
    board.power_mode = "MAXN"
    rig.until(lambda: rig.agent.inference.bundle is not before, "another plan")
    assert provider(rig).startswith("TensorRT")
    assert board.builds == 2
    kept = rig.agent.inference.bundle
    board.trt.Builder.said = "out of memory"
    board.power_mode = "7W"
    rig.until(lambda: reason(rig), "the reason")
    assert reason(rig).startswith("the plan of before serves: ")
    assert rig.agent.inference.bundle is kept
    board.power_mode = "MAXN"
    rig.until(lambda: not reason(rig), "the kept plan of a mode that is back")
    assert board.builds == 3
    rig.close()


def test_a_newer_release_ends_the_build_of_the_one_before(tmp_path: Path) -> None:
    """Nobody waits for a plan that is not wanted any more."""
    board = TrtBoard(tmp_path)
    rig = device(tmp_path, board)
    rig.until(lambda: rig.centre.of(m.Birth), "birth")
    board.open.clear()
    rig.centre.release(1, {"nano": other_template(artifact_files(seed=1))})
    rig.until(lambda: board.builds == 1, "a build")
    rig.centre.release(2, {"nano": artifact_files()})
    rig.until(lambda: board.builds == 2, "the next build")
    board.open.set()
    rig.until(lambda: rig.agent.core.running.release == 2, "release 2")
    assert provider(rig).startswith("TensorRT")
    answers_right(rig, artifact_files())
    rig.close()


def test_a_build_in_its_own_process_serves_and_ends_with_the_agent(tmp_path: Path) -> None:
    """The real subprocess: a plan comes of it; one that hangs is gone within seconds of the agent's end."""
    python = python_with(tmp_path)
    board = TrtBoard(tmp_path, build=partial(build_apart, python=python))
    rig = device(tmp_path, board)
    installed(rig, 1, artifact_files())
    assert provider(rig).startswith("TensorRT 10.3.0")
    hanging = python_with(
        tmp_path, f"import os, time; open('{tmp_path}/pid', 'w').write(str(os.getpid())); time.sleep(600)"
    )
    board._build = partial(build_apart, python=hanging)
    rig.centre.release(2, {"nano": other_template(artifact_files(seed=1))})
    rig.until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "the build")
    rig.close()
    rig.agent._installer._thread.join(20)
    assert not Path(f"/proc/{(tmp_path / 'pid').read_text()}").exists()
    assert not list((tmp_path / "state" / "plans").glob("building-*"))


def quantised(target: Target) -> Files:
    """The student in INT8, as the exporter writes it."""
    files, x = artifact_files(), np.random.default_rng(0).normal(size=(16, 3, 32, 32)).astype(np.float32)
    made, _ = apply([simplify, to_int8(target, "minmax", x)], inlined(files.template, files.weights))
    template, weights = outlined(made)
    with OrtRunner(template, weights) as runner:
        return Files(template, weights, make_golden(runner, x[:4]))


def test_int8_for_tensorrt_is_served_and_int8_for_cpus_is_not(tmp_path: Path) -> None:
    """The one is a release as any other; the other is served by ONNX Runtime, and the reason names the right one."""
    board = TrtBoard(tmp_path)
    rig = device(tmp_path, board)
    installed(rig, 1, quantised("trt"))
    assert provider(rig).startswith("TensorRT")
    installed(rig, 2, quantised("cpu"))
    assert provider(rig) == "CPUExecutionProvider"
    rig.until(lambda: "--variant int8-trt" in reason(rig), "the reason")
    answers_go_on(rig)
    rig.close()


@pytest.mark.gpu
def test_a_real_gpu_serves_the_whole_agent(tmp_path: Path) -> None:
    """Where a GPU and TensorRT are: built for the first release, refitted for the second, kept over a restart."""
    pytest.importorskip("tensorrt")
    rig = device(tmp_path, None)
    for release in (1, 2):
        installed(rig, release, artifact_files(seed=release))
        assert provider(rig).startswith("TensorRT"), reason(rig)
        answers_right(rig, artifact_files(seed=release))
    assert state(rig).counts["plan_builds"] == 1
    rig.close()
    rig = DeviceRig(rig.config, rig.broker)
    rig.until(lambda: provider(rig).startswith("TensorRT"), "the kept plan", within_s=60)
    answers_go_on(rig)
    assert "plan_builds" not in state(rig).counts
    rig.close()
