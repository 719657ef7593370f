"""`roadcast bench`: measure, compare with exit codes, draw, read the traces of others."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from msgspec.structs import replace
from onnx import TensorProto, helper

from devices.latency.result import read_result, write_result
from devices.latency.soak import Soak
from edge_protocol.errors import ExitCode
from roadcast import exits
from roadcast.commands.bench import app
from tests.devices.latency.test_traces import TRTEXEC
from tests.fakes.latency import SUBJECT, result


def call(*arguments: object) -> int:
    """Run a command as the command line does and return its exit code."""
    return exits.run(lambda: app([str(a) for a in arguments], prog_name="bench"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """An ONNX file that adds its input to itself, one sample at a time."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 4]) for name in ("x", "y")]
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "g", values[:1], values[1:])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (tmp_path / "model.onnx").write_bytes(made.SerializeToString())
    return tmp_path / "model.onnx"


SHORT = ("--seconds", 0, "--warm-up", 0, "--queries", 30)
"""Too few queries for a warm-up to be found in them, so that all count."""


def test_a_run_writes_what_was_asked_for(model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Result, plot, and the traces of LoadGen and trtexec, which say the same latencies."""
    names = {"json": "r.json", "plot": "r.svg", "loadgen": "r.lg", "trtexec": "r.trt"}
    flags = [part for flag, name in names.items() for part in (f"--{flag}", tmp_path / name)]
    assert call("run", model, *SHORT, *flags) == ExitCode.OK
    shown = capsys.readouterr().out
    assert "ran on CPUExecutionProvider 100%" in shown
    assert "energy" in shown
    found = read_result(tmp_path / "r.json")
    assert found.latency.count == 30
    assert (tmp_path / "r.svg").read_text().startswith("<svg")
    for kind in ("loadgen", "trtexec"):
        assert call("trace", tmp_path / names[kind], "--from", kind, "--json") == ExitCode.OK
        assert json.loads(capsys.readouterr().out)["max_ms"] == pytest.approx(found.latency.max_ms, abs=1e-6)


def test_a_file_without_an_input_is_measured(tmp_path: Path) -> None:
    """Its queries take no memory, and there are as many as of any other."""
    value = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("RandomNormal", [], ["y"], shape=[1])], "g", [], [value])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    (tmp_path / "m.onnx").write_bytes(made.SerializeToString())
    assert call("run", tmp_path / "m.onnx", *SHORT) == ExitCode.OK


@pytest.mark.parametrize("flag", ["--json", "--plot", "--loadgen", "--trtexec"])
def test_a_file_that_cannot_be_written_is_named_before_a_run(
    flag: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """No folder, or a folder itself: nothing is measured for it, not even a missing model or device is looked for."""
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "missing" / "out", tmp_path / "folder"):
        whats: tuple[tuple[object, ...], ...] = ((tmp_path / "none.onnx", *SHORT),)
        whats += (("--device", "d", "--state-dir", tmp_path),) * (flag == "--json")
        for what in whats:
            assert call("run", *what, flag, path) == ExitCode.NOT_READY
            said = capsys.readouterr().err.replace("\n", "")
            assert str(path) in said
            assert "give another file" in said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
@pytest.mark.parametrize("soak", [(), ("--soak", "1s")])
def test_a_run_is_shown_although_the_disk_is_full(
    soak: tuple[str, ...], model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What was measured is on the screen, and the file that is missing in the error."""
    for flag in ("--json", "--plot"):
        assert call("run", model, *SHORT, *soak, flag, "/dev/full") == ExitCode.NOT_READY
        shown = capsys.readouterr()
        assert "p99" in shown.out
        assert "/dev/full: cannot be written" in shown.err


def test_a_comparison_fails_when_a_rule_is_broken(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Within the rule 0, beyond it 3, a rule that cannot be read 78."""
    first, second = tmp_path / "a.json", tmp_path / "b.json"
    write_result(first, result([1_000_000] * 1000))
    write_result(second, result([1_050_000] * 1000))
    assert call("compare", first, second, "--fail-on", "p99:+10%") == ExitCode.OK
    assert "+5.0%" in capsys.readouterr().out
    assert call("compare", first, second, "--fail-on", "p50:+10%", "--fail-on", "p99:+2%") == ExitCode.CHECK_FAILED
    assert "p99 changed by +5.0%" in capsys.readouterr().err.replace("\n", " ")
    assert call("compare", first, second, "--fail-on", "p99") == ExitCode.CONFIG
    assert call("compare", first, tmp_path / "none.json") == ExitCode.NOT_READY


def test_a_comparison_says_what_else_differs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Another board on stderr, while the rows stay what they are; another model exits 3 unless that is meant."""
    first, board, model = tmp_path / "a.json", tmp_path / "b.json", tmp_path / "c.json"
    write_result(first, result([1_000_000] * 1000))
    write_result(board, result([1_000_000] * 1000, subject=replace(SUBJECT, board="another board")))
    write_result(model, result([1_000_000] * 1000, subject=replace(SUBJECT, model="speed nano gru")))
    assert call("compare", first, board, "--fail-on", "p99:+10%", "--json") == ExitCode.OK
    shown = capsys.readouterr()
    assert [row["figure"] for row in json.loads(shown.out)][:2] == ["p50", "p90"]
    assert "not measured alike: board: a board, cores: 2 / another board" in shown.err.replace("\n", " ")
    assert call("compare", first, model) == ExitCode.OK
    assert call("compare", first, model, "--fail-on", "p99:+10%") == ExitCode.CHECK_FAILED
    assert "say --across" in capsys.readouterr().err.replace("\n", " ")
    assert call("compare", first, model, "--fail-on", "p99:+10%", "--across") == ExitCode.OK


@pytest.mark.parametrize(
    ("place", "wrong", "field"),
    [
        (("latency", "percentiles"), [], "`percentiles` are not those of 50, 90, .* at `$.latency`"),
        (("stages", "infer", "percentiles"), [], "at `$.stages"),
        (("latency", "percentiles", 0, "ms"), -1.0, "`latency` holds a time below 0"),
        (("latency", "min_ms"), -1e-3, "`latency` holds a time below 0"),
        (("latency", "max_ms"), 1e308, "at `$.latency.max_ms`"),
        (("raw",), {"starts": [], "latencies": []}, "at `$.raw.latencies`"),
        (("raw", "starts"), [0], "1 `starts` and 1000 `latencies` - at `$.raw`"),
        (("raw", "latencies", 7), -5, "at `$.raw.latencies"),
        (("raw", "latencies", 7), 2**70, "at `$.raw.latencies"),
    ],
)
def test_a_result_that_cannot_be_is_named_with_its_field(
    place: tuple[str | int, ...], wrong: object, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Percentiles that are missing, times that no clock measures, queries that are not there: file, field, advice."""
    good, bad = tmp_path / "good.json", tmp_path / "bad.json"
    write_result(good, result([1_000_000] * 1000))
    document = json.loads(good.read_text())
    *way, last = place
    inner = document
    for step in way:
        inner = inner[step]
    inner[last] = wrong
    bad.write_text(json.dumps(document))
    for command in (("compare", good, bad), ("report", bad, "-o", tmp_path / "r.html")):
        assert call(*command) == ExitCode.NOT_READY
        said = capsys.readouterr().err.replace("\n", " ")
        assert re.search(field.replace("$", r"\$"), said)
        assert "bad.json" in said
        assert "measure again" in said


def test_a_soak_without_a_window_is_no_soak(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A report says so, and of which file."""
    found = Soak(subject=SUBJECT, samples=1, windows=(), findings=())
    write_result(tmp_path / "s.json", found)
    assert call("report", tmp_path / "s.json", "-o", tmp_path / "r.html") == ExitCode.NOT_READY
    assert "at `$.windows`" in capsys.readouterr().err.replace("\n", " ")


def test_results_become_one_page(tmp_path: Path) -> None:
    """Two results, one file; a folder that is not there is named."""
    for name in ("a.json", "b.json"):
        write_result(tmp_path / name, result([1_000_000] * 1000))
    files = (tmp_path / "a.json", tmp_path / "b.json")
    assert call("report", *files, "-o", tmp_path / "r.html") == ExitCode.OK
    assert (tmp_path / "r.html").read_text().startswith("<!doctype html>")
    assert call("report", *files, "-o", tmp_path / "none" / "r.html") == ExitCode.NOT_READY


def test_a_trace_is_summarised_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A table of percentiles; a file that is not there, and one of the other kind, are errors."""
    (tmp_path / "t.json").write_text(TRTEXEC)
    assert call("trace", tmp_path / "t.json", "--from", "trtexec") == ExitCode.OK
    assert "latency\t3.8" in capsys.readouterr().out
    assert call("trace", tmp_path / "t.json", "--from", "loadgen") == ExitCode.NOT_READY
    assert call("trace", tmp_path / "none.json", "--from", "loadgen") == ExitCode.NOT_READY
    capsys.readouterr()
    (tmp_path / "t.json").write_text(TRTEXEC.replace("14.5", "1e308"))
    assert call("trace", tmp_path / "t.json", "--from", "trtexec") == ExitCode.NOT_READY
    assert "t.json: not a file of trtexec" in capsys.readouterr().err.replace("\n", " ")


def test_a_fixed_batch_is_an_error_and_not_a_result(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight samples do not go into a model of batch one; nothing is written."""
    assert call("run", model, "--scenario", "multi-stream", *SHORT, "--json", tmp_path / "r.json") == ExitCode.NOT_READY
    assert "fixed batch of 1" in capsys.readouterr().err.replace("\n", " ")
    assert not (tmp_path / "r.json").exists()
