"""A whole agent on a board with a GPU; for the tests of plans."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors.numpy import load

from edge_protocol import messages as m
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.fakes.small_centre import Files
from tests.fakes.trt_board import TrtBoard


def device(folder: Path, board: TrtBoard | None, **tensorrt: Any) -> DeviceRig:
    """A camera that is to serve with TensorRT, whose power mode is looked at often."""
    settings = {"watch_s": 0.1, "needed_mb": 0, "spare_mb": 0, **tensorrt}
    config = device_config(folder, runner="tensorrt", tensorrt=settings)
    return DeviceRig(config, workshop=board.workshop if board else None)


def again(rig: DeviceRig, board: TrtBoard) -> DeviceRig:
    """The same camera after a restart."""
    rig.close()
    return DeviceRig(rig.config, rig.broker, workshop=board.workshop)


def other_template(files: Files) -> Files:
    """The same student under a graph of another name: no plan fits it."""
    model = onnx.load_from_string(files.template)
    model.graph.name = "another"
    return replace(files, template=model.SerializeToString(deterministic=True))


def provider(rig: DeviceRig) -> str:
    """What answers frames."""
    bundle = rig.agent.inference.bundle
    return bundle.runner.provider if bundle else ""


def installed(rig: DeviceRig, release: int, files: Files) -> None:
    """Release something, and wait until it serves."""
    rig.centre.release(release, {"nano": files})
    rig.until(lambda: rig.agent.core.running.release == release, f"release {release}", within_s=100)


def reason(rig: DeviceRig, state: str = "committed") -> str:
    """What the device last said about its deployment, once it is in a state."""
    said: m.Deployment = rig.centre.of(m.Deployment)[-1]
    return said.reason if said.state == state else ""


def state(rig: DeviceRig) -> m.DeviceState:
    """What the device says of itself next."""
    heard = len(rig.centre.of(m.DeviceState))
    rig.until(lambda: len(rig.centre.of(m.DeviceState)) > heard, "a state")
    found: m.DeviceState = rig.centre.of(m.DeviceState)[-1]
    return found


def answers_go_on(rig: DeviceRig) -> None:
    """More frames are answered, and none failed."""
    counters = rig.agent.inference.counters
    before = counters.answered
    rig.until(lambda: counters.answered > before + 3, "answers")
    assert (counters.failed, counters.swap_skipped) == (0, 0)


def answers_right(rig: DeviceRig, files: Files) -> None:
    """What serves gives the release's golden answers."""
    bundle, golden = rig.agent.inference.bundle, load(files.golden)
    assert bundle is not None
    given = bundle.runner.infer(golden["inputs"].astype(np.float32))
    assert np.allclose(given.logits, golden["logits"], atol=1e-2)
