"""``roadcast export``: turn a student into the files of a release, look into them, and check them."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import typer

from edge_protocol.errors import ArtifactError, CheckFailedError, ConfigError, DeploymentError, ExportError
from edge_protocol.task import TaskSpec, Tier
from roadcast.output import JsonFlag, emit, progress, table, warn

if TYPE_CHECKING:
    from edge_models.students import Student
    from export.passes.variants import Variant, VariantReport

app = typer.Typer(no_args_is_help=True, help="Turn a student into the files of a release, and check them.")
Exported = Annotated[Path, typer.Argument(metavar="PATH", help="Folder that 'export build' wrote, or an ONNX file.")]


@app.command()
def build(
    task: Annotated[str, typer.Argument(help="Task name, or a YAML file.")],
    *,
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Folder to write into.", file_okay=False)],
    tier: Annotated[Tier, typer.Option(help="Which boards it is for.")] = "nano",
    weights: Annotated[
        Path | None, typer.Option(metavar="STATE", help="State dict as safetensors; fresh weights without it.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of fresh weights.")] = 0,
    payload: Annotated[Literal["int8", "fp16"], typer.Option(help="Weights in INT8 steps, or in fp16.")] = "int8",
    base: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Build of the release before: its scales stay, deltas are small.")
    ] = None,
    variant: Annotated[
        list[str] | None, typer.Option(help="fp16, int8-cpu or int8-trt: build it too, within its limits; repeat.")
    ] = None,
    samples: Annotated[
        Path | None, typer.Option(metavar="PACK", help="Calibrate and judge variants on it; simulated without.")
    ] = None,
    loss: Annotated[float, typer.Option(help="Most that a variant may lose: points of accuracy, % of an error.")] = 0.5,
    any_speed: Annotated[bool, typer.Option(help="Keep INT8 for CPUs although it is slower here.")] = False,
    json: JsonFlag = False,
) -> None:
    """Export a student, check it against PyTorch, and write template, weights, golden answers and state.

    A variant that does not keep its limits is not written, and the exit code is 3.
    """
    import numpy as np
    from safetensors.torch import save_file

    from edge_models.tasks import load_task
    from export import build_artifact
    from export.folder import STATE, WEIGHTS, read_part, write_artifact
    from export.passes.folder import forget_variants
    from export.passes.variants import VARIANTS

    if unknown := set(variant or ()) - set(VARIANTS):
        raise ConfigError(f"--variant {min(unknown)}: there are {', '.join(VARIANTS)}")
    spec = load_task(task)
    student = _student(spec, tier, weights, seed)
    progress(f"exporting {spec.name} {tier}: {spec.students[tier]}")
    inputs = np.random.default_rng(seed).normal(size=(4, *spec.input.shape)).astype(np.float32)
    artifact = build_artifact(spec, tier, student, inputs, form=payload, base=read_part(base, WEIGHTS) if base else b"")
    forget_variants(out)
    write_artifact(out, artifact, spec, tier)
    save_file(student.state_dict(), out / STATE)
    reports = _variants(out, spec, variant or [], samples, loss / 100, any_speed=any_speed)
    emit(_facts(out) | {"variants": {one.variant: _outcome(one) for one in reports}}, json, _rows)
    if failed := [one.reason for one in reports if one.problems]:
        raise CheckFailedError("; ".join(failed))


@app.command()
def compare(
    first: Annotated[Path, typer.Argument(help="Folder of 'export build', or ONNX file: the reference.")],
    second: Annotated[Path, typer.Argument(help="What is compared with it.")],
    *,
    task: Annotated[str, typer.Option(help="Task name, or a YAML file.")],
    samples: Annotated[Path | None, typer.Option(metavar="PACK", help="Labelled; simulated without.")] = None,
    loss: Annotated[float, typer.Option(help="Most that the second may lose.")] = 0.5,
    json: JsonFlag = False,
) -> None:
    """Compare the answers of two exported students on labelled samples; exit 3 when the second is off or worse."""
    import msgspec

    from edge_models.tasks import load_task
    from export.passes.folder import self_contained
    from export.passes.gates import Limits, judge
    from roadcast.data.samples import samples_for

    spec = load_task(task)
    _, held = samples_for(spec, samples)
    gate = judge(spec, self_contained(first), self_contained(second), *held, Limits(loss=loss / 100))
    emit(msgspec.to_builtins(gate), json, _rows)
    if gate.problems:
        raise CheckFailedError(f"{second}: {'; '.join(gate.problems)}")


@app.command()
def check(
    path: Exported,
    *,
    runner: Annotated[
        Literal["ort", "trt", "rtx"],
        typer.Option(help="ONNX Runtime on the CPU; TensorRT; or TensorRT's parser and builder, on the CPU."),
    ] = "ort",
    json: JsonFlag = False,
) -> None:
    """Load the files as a device would and compare their answers; exit 3 when they differ.

    A single ONNX file has no golden answers: whether it loads is all that is checked.
    """
    from export.folder import GOLDEN, TEMPLATE, WEIGHTS, read_part

    try:
        if runner == "rtx":
            found = _in_rtx(path)
        elif path.is_dir():
            template, weights, golden = (read_part(path, name) for name in (TEMPLATE, WEIGHTS, GOLDEN))
            found = {"golden": "match", "provider": _golden(runner, template, weights, golden)}
            found["parity"] = _parity(path, template, weights)
        else:
            found = _file(path, runner)
    except (ArtifactError, DeploymentError, ExportError) as error:
        raise CheckFailedError(f"{path}: {error}") from error
    emit(found, json, _rows)


@app.command()
def inspect(path: Exported, *, json: JsonFlag = False) -> None:
    """Show what is in an artifact or an ONNX file: student, weights with shapes, opset, operators, number types."""
    import msgspec

    from export.folder import read_part
    from export.graph import contents

    if path.is_dir():
        emit(_facts(path), json, _rows)
        return
    model = read_part(path.parent, path.name)
    emit({"bytes": len(model)} | msgspec.to_builtins(contents(model)), json, _rows)


def _variants(
    folder: Path, spec: TaskSpec, names: list[str], samples: Path | None, loss: float, *, any_speed: bool
) -> list[VariantReport]:
    if not names:
        return []
    from export.passes.folder import write_variant
    from export.passes.gates import Limits
    from export.passes.variants import cpu_slowdown
    from roadcast.data.samples import samples_for

    if samples is None:
        warn("variants are calibrated and judged on simulated samples: name a pack of real ones with --samples")
    calibration, held = samples_for(spec, samples)
    limits, slowdown = Limits(loss=loss), None if any_speed else cpu_slowdown
    found = []
    for name in names:
        progress(f"building {name}")
        chosen = cast("Variant", name)
        found.append(
            write_variant(folder, chosen, calibration=calibration, held=held, limits=limits, slowdown=slowdown)
        )
    return found


def _outcome(report: VariantReport) -> str:
    """A variant in one line."""
    if report.problems:
        return report.reason
    gate, noise = report.gate, report.gate.sqnr_db
    speed = "" if report.slowdown is None else f", {report.slowdown:.2f} times the CPU time of FP32 here"
    how = f" (calibrated by {report.choice})" if report.choice else ""
    decibels = "no difference" if noise is None else f"SQNR {noise:.1f} dB"
    return f"written{how}: {gate.headline} {gate.before:.4g} to {gate.after:.4g}, {decibels}{speed}"


def _student(spec: TaskSpec, tier: Tier, state: Path | None, seed: int) -> Student:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    from edge_models.students import build_student

    student = build_student(spec, tier, seed)
    if state is not None:
        try:
            student.load_state_dict(load_file(state))
        except (OSError, SafetensorError, RuntimeError) as error:
            raise ConfigError(
                f"--weights {state} does not fit {spec.name} {tier} ({spec.students[tier]}): {error}"
            ) from error
    return student


def _golden(runner: str, template: bytes, weights: bytes, golden: bytes) -> str:
    """Check golden answers, and say what gave them."""
    from devices.runners.ort_runner import OrtRunner
    from export.golden import check_golden
    from export.in_tensorrt import workshop_here

    if runner == "trt":
        workshop = workshop_here(lambda phase, share: progress(f"TensorRT: {phase} {share:.0%}"))
        with workshop.open(template, weights, golden) as loaded:
            return loaded.provider
    with OrtRunner(template, weights) as student:
        check_golden(student, golden)
        return student.provider


def _in_rtx(path: Path) -> dict[str, Any]:
    """What TensorRT's parser and builder make of it, with no GPU."""
    import msgspec

    from export.folder import TEMPLATE, WEIGHTS, read_part
    from export.in_rtx import check_in_rtx

    places = [path / TEMPLATE, path / WEIGHTS] if path.is_dir() else [path]
    found: dict[str, Any] = msgspec.to_builtins(check_in_rtx(*(read_part(p.parent, p.name) for p in places)))
    return found


def _file(path: Path, runner: str) -> dict[str, Any]:
    """Whether a self-contained file is valid, and answers batches of one and two."""
    import numpy as np

    from devices.runners.onnx_file import OnnxFile
    from export.folder import read_part
    from export.passes.base import checked

    if runner == "trt":
        raise ConfigError("--runner trt needs a folder of 'roadcast export build': its golden answers judge the plan")
    model = read_part(path.parent, path.name)
    checked(model)
    with OnnxFile(model) as file:
        for batch in (1, 2):
            file.infer(file.inputs(batch, np.random.default_rng(0)))
        return {"loads": "yes", "provider": file.session.get_providers()[0]}


def _parity(folder: Path, template: bytes, weights: bytes) -> str:
    """Compare with PyTorch where the state dict and torch are at hand."""
    from export.folder import STATE, read_card

    if not (folder / STATE).is_file():
        return f"not checked: no {STATE}"
    if find_spec("torch") is None:
        return "not checked: torch is not installed"
    import numpy as np

    from export.parity import check_parity

    card = read_card(folder)
    if card.precision != "fp32":
        return f"not checked: {card.precision} is judged when it is built, see report.json"
    student = _student(card.task, card.tier, folder / STATE, seed=0)
    inputs = np.random.default_rng(0).normal(size=(4, *card.task.input.shape)).astype(np.float32)
    report = check_parity(student, template, weights, inputs)
    return f"match: features within {report.features:.2g}, logits within {report.logits:.2g}"


def _facts(folder: Path) -> dict[str, Any]:
    from export.folder import GOLDEN, TEMPLATE, WEIGHTS, read_card, read_part
    from export.graph import contents, weight_shapes

    card = read_card(folder)
    template = read_part(folder, TEMPLATE)
    inside = contents(template)
    return {
        "task": card.task.name,
        "tier": card.tier,
        "student": card.task.students[card.tier],
        "precision": card.precision,
        "parameters": card.parameters,
        "opset": inside.opset,
        "operators": inside.operators,
        "numbers": inside.numbers,
        "bytes": {name: len(read_part(folder, name)) for name in (TEMPLATE, WEIGHTS, GOLDEN)},
        "parity": card.parity,
        "weights": {name: list(shape) for name, shape in weight_shapes(template).items()},
    }


def _rows(facts: dict[str, Any]) -> Any:  # noqa: ANN401 - rich's renderable, loaded only when drawn
    rows = []
    for name, value in facts.items():
        rows += (
            [(f"{name} {key}", inner) for key, inner in value.items()] if isinstance(value, dict) else [(name, value)]
        )
    return table("", ("what", "value"), rows)
