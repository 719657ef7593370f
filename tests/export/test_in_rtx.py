"""TensorRT's own parser and builder, on a CPU, take every student that is exported, and say why where they do not."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import onnx
import pytest

from devices.runners.payload import read_payload
from edge_models.tasks import load_task
from edge_protocol.errors import IncompatibleError
from edge_protocol.task import Tier
from export.graph import contents, inlined, outlined
from export.in_rtx import check_in_rtx
from export.passes.base import Pass, apply
from export.passes.half import to_half
from export.passes.int8 import Target, to_int8
from export.passes.simplify import simplify
from tests.fakes.small_centre import Files, artifact_files

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx is not installed: 'make rtx' does it")
pytestmark = [pytest.mark.rtx, pytest.mark.filterwarnings("default::DeprecationWarning")]
STUDENTS: tuple[tuple[str, Tier], ...] = tuple(
    (task, tier) for task in ("vehicle", "speed") for tier in ("nano", "small", "base")
)


def passed(files: Files, task: str, recipe: Pass | Target) -> bytes:
    """A variant as one file, calibrated on noise: what it computes does not matter here, its types do."""
    x = np.random.default_rng(0).normal(size=(16, *load_task(task).input.shape)).astype(np.float32)
    last = to_int8(recipe, "minmax", x) if isinstance(recipe, str) else recipe
    return apply([simplify, last], inlined(files.template, files.weights))[0]


@lru_cache
def quantised(task: str, tier: Tier, target: Target) -> tuple[bytes, bytes]:
    """An INT8 variant as a device gets it: template and payload."""
    return outlined(passed(artifact_files(task, tier), task, target))


@pytest.mark.parametrize(("task", "tier"), STUDENTS)
def test_every_student_is_taken_and_every_weight_replaceable(task: str, tier: Tier) -> None:
    """Template and payload as a device lays them out: parsed, a plan built, no weight that a refit cannot reach."""
    files = artifact_files(task, tier)
    found = check_in_rtx(files.template, files.weights)
    assert found.weights == len(read_payload(files.weights))
    assert found.fixed == ()
    assert found.layers == {}
    assert found.plan_bytes > 10_000


@pytest.mark.parametrize(("task", "tier"), STUDENTS)
def test_every_int8_variant_for_tensorrt_is_taken(task: str, tier: Tier) -> None:
    """S8S8 with biases in FP32: every pair of the file is one of the network, and only zero points are fixed."""
    template, weights = quantised(task, tier, "trt")
    found, pairs = check_in_rtx(template, weights), contents(template).operators
    assert found.layers == {"QUANTIZE": pairs["QuantizeLinear"], "DEQUANTIZE": pairs["DequantizeLinear"]}
    assert all(name.endswith("zero_point") for name in found.fixed)
    assert found.plan_bytes > 10_000


@pytest.mark.parametrize(
    ("task", "said"), [("vehicle", "Non-zero zero point"), ("speed", r"_DequantizeLinear.* input has type Int32")]
)
def test_int8_for_cpus_is_refused_with_the_way_out(task: str, said: str) -> None:
    """Unsigned activations with a zero point, biases in INT32: the layer is named, and the variant that is taken."""
    with pytest.raises(IncompatibleError, match=rf"does not take layer .*{said}.*--variant int8-trt"):
        check_in_rtx(*quantised(task, "nano", "cpu"))


@pytest.mark.parametrize("task", ["vehicle", "speed"])
def test_fp16_is_taken_as_one_file(task: str) -> None:
    """Without a payload: the weights are in it."""
    assert check_in_rtx(passed(artifact_files(task), task, to_half)).weights == 0


def changed(template: bytes, *, operator: str = "", batch: int | None = None) -> bytes:
    """A template with an operator that nobody has, or a fixed batch."""
    model = onnx.load_from_string(template)
    if operator:
        model.graph.node[3].op_type, model.graph.node[3].name = operator, "trunk.odd"
    if batch is not None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = batch
        del model.graph.value_info[:]
    return bytes(model.SerializeToString())


def test_an_operator_that_tensorrt_lacks_is_named() -> None:
    """With its layer, and what to do."""
    files = artifact_files()
    with pytest.raises(IncompatibleError, match=r"layer 'trunk.odd' \(Frobnicate\): .*replace the operator"):
        check_in_rtx(changed(files.template, operator="Frobnicate"), files.weights)


def test_a_fixed_batch_is_refused() -> None:
    """As the real parser sees it; the message says how to export it."""
    files = artifact_files()
    with pytest.raises(IncompatibleError, match="fixed batch of 1: export it with a dynamic one"):
        check_in_rtx(changed(files.template, batch=1), files.weights)


@pytest.mark.parametrize("cut", [0, 1, 100, 3000, -1], ids=str)
def test_a_truncated_file_is_no_crash(cut: int) -> None:
    """Refused as no ONNX file of ours, before the parser sees it."""
    files = artifact_files()
    with pytest.raises(IncompatibleError, match="not an ONNX file"):
        check_in_rtx(files.template[:cut], files.weights)


def test_a_payload_of_another_student_is_refused() -> None:
    """Before the parser sees it."""
    with pytest.raises(IncompatibleError, match="payload for another template"):
        check_in_rtx(artifact_files().template, artifact_files("speed").weights)
