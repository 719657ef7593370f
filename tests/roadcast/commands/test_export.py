"""`roadcast export`: files a device can run, checks that can fail, and exit codes."""

from __future__ import annotations

import json
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors.torch import load_file, save_file

from devices.packs import ImagePack, save_pack
from edge_models.tasks import load_task, plugin_of
from edge_protocol.errors import CheckFailedError, ExitCode
from roadcast import exits
from roadcast.commands.export import app
from roadcast.commands.release import check_answers

torch.set_num_threads(1)


def call(*arguments: object) -> int:
    """Run a command as the command line does and return its exit code."""
    return exits.run(lambda: app([str(a) for a in arguments], prog_name="export"))


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported student of the speed task."""
    folder = tmp_path_factory.mktemp("export") / "speed"
    assert call("build", "speed", "--tier", "nano", "--seed", 3, "-o", folder) == ExitCode.OK
    return folder


@pytest.fixture
def copy(built: Path, tmp_path: Path) -> Path:
    """A copy of its folder, to be damaged."""
    for path in built.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_build_then_check_then_inspect(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What was built passes its check, against golden answers and PyTorch, and can be looked into."""
    assert call("check", built, "--json") == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert found["golden"] == "match"
    assert found["provider"] == "CPUExecutionProvider"
    assert found["parity"].startswith("match")
    assert call("inspect", built, "--json") == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert (facts["task"], facts["tier"], facts["student"]) == ("speed", "nano", "mlp")
    assert facts["weights"]["head.weight"] == [6, 64]
    assert facts["bytes"]["template.onnx"] < facts["bytes"]["weights.safetensors"]


def test_a_build_beside_the_release_before_keeps_its_scales(built: Path, tmp_path: Path) -> None:
    """Then its delta is small; --payload fp16 writes no scale."""
    state = load_file(built / "state.safetensors")
    save_file({name: 1.01 * tensor for name, tensor in state.items()}, tmp_path / "state.safetensors")
    fixed = "build", "speed", "--weights", tmp_path / "state.safetensors", "-o"
    assert call(*fixed, tmp_path / "next", "--base", built) == ExitCode.OK
    assert call(*fixed, tmp_path / "alone") == ExitCode.OK
    assert call(*fixed, tmp_path / "fp16", "--payload", "fp16") == ExitCode.OK
    before, after, alone, half = (
        load_file(folder / "weights.safetensors")
        for folder in (built, tmp_path / "next", tmp_path / "alone", tmp_path / "fp16")
    )
    scales = [name for name in before if name.endswith(":scale")]
    assert scales
    assert all(torch.equal(before[name], after[name]) for name in scales)
    assert not any(torch.equal(before[name], alone[name]) for name in scales)
    assert set(half) == {name for name in before if name not in scales}
    assert {tensor.dtype for tensor in half.values()} == {torch.float16}
    assert call(*fixed, tmp_path / "lost", "--base", tmp_path) == ExitCode.NOT_READY


def test_a_table_is_shown_without_json(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a pipe the same facts are tab-separated lines."""
    assert call("inspect", built) == ExitCode.OK
    assert "opset\t18" in capsys.readouterr().out


def test_a_trained_state_is_exported(built: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With --weights the given state is what gets exported, and the template stays the same."""
    state = load_file(built / "state.safetensors")
    state["head.bias"] += 1
    save_file(state, tmp_path / "trained.safetensors")
    out = tmp_path / "out"
    trained = tmp_path / "trained.safetensors"
    assert call("build", "speed", "--tier", "nano", "--weights", trained, "-o", out, "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["parameters"] > 0
    assert (out / "template.onnx").read_bytes() == (built / "template.onnx").read_bytes()
    assert (out / "weights.safetensors").read_bytes() != (built / "weights.safetensors").read_bytes()


def test_a_damaged_file_fails_the_check(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A truncated payload exits 3 and says which folder."""
    weights = copy / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-4])
    assert call("check", copy) == ExitCode.CHECK_FAILED
    assert str(copy.name) in capsys.readouterr().err.replace("\n", "")


def test_a_state_that_is_not_what_was_exported_fails_the_check(copy: Path) -> None:
    """A state dict changed after the export no longer agrees with the files: exit 3."""
    state = load_file(copy / "state.safetensors")
    save_file({**state, "head.bias": state["head.bias"] + 1}, copy / "state.safetensors")
    assert call("check", copy) == ExitCode.CHECK_FAILED


def test_without_a_state_the_check_says_what_it_left_out(copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A device has no state dict: golden answers are checked, parity is named as not checked."""
    (copy / "state.safetensors").unlink()
    assert call("check", copy, "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["parity"] == "not checked: no state.safetensors"


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file stands where the folder should be."""
    (tmp_path / "file").touch()
    assert call("build", "speed", "--tier", "nano", "-o", tmp_path / "file" / "in") == ExitCode.NOT_READY
    assert "cannot be written" in capsys.readouterr().err


def test_what_is_missing_or_wrong_has_its_own_code(built: Path, tmp_path: Path) -> None:
    """No such task, a state of another student, an empty folder."""
    assert call("build", "sped", "-o", tmp_path) == ExitCode.CONFIG
    state = built / "state.safetensors"
    assert call("build", "speed", "--tier", "base", "--weights", state, "-o", tmp_path) == ExitCode.CONFIG
    assert call("check", tmp_path) == ExitCode.NOT_READY


@pytest.fixture(scope="module")
def camera(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported camera student and a pack of images that it has never seen, in one folder."""
    folder = tmp_path_factory.mktemp("variants")
    spec = load_task("vehicle")
    drawn = plugin_of(spec).simulate(spec, np.random.default_rng(3), 90)
    pack = ImagePack.of(drawn.raw.astype(np.uint8), labels=drawn.targets, classes=spec.labels)
    save_pack(folder / "pack.npz", pack, title="simulated")
    return folder


def test_variants_are_written_beside_the_student(camera: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """INT8 as artifacts that pass their own check, FP16 as one file, each with its report."""
    out, flags = camera / "small", ("--any-speed", "--loss", 100, "--samples", camera / "pack.npz", "--json")
    names = ("--variant", "int8-cpu", "--variant", "int8-trt", "--variant", "fp16")
    assert call("build", "vehicle", "--tier", "small", "-o", out, *names, *flags) == ExitCode.OK
    said = json.loads(capsys.readouterr().out)["variants"]
    assert all(text.startswith("written") for text in said.values())
    for name, numbers in (("int8-cpu", {"int8", "uint8", "int32", "float"}), ("int8-trt", {"int8", "float"})):
        assert call("check", out / name) == ExitCode.OK
        capsys.readouterr()
        assert call("inspect", out / name, "--json") == ExitCode.OK
        facts = json.loads(capsys.readouterr().out)
        assert facts["precision"] == name
        assert set(facts["numbers"]) - {"int64"} == numbers
        assert facts["operators"]["QuantizeLinear"] > 10
    (camera / "release").mkdir()
    (camera / "release" / "small").symlink_to(out / "int8-cpu")
    check_answers(camera / "release")
    (camera / "whole").mkdir()
    (camera / "whole" / "small").symlink_to(out)
    check_answers(camera / "whole")  # with its variants
    golden = (out / "int8-cpu" / "golden.safetensors").read_bytes()
    (out / "int8-cpu" / "golden.safetensors").write_bytes((out / "golden.safetensors").read_bytes())
    with pytest.raises(CheckFailedError, match=r"small/int8-cpu: .* is off the golden"):
        check_answers(camera / "whole")
    (out / "int8-cpu" / "golden.safetensors").write_bytes(golden)
    for name in ("int8-cpu", "int8-trt", "fp16"):
        assert json.loads((out / name / "report.json").read_text())["gate"]["samples"] == 28
    file = out / "fp16" / "fp16.onnx"
    onnx.checker.check_model(onnx.load(file))
    assert call("check", file) == ExitCode.OK
    capsys.readouterr()
    assert call("inspect", file, "--json") == ExitCode.OK
    facts = json.loads(capsys.readouterr().out)
    assert facts["inputs"] == {"input": ["batch", 3, 32, 32]}
    assert facts["numbers"]["float16"] > 50_000
    assert call("check", file, "--runner", "trt") == ExitCode.CONFIG
    other = ("--task", "vehicle", "--samples", camera / "pack.npz")
    assert call("compare", out, out / "int8-cpu", *other, "--loss", 100, "--json") == ExitCode.OK
    assert json.loads(capsys.readouterr().out)["sqnr_db"] > 15
    assert call("compare", out / "int8-cpu", out / "int8-trt", *other, "--loss", 100) == ExitCode.OK
    assert call("compare", out, out / "fp16" / "fp16.onnx", *other) == ExitCode.OK


def test_a_variant_beyond_its_limits_leaves_only_its_report(camera: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """No loss can be below minus 100 points: exit 3, the reason on stderr, and what an earlier build left is gone."""
    out = camera / "small"
    (out / "int8-cpu").mkdir(parents=True, exist_ok=True)
    (out / "int8-cpu" / "template.onnx").write_bytes(b"old")
    flags = ("--variant", "int8-cpu", "--any-speed", "--loss", -101)
    assert call("build", "vehicle", "--tier", "small", "-o", out, *flags) == ExitCode.CHECK_FAILED
    said = capsys.readouterr().err.replace("\n", " ")
    assert "simulated samples" in said
    assert "int8-cpu is not written: accuracy" in said
    assert [path.name for path in (out / "int8-cpu").iterdir()] == ["report.json"]
    assert json.loads((out / "int8-cpu" / "report.json").read_text())["blame"][0]["weight"].startswith("trunk.")


def test_two_students_of_different_weights_do_not_compare(built: Path, copy: Path) -> None:
    """Other weights are other answers: exit 3. A payload without a tensor is an error of its own."""
    other = copy / "other"
    assert call("build", "speed", "--tier", "nano", "--seed", 5, "-o", other) == ExitCode.OK
    assert call("compare", built, other, "--task", "speed") == ExitCode.CHECK_FAILED
    assert call("compare", built, copy / "none.onnx", "--task", "speed") == ExitCode.NOT_READY


@pytest.mark.parametrize(
    ("data", "code", "said"),
    [
        (b"no model", ExitCode.CHECK_FAILED, "not an ONNX file"),
        (b"", ExitCode.CHECK_FAILED, "has no layer: truncated?"),
        (None, ExitCode.NOT_READY, "No such file"),
    ],
    ids=["garbage", "empty", "none"],
)
def test_a_file_that_is_none_is_named(
    data: bytes | None, code: ExitCode, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By check, and by inspect with its own code."""
    file = tmp_path / "a.onnx"
    if data is not None:
        file.write_bytes(data)
    assert call("check", file) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert call("inspect", file) != ExitCode.OK


@pytest.mark.skipif(find_spec("tensorrt_rtx") is not None, reason="tensorrt-rtx is installed")
def test_without_tensorrts_parser_the_way_to_it_is_said(built: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """An environment that lacks it: exit 4."""
    assert call("check", built, "--runner", "rtx") == ExitCode.NOT_READY
    assert "pip install roadcast[rtx]" in " ".join(capsys.readouterr().err.split())


@pytest.mark.rtx
@pytest.mark.skipif(find_spec("tensorrt_rtx") is None, reason="tensorrt-rtx is not installed: 'make rtx' does it")
@pytest.mark.filterwarnings("default::DeprecationWarning")
def test_tensorrts_parser_takes_what_was_built(built: Path, copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A folder is judged without a GPU; a payload of another one is exit 3."""
    assert call("check", built, "--runner", "rtx", "--json") == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert (found["weights"], found["fixed"]) == (14, [])
    save_file({}, copy / "weights.safetensors")
    assert call("check", copy, "--runner", "rtx") == ExitCode.CHECK_FAILED


def test_an_unknown_variant_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    """The message lists what there is."""
    assert call("build", "speed", "--variant", "int4", "-o", tmp_path / "out") == ExitCode.CONFIG
    assert not (tmp_path / "out").exists()
