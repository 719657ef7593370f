"""Payloads are laid out where a template wants them, and refused where they do not fit."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from safetensors.numpy import load, save

from devices.runners.payload import lay_out, places, read_payload
from edge_protocol.errors import IncompatibleError, StoreError
from edge_protocol.manifest import SCALE
from tests.fakes.student import PAYLOAD, TEMPLATE, WEIGHTS, graph


def test_onnx_reads_what_was_laid_out(tmp_path: Path) -> None:
    """The onnx package finds every weight beside the template, with the payload's values."""
    model = onnx.load(str(lay_out(tmp_path, TEMPLATE, PAYLOAD)))
    found = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    assert found.keys() == WEIGHTS.keys()
    assert all(np.array_equal(found[name], array.astype(np.float32)) for name, array in WEIGHTS.items())


def test_a_file_that_holds_its_weights_needs_no_payload(tmp_path: Path) -> None:
    """A self-contained file is laid out alone, and a payload for it is one too many."""
    full = onnx.load(str(lay_out(tmp_path, TEMPLATE, PAYLOAD))).SerializeToString()
    assert places(full) == {}
    assert lay_out(tmp_path, full, save({}), "full.onnx").read_bytes() == full
    with pytest.raises(IncompatibleError, match="knows no '"):
        lay_out(tmp_path, full, PAYLOAD)


Change = Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: {**w, "conv.weight": w["conv.weight"][:32]}, r"another template: 'conv.weight' is \(32,"),
        (lambda w: {"conv.weight": w["conv.weight"]}, "another template: the payload lacks 'conv.bias'"),
        (lambda w: {**w, "bogus": np.zeros(3, np.float16)}, "another template: the template knows no 'bogus'"),
        (lambda w: {**w, "head.weight": np.zeros((64, 5), np.int8)}, "'head.weight' is int8, the template takes flo"),
        (lambda w: {**w, "head.weight": w["head.weight"] * np.float16(np.nan)}, "'head.weight'.*not a finite number"),
    ],
)
def test_a_payload_of_another_template_is_refused(change: Change, message: str, tmp_path: Path) -> None:
    """Shape, missing, unknown, kind of number, not finite: named, and nothing is written."""
    with pytest.raises(IncompatibleError, match=message):
        lay_out(tmp_path, TEMPLATE, save(change(load(PAYLOAD))))
    assert not list(tmp_path.iterdir())


def in_steps(scale: np.ndarray | None = None, steps: np.ndarray | None = None) -> dict[str, np.ndarray]:
    """The payload with the convolution in whole steps of a scale."""
    tensors = load(PAYLOAD)
    shape = tensors["conv.weight"].shape
    fitting = np.full((shape[0], *(1 for _ in shape[1:])), 0.5, np.float32)
    counted = np.arange(np.prod(shape)).reshape(shape).astype(np.int8) if steps is None else steps
    return {**tensors, "conv.weight": counted, "conv.weight" + SCALE: fitting if scale is None else scale}


def test_steps_of_a_scale_are_read_as_the_weight() -> None:
    """Each channel times its own scale, FP32; the scale itself is no weight."""
    tensors = in_steps()
    tensors["conv.weight" + SCALE][1] = 2.0
    read = read_payload(save(tensors))
    assert read.keys() == WEIGHTS.keys()
    assert read["conv.weight"].dtype == np.float32
    assert np.array_equal(read["conv.weight"][0], 0.5 * tensors["conv.weight"][0].astype(np.float32))
    assert np.array_equal(read["conv.weight"][1], 2.0 * tensors["conv.weight"][1].astype(np.float32))


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        (in_steps(scale=np.ones((1, 1, 1, 1), np.float32)), "'conv.weight' and its scale .* do not belong together"),
        (in_steps(scale=np.ones(1 << 16, np.float32)), "do not belong together"),
        (in_steps(scale=np.array(1, np.float32)), "do not belong together"),
        (in_steps(scale=np.ones_like(in_steps()["conv.weight" + SCALE], np.int32)), "do not belong together"),
        (in_steps(steps=load(PAYLOAD)["conv.weight"]), "do not belong together"),
        ({"gone" + SCALE: np.ones((2, 1), np.float32)}, "'gone' and its scale .* do not belong together"),
        (in_steps(scale=in_steps()["conv.weight" + SCALE] * np.float32(np.nan)), "'conv.weight'.*not a finite number"),
        (in_steps(scale=in_steps()["conv.weight" + SCALE] * np.float32(3e38)), "'conv.weight'.*not a finite number"),
    ],
    ids=["one for all", "long", "scalar", "whole", "no steps", "no weight", "NaN", "overflow"],
)
def test_a_scale_that_does_not_fit_is_refused(tensors: dict[str, np.ndarray], message: str) -> None:
    """It is never stretched over a weight, and no number that is not finite comes of it."""
    with pytest.raises(IncompatibleError, match=message):
        read_payload(save(tensors))


@pytest.mark.parametrize("location", ["../etc/passwd", "/etc/passwd", "a/b", "..", "."])
def test_a_template_cannot_name_a_place_elsewhere(location: str, tmp_path: Path) -> None:
    """Weights lie beside the template and nowhere else."""
    with pytest.raises(IncompatibleError, match="lies at"):
        lay_out(tmp_path, graph(location), PAYLOAD)


@given(st.integers(0, len(TEMPLATE) - 1), st.binary(max_size=8))
def test_a_damaged_template_is_refused_or_read(at: int, noise: bytes) -> None:
    """Whatever bytes are cut or changed, there is an answer or one clear error."""
    for damaged in (TEMPLATE[:at], TEMPLATE[:at] + noise + TEMPLATE[at + len(noise) :]):
        with suppress(IncompatibleError):
            assert isinstance(places(damaged), dict)


def test_a_full_disk_is_an_error_of_ours(tmp_path: Path) -> None:
    """A folder that is not there stands for a disk that refuses."""
    with pytest.raises(StoreError, match="cannot be written"):
        lay_out(tmp_path / "none", TEMPLATE, PAYLOAD)
