"""Who is to serve with TensorRT, and what is told of a build that is under way."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from devices.boards.machine import Machine
from devices.runners.ort_runner import OrtRunner
from edge_client.candidate import Candidate
from edge_client.planner import Planner, wants_tensorrt
from edge_protocol.blobs import cut
from edge_protocol.errors import NotReadyError
from edge_protocol.manifest import Artifact
from export.golden import make_golden
from tests.edge_client.device_rig import device_config
from tests.fakes.student import PAYLOAD, TEMPLATE, X
from tests.fakes.trt import fake_tensorrt
from tests.fakes.trt_board import TrtBoard


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    """A small student in ONNX Runtime, with its files on disk."""
    runner = OrtRunner(TEMPLATE, PAYLOAD)
    refs = []
    for data in (TEMPLATE, PAYLOAD, make_golden(runner, X[:4])):
        ref, _ = cut(data)
        (tmp_path / ref.sha256).write_bytes(data)
        refs.append(ref)
    template, weights, golden = refs
    return Candidate(1, Artifact("nano", "student", template, weights, golden, 1), runner, X[:4])


def planner(folder: Path, board: TrtBoard) -> Planner:
    """Of a device that is to use TensorRT."""
    config = device_config(folder, runner="tensorrt", tensorrt={"needed_mb": 0, "spare_mb": 0})
    return Planner(config, folder.joinpath, board.workshop)


@pytest.mark.parametrize(
    ("choice", "model", "wanted"),
    [
        ("auto", "NVIDIA Jetson Orin Nano Developer Kit", True),
        ("auto", "Raspberry Pi 5 Model B Rev 1.0", False),
        ("auto", None, False),
        ("onnxruntime", "NVIDIA Jetson Orin Nano Developer Kit", False),
        ("tensorrt", None, True),
    ],
)
def test_the_board_decides_where_nobody_does(choice: str, model: str | None, wanted: bool, tmp_path: Path) -> None:
    """``auto`` is TensorRT on boards whose profile has a GPU for it; the other two are what they say."""
    if model is not None:
        (tmp_path / "proc/device-tree").mkdir(parents=True)
        (tmp_path / "proc/device-tree/model").write_text(model)
    machine = Machine(tmp_path, lambda argv: "aarch64" if argv[0] == "uname" else None)
    assert wants_tensorrt(choice, machine) is wanted  # type: ignore[arg-type]


def test_a_plan_that_serves_is_not_due_until_the_board_changes(candidate: Candidate, tmp_path: Path) -> None:
    """A plan was tried for this state of the board, or it was not; without TensorRT nothing is ever due again."""
    board = TrtBoard(tmp_path)
    ours = planner(tmp_path, board)
    assert ours.due(candidate)
    after = ours.plan(candidate, lambda: False, pytest.fail)
    assert after.note == ""
    assert after.runner.provider.startswith("TensorRT")
    assert np.allclose(after.runner.infer(X).logits, candidate.runner.infer(X).logits, atol=1e-3)
    assert not ours.due(after)
    board.power_mode = "MAXN"
    assert ours.due(after)
    board.library._broken = 999
    assert not ours.due(after), "a board that does not say is taken for unchanged"
    board.library = object()  # type: ignore[assignment]  # a runtime that lacks the calls
    assert not ours.due(after)


def test_a_build_tells_how_far_it_is_and_how_long_it_takes(candidate: Candidate, tmp_path: Path) -> None:
    """At first from its share and the time that passed, later from the builds before; nothing when there is none."""
    board, seen = TrtBoard(tmp_path), list[dict[str, float]]()
    ours = planner(tmp_path, board)

    def look() -> bool:
        seen.append(ours.values())
        board.open.set()
        return False

    for mode in ("15W", "7W"):
        board.open.clear()
        board.power_mode = mode
        ours.plan(candidate, look, pytest.fail)
        assert ours.values() == {}
    assert [one["plan_share"] for one in seen] == [0.5, 0.5]
    assert all(one["plan_left_s"] >= 0 for one in seen)
    assert ours.counts["plan_builds"] == 2


def test_a_build_that_is_not_wanted_any_more_changes_nothing(candidate: Candidate, tmp_path: Path) -> None:
    """The candidate comes back as it was, and is due still."""
    board = TrtBoard(tmp_path)
    board.open.clear()
    ours = planner(tmp_path, board)
    assert ours.plan(candidate, lambda: True, pytest.fail) is candidate
    assert ours.due(candidate)


def test_what_nobody_foresaw_is_one_reason_too(candidate: Candidate, tmp_path: Path) -> None:
    """A TensorRT that raises something of its own: told, and asked to be reported."""
    trt = fake_tensorrt("10.3.0")
    del trt.OnnxParser
    after = planner(tmp_path, TrtBoard(tmp_path, trt)).plan(candidate, lambda: False, pytest.fail)
    assert after.runner is candidate.runner
    assert "unknown way" in after.note
    assert "OnnxParser" in after.note


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotReadyError("TensorRT cannot be imported"), "TensorRT cannot be imported"),
        (AttributeError("undefined symbol"), "TensorRT cannot be used (AttributeError('undefined symbol')); report it"),
    ],
    ids=["known", "unknown"],
)
def test_that_tensorrt_is_not_here_is_found_out_once(
    error: Exception, said: str, candidate: Candidate, tmp_path: Path
) -> None:
    """An import that fails may leak; it is not repeated every minute, and ends no thread."""
    asked: list[int] = []

    def missing(*_: object) -> None:
        asked.append(1)
        raise error

    config = device_config(tmp_path, runner="tensorrt")
    ours = Planner(config, tmp_path.joinpath, missing)  # type: ignore[arg-type]
    after = ours.plan(candidate, lambda: False, pytest.fail)
    assert after.note == f"ONNX Runtime serves: {said}"
    assert not ours.due(after)
    assert asked == [1]


def test_what_a_killed_agent_left_behind_is_swept(candidate: Candidate, tmp_path: Path) -> None:
    """Half a build and half a plan do not fill the disk."""
    plans = tmp_path / "state" / "plans"
    (plans / "building-dead").mkdir(parents=True)
    (plans / "building-dead" / "student.onnx").write_bytes(b"x")
    (plans / "a.plan.part").write_bytes(b"x")
    planner(tmp_path, TrtBoard(tmp_path)).plan(candidate, lambda: False, pytest.fail)
    assert sorted(path.suffix for path in plans.iterdir()) == [".json", ".plan", ".timing"]
