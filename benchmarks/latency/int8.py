"""INT8 against FP32 in ONNX Runtime, each camera student: what it loses on real vehicles, and what it saves.

CPU time of one sample, one thread, in turn in one run. Students are trained on the clean training images of the vehicle
pack for a short while and calibrated on 256 of them. INT8 goes through the same build and gate as ``roadcast export
build --variant int8-cpu``, and is shipped only when that lets it through: of the pack's 994 test images a quarter
chooses between two calibrations, the others judge. Both, and every layer by how much it hurts when it alone is
quantised, are in the JSON file. PyTorch and sensor students: `benchmarks.latency.torch_vs_ort`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from msgspec import to_builtins
from torch.nn import functional

from benchmarks.harness import Options, Outcome, Target, ratios, run
from benchmarks.latency.torch_vs_ort import full_model, speeds
from broker_server.training import Lesson, Training
from devices.packs import ImagePack, open_pack
from devices.preprocess import Preprocess
from edge_models.samples import Samples
from edge_models.students import Student, build_student
from edge_models.tasks import load_task
from edge_protocol.errors import DataError
from edge_protocol.task import TIERS, ImageInput, TaskSpec, Tier
from export.passes.base import Pass
from export.passes.int8 import METHODS, Method, to_int8
from export.passes.sensitivity import Sensitivity, sensitivity
from export.passes.simplify import simplify
from export.passes.variants import VariantReport, build_variant, cpu_slowdown
from roadcast.data.find import find_data_dir

PACK = "vehicle6_64_jpeg.npz"
MOST_LOST = 0.005
CALIBRATED, BATCH, RATE = 256, 64, 3e-3
F4 = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Data:
    """The vehicle pack as the students take it: to train and calibrate on, and to judge on."""

    train: F4
    labels: npt.NDArray[np.int64]
    test: F4
    held: Samples


def measure(options: Options) -> Outcome:
    """Compare INT8 with FP32 in ONNX Runtime: accuracy on real vehicles, and CPU time."""
    torch.set_num_threads(1)
    repeats, steps = (40, 200) if options.quick else (300, 1200)
    data = _data(load_task("vehicle"))
    rows: list[tuple[object, ...]] = [
        (
            *("student", "int8/fp32", "by minmax", "by percentile", "chosen", "judged", "fp32 acc.", "int8 acc."),
            *("agreement", "dB", "most sensitive layer", "dB alone", "int8 shipped"),
        )
    ]
    figures: dict[str, object] = {}
    lost, slower = [0.0], [0.0]
    for tier in TIERS:
        spec = load_task("vehicle")
        student = _trained(spec, tier, data, steps)
        full, parts = full_model(spec, tier, student, data.train[:4]), data.train[:CALIBRATED]
        held = data.test, data.held
        report = build_variant("int8-cpu", spec, full, calibration=parts, held=held, slowdown=cpu_slowdown)[1]
        symmetric = build_variant("int8-trt", spec, full, calibration=parts, held=held)[1]
        method: Method = "percentile" if report.method == "percentile" else "minmax"
        int8 = to_int8("cpu", method, parts)(simplify(full)[0])[0]
        found = speeds({}, {"fp32": full, "int8": int8}, data.test[:1], repeats)
        ratio = ratios(found["int8"], found["fp32"])
        shipped = not report.problems
        lost += [one.gate.loss for one in (report, symmetric) if not one.problems]
        if shipped:
            slower.append(ratio.median)
        ranked = sensitivity(simplify(full)[0], parts[:BATCH], partial(_alone, method, parts[:BATCH]))
        rows.append((f"vehicle {tier}", ratio.median, *_scores(report), *_worst(ranked), "yes" if shipped else "no"))
        told = "no" if symmetric.problems else "yes"
        rows.append((f"vehicle {tier}, for TensorRT", "", *_scores(symmetric), "", "", told))
        figures[f"vehicle_{tier}"] = {
            "int8": ratio,
            "loss": report.gate.loss,
            "shipped": shipped,
            "report": to_builtins(report),
            "sensitivity": to_builtins(ranked),
            "for_tensorrt": to_builtins(symmetric),
        }
    targets = (
        Target("accuracy lost by a shipped INT8 student, at most over the three, of both kinds", max(lost), MOST_LOST),
        Target("CPU time of a shipped INT8 student over FP32, at most over the three", max(slower), 1.0),
    )
    count = len(slower) - 1
    headline = (
        f"INT8 is shipped for {count} of 3 camera students: at most {max(slower):.2f} times the CPU time of FP32, "
        f"at most {100 * max(lost):.2f} points lost"
    )
    return Outcome(headline, figures, targets, rows)


def _alone(method: Method, samples: F4, layer: str) -> Pass:
    return to_int8("cpu", method, samples, only=[layer])


def _scores(report: VariantReport) -> tuple[object, ...]:
    gate, tried = report.gate, report.calibrations
    chosen = (*(tried[by].after for by in METHODS), report.method)
    return *chosen, gate.samples, gate.before, gate.after, gate.agreement, gate.sqnr_db


def _worst(ranked: Sequence[Sensitivity]) -> tuple[str, float]:
    return ranked[0].weight, ranked[0].sqnr_db


def _data(spec: TaskSpec) -> Data:
    place = find_data_dir().path
    if place is None or not (place / PACK).exists():
        raise DataError(f"this benchmark needs {PACK}; name its folder in $ROADCAST_DATA")
    pack = open_pack(place / PACK)
    assert isinstance(pack, ImagePack)
    assert isinstance(spec.input, ImageInput)
    preprocess = Preprocess(spec.input)
    raw = np.stack([preprocess.raw(image) for image in pack.images])
    x, train = preprocess.batch(raw), np.random.default_rng(0).permutation(np.flatnonzero(pack.split == 0))
    test = pack.split == 1
    return Data(x[train], pack.labels[train], x[test], Samples.of(raw[test], pack.labels[test]))


def _trained(spec: TaskSpec, tier: Tier, data: Data, steps: int) -> Student:
    """A student of the clean training images, after so many steps of the distiller's own training."""
    training = Training(build_student(spec, tier), spec, torch.device("cpu"))
    lesson = Lesson(torch.from_numpy(data.train), torch.from_numpy(data.labels), functional.cross_entropy, 1.0, BATCH)
    for step in range(steps):
        training.learn([lesson], rate=RATE * (1 - step / steps), ema=0.98, seed=1, vary=False)
    return training.average


if __name__ == "__main__":
    raise SystemExit(run(measure))
