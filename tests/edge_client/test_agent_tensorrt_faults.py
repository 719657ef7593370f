"""The whole agent when plans do not come, or fail: the running student is untouched, and one reason is told."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from devices.runners.ort_runner import OrtRunner
from devices.runners.trt_build import Built
from devices.runners.trt_plans import Plans
from devices.runners.trt_process import build_apart
from export.golden import make_golden
from tests.edge_client.bad_releases import BAD
from tests.edge_client.device_rig import DeviceRig
from tests.edge_client.tensorrt_rig import (
    again,
    answers_go_on,
    answers_right,
    device,
    installed,
    provider,
    reason,
    state,
)
from tests.fakes.small_centre import Files, artifact_files
from tests.fakes.trt import fake_tensorrt
from tests.fakes.trt_board import TrtBoard
from tests.fakes.trt_machine import python_with


def with_a_bias(files: Files) -> Files:
    """The student with a first bias that its answers depend on, as they do once it is trained."""
    weights = load(files.weights)
    weights["trunk.0.conv.bias"] = weights["trunk.0.conv.bias"] + np.float16(100)
    with OrtRunner(files.template, save(weights)) as runner:
        golden = make_golden(runner, load(files.golden)["inputs"].astype(np.float32))
    return replace(files, weights=save(weights), golden=golden)


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"unsupported": "Conv"}, r"does not take layer '.*' \(Conv\): .*; replace the operator"),
        ({"said": "Requested amount of GPU memory could not be allocated"}, "built no plan.*add swap, or lower"),
        ({"drop_bias": True}, "off the golden"),
    ],
    ids=["operator", "memory", "bias"],
)
def test_a_build_that_fails_leaves_onnx_runtime_and_one_reason(
    trouble: dict[str, Any], said: str, tmp_path: Path
) -> None:
    """The release is installed all the same; the reason is told with it, counted, and not tried over and over."""
    board = TrtBoard(tmp_path, fake_tensorrt("11.3.0", **trouble))
    rig, files = device(tmp_path, board), with_a_bias(artifact_files())
    installed(rig, 1, files)
    rig.until(lambda: reason(rig), "the reason")
    assert reason(rig).startswith("ONNX Runtime serves: ")
    assert re.search(said, reason(rig))
    assert state(rig).counts["drop:plan-failed"] == 1
    assert state(rig).values["on_tensorrt"] == 0
    answers_go_on(rig)
    answers_right(rig, files)
    assert board.builds == 1
    rig.close()


def test_a_next_release_without_a_plan_does_not_cost_the_device_that_release(tmp_path: Path) -> None:
    """The running plan answers until the new release has stood its probation in ONNX Runtime."""
    board = TrtBoard(tmp_path)
    rig = device(tmp_path, board)
    installed(rig, 1, artifact_files())
    board.library._free = 1000
    installed(rig, 2, artifact_files(seed=1))
    rig.until(lambda: reason(rig), "the reason")
    assert "out of GPU memory" in reason(rig)
    answers_right(rig, artifact_files(seed=1))
    rig.close()


@pytest.mark.parametrize(("spoil", "said"), BAD.values(), ids=BAD)
def test_a_release_that_is_wrong_never_reaches_a_build(
    spoil: Callable[[Files], Files], said: str, tmp_path: Path
) -> None:
    """ONNX Runtime finds out in a moment: one reason is told, the running plan goes on, the next release is taken."""
    board = TrtBoard(tmp_path)
    rig = device(tmp_path, board)
    installed(rig, 1, artifact_files())
    rig.centre.release(2, {"nano": spoil(artifact_files(seed=1))})
    rig.until(lambda: rig.agent.core.stage == "rolled-back", "the rollback")
    rig.until(lambda: reason(rig, "rolled-back"), "the reason")
    assert re.search(said, reason(rig, "rolled-back")), reason(rig, "rolled-back")
    assert provider(rig).startswith("TensorRT")
    answers_right(rig, artifact_files())
    assert board.builds == 1
    installed(rig, 3, artifact_files(seed=1))
    rig.close()


def test_a_gpu_that_fails_costs_no_frame(tmp_path: Path) -> None:
    """The frame is answered by ONNX Runtime, and so are all that follow; the server is told once."""
    board = TrtBoard(tmp_path)
    rig = device(tmp_path, board)
    installed(rig, 1, artifact_files())
    board.library._broken = 719
    board.library.cudaStreamSynchronize = lambda stream: 719  # type: ignore[method-assign]
    rig.until(lambda: reason(rig), "the reason")
    assert "CUDA error 719" in reason(rig)
    assert provider(rig) == "CPUExecutionProvider"
    answers_go_on(rig)
    assert rig.agent._drops["plan-failed"] == 1
    rig.close()


def test_a_disk_that_refuses_to_keep_a_plan_does_not_cost_the_plan(tmp_path: Path) -> None:
    """It serves, is counted, and is built again after a restart; nothing half written is left."""
    board = TrtBoard(tmp_path)
    board.full = True
    rig = device(tmp_path, board)
    installed(rig, 1, artifact_files())
    assert provider(rig).startswith("TensorRT")
    assert state(rig).counts["plans_not_kept"] == 1
    assert not list((tmp_path / "state" / "plans").glob("*.plan"))
    board.full = False
    for path in (tmp_path / "state" / "plans").glob("*.part"):
        path.rmdir()
    rig = again(rig, board)
    rig.until(lambda: provider(rig).startswith("TensorRT"), "another plan")
    assert board.builds == 2
    rig.close()


@pytest.mark.parametrize("foreign", [("10.3.0", "8.6"), ("10.16.1", "8.7")], ids=["GPU", "version"])
def test_a_plan_of_another_gpu_or_version_is_replaced(foreign: tuple[str, str], tmp_path: Path) -> None:
    """As on a disk that was moved: ONNX Runtime serves while another is built, and then that one, without a word."""
    board = TrtBoard(tmp_path)
    rig = device(tmp_path, board)
    installed(rig, 1, artifact_files())
    rig.until(lambda: provider(rig).startswith("TensorRT"), "the plan")
    rig.close()
    other = TrtBoard(tmp_path, fake_tensorrt(*foreign))
    elsewhere = other.workshop(lambda *_: None, Plans(tmp_path / "elsewhere"))
    files = artifact_files()
    elsewhere.open(files.template, files.weights, files.golden).close()
    plan = next((tmp_path / "elsewhere").glob("*.plan")).read_bytes()
    plans = Plans(tmp_path / "state" / "plans")
    plans.put(board.made.key(files.template), Built(plan, b""), files.weights, 1.0)
    board.open.clear()
    rig = DeviceRig(rig.config, rig.broker, workshop=board.workshop)
    rig.until(lambda: board.builds == 2, "another build")
    assert provider(rig) == "CPUExecutionProvider"
    answers_go_on(rig)
    board.open.set()
    rig.until(lambda: provider(rig).startswith("TensorRT 10.3.0"), "another plan")
    answers_right(rig, files)
    assert reason(rig) == ""
    rig.close()


@pytest.mark.parametrize(
    ("settings", "code", "said"),
    [
        ({"build_timeout_s": 0.5}, "import time; time.sleep(600)", r"killed after 0\.5 s"),
        ({"needed_mb": 1 << 20}, "", "a build needs 1048576"),
        ({}, "import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "killed by the system"),
        ({}, "raise MemoryError", "MemoryError; stop what else"),
        ({}, "raise OSError(28, 'No space left on device')", "cannot be imported: .*No space left"),
    ],
    ids=["timeout", "guard", "killed", "memory", "disk"],
)
def test_a_build_that_is_killed_leaves_onnx_runtime(
    settings: dict[str, Any], code: str, said: str, tmp_path: Path
) -> None:
    """Whatever ends the process, the release serves, and the reason says what to do."""
    board = TrtBoard(tmp_path, build=partial(build_apart, python=python_with(tmp_path, code)))
    rig = device(tmp_path, board, **settings)
    installed(rig, 1, artifact_files())
    rig.until(lambda: reason(rig), "the reason")
    assert re.search(said, reason(rig)), reason(rig)
    answers_right(rig, artifact_files())
    rig.close()


@pytest.mark.skipif(find_spec("tensorrt") is not None, reason="TensorRT is installed here")
def test_a_device_that_has_no_tensorrt_says_so_and_serves(tmp_path: Path) -> None:
    """It was configured for it: the reason says how to install it."""
    rig = device(tmp_path, None)
    installed(rig, 1, artifact_files())
    rig.until(lambda: reason(rig), "the reason")
    assert "TensorRT cannot be imported" in reason(rig)
    assert "apt install" in reason(rig)
    answers_go_on(rig)
    rig.close()
