"""With privacy no graph that a release brings lets one image decide more than its own features."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt
import onnx
import pytest
from onnx import helper, numpy_helper

from edge_client import trainer
from edge_client.jobs import TrainJob, shared_head, write_job
from edge_client.replay import Kept, ReplayStore
from edge_client.trunk import Trunk
from edge_models.private_odds import Background, class_totals
from edge_models.samples import F4
from edge_models.tasks import plugin_of
from edge_protocol.errors import IncompatibleError
from tests.edge_client.test_trainer import VEHICLE, job
from tests.fakes.small_centre import artifact_files

WHITE = np.full((1, 32, 32, 3), 255, np.uint8)


def across(graph: onnx.GraphProto) -> None:
    """All features of a batch change sign when one of its images is white."""
    nodes = [
        helper.make_node("ReduceMax", ["bright", "rows"], ["brightest"], keepdims=0),
        helper.make_node("Greater", ["brightest", "limit"], ["there"]),
        helper.make_node("Where", ["there", "minus", "plus"], ["sign"]),
        helper.make_node("Mul", ["plain", "sign"], ["features"]),
    ]
    graph.node.extend(nodes)


def failing(graph: onnx.GraphProto) -> None:
    """A white image looks beyond a table."""
    nodes = [
        helper.make_node("Cast", ["white"], ["row"], to=onnx.TensorProto.INT64),
        helper.make_node("Gather", ["table", "row"], ["ones"], axis=0),
        helper.make_node("Mul", ["plain", "ones"], ["features"]),
    ]
    graph.node.extend(nodes)


def dropping(graph: onnx.GraphProto) -> None:
    """A white image has no row in the answer."""
    nodes = [
        helper.make_node("Not", ["white"], ["dark"]),
        helper.make_node("Compress", ["plain", "dark"], ["features"], axis=0),
    ]
    graph.node.extend(nodes)


def drawing(graph: onnx.GraphProto) -> None:
    """Features are what a generator with a known seed says next."""
    graph.node.append(helper.make_node("RandomNormalLike", ["plain"], ["features"], seed=3.0))


def odd(folder: Path, change: Callable[[onnx.GraphProto], None], *, sigma: float) -> TrainJob:
    """A job of 60 images for a release whose graph is not as it should be."""
    asked = job(folder, VEHICLE, samples=60)
    model = onnx.load_from_string(artifact_files("vehicle").template)
    graph = model.graph
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = ["plain" if name == "features" else name for name in names]
    constants = {"axes": [1, 2, 3], "rows": [0]}
    floats = {"limit": 1.8, "minus": -1.0, "plus": 1.0, "table": [[1.0]]}
    graph.initializer.extend(numpy_helper.from_array(np.array(at), name) for name, at in constants.items())
    graph.initializer.extend(numpy_helper.from_array(np.array(at, np.float32), name) for name, at in floats.items())
    graph.node.append(helper.make_node("ReduceMean", ["input", "axes"], ["bright"], keepdims=0))
    graph.node.append(helper.make_node("Greater", ["bright", "limit"], ["white"]))
    change(graph)
    (folder / "template").write_bytes(model.SerializeToString())
    return msgspec.structs.replace(asked, sigma=sigma)


def own_features(asked: TrainJob, raw: npt.NDArray[np.generic]) -> F4:
    """What a job makes of its own samples."""
    with Trunk(asked, Path(asked.weights).read_bytes()) as trunk:
        return trunk.features(raw)


@pytest.mark.parametrize("change", [across, failing, dropping])
def test_one_image_moves_the_totals_by_at_most_one_whatever_the_graph(
    tmp_path: Path, change: Callable[[onnx.GraphProto], None]
) -> None:
    """A graph that looks across the batch, one that fails on an image and one that leaves it out of its answer."""
    asked = odd(tmp_path, change, sigma=1.0)
    made = plugin_of(VEHICLE).simulate(VEHICLE, np.random.default_rng(5), 120)
    shared = shared_head(Path(asked.weights).read_bytes())
    with Trunk(asked, Path(asked.weights).read_bytes()) as trunk:
        proxies = trunk.views(made.raw[60:], 1)[0]
    background = Background.of(proxies, shared.apply(proxies).argmax(1), len(VEHICLE.labels))
    without = own_features(asked, made.raw[:60])
    known = own_features(asked, np.concatenate([made.raw[:60], WHITE]))
    labels = made.targets[:60].astype(np.int64)
    moved = class_totals(background, known, np.append(labels, 0)) - class_totals(background, without, labels)
    assert np.linalg.norm(moved) <= 1 + 1e-9


@pytest.mark.parametrize("change", [failing, dropping])
def test_an_image_that_the_graph_fails_on_stops_no_private_report(
    tmp_path: Path, change: Callable[[onnx.GraphProto], None]
) -> None:
    """It is left out, and the report is made of the others."""
    asked = odd(tmp_path, change, sigma=1.0)
    store = ReplayStore(tmp_path / "replay.db", 100_000_000)
    store.add([Kept("white", 30.5, WHITE[0], 0)])
    store.close()
    write_job(tmp_path, asked)
    assert trainer.run_job(tmp_path).left_out == 1
    assert (tmp_path / "votes.safetensors").exists()


def test_a_graph_that_draws_random_numbers_answers_without_privacy_only(tmp_path: Path) -> None:
    """Each draw moves the generator on: with one image more, every later one would have other features."""
    asked = odd(tmp_path, drawing, sigma=0.0)
    raw = plugin_of(VEHICLE).simulate(VEHICLE, np.random.default_rng(5), 3).raw
    assert (own_features(asked, raw)[1:] != own_features(asked, raw[1:])).any()
    with pytest.raises(IncompatibleError, match=r"RandomNormal.*export it without"):
        own_features(msgspec.structs.replace(asked, sigma=1.0), raw)


def test_samples_asked_alone_have_the_features_they_have_in_a_batch(tmp_path: Path) -> None:
    """Privacy changes how a real student is asked and not what it says; of no samples there are none."""
    asked = job(tmp_path, VEHICLE, samples=0)
    raw = plugin_of(VEHICLE).simulate(VEHICLE, np.random.default_rng(5), 70).raw
    together, alone = own_features(asked, raw), own_features(msgspec.structs.replace(asked, sigma=1.0), raw)
    assert together == pytest.approx(alone, abs=1e-4)
    assert own_features(msgspec.structs.replace(asked, sigma=1.0), raw[:0]).shape == (0, 64)
