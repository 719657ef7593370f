"""A whole server in this process: memory transport, fake clock, real database and folders, turns instead of threads."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from safetensors.numpy import save_file

from broker_server.config import DistilConfig, RoundsConfig, ServerConfig, TaskConfig
from broker_server.distil_job import DistilResult, read_job
from broker_server.judge import JudgeRules
from broker_server.key_setup import begin
from broker_server.round_manifest import MANIFEST, describe, encoded, input_hashes
from broker_server.server import Seams, Server
from broker_server.workshop import Distiller
from devices.packs import ImagePack, save_pack
from edge_models.samples import Samples
from edge_models.tasks import load_task, plugin_of
from edge_protocol.ids import TaskId
from edge_protocol.messages import FullReport
from edge_protocol.task import TIERS, TaskSpec
from edge_protocol.transport.memory import MemoryBroker, MemoryTransport
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator

STEP_S = 0.5
MAX_STEPS = 4000


class Inline(Executor):
    """Runs work at once, in the caller's thread."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run, and return what came of it."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - as an executor does
            future.set_exception(error)
        return future


def write_packs(folder: Path, task: str = "vehicle", *, samples: int = 60, seed: int = 3) -> dict[str, Samples]:
    """Write anchors, proxies and validation of a task as packs of simulated images; return what they hold."""
    spec, rng = load_task(task), np.random.default_rng(seed)
    drawn = {}
    for name in ("anchors", "proxies", "validation"):
        drawn[name] = batch = plugin_of(spec).simulate(spec, rng, samples)
        pack = ImagePack.of(batch.raw.astype(np.uint8), labels=batch.targets, classes=spec.labels)
        save_pack(folder / f"{name}.npz", pack, title=name)
    return drawn


def centre_config(
    folder: Path,
    *,
    rounds: RoundsConfig,
    task: str = "vehicle",
    distil: DistilConfig | None = None,
    judge: JudgeRules | None = None,
    **more: Any,
) -> ServerConfig:
    """A configuration on the packs of `write_packs`; no anchors among the proxies, whose labels the tests know."""
    paths = {name: str(folder / f"{name}.npz") for name in ("anchors", "proxies", "validation")}
    config = ServerConfig(
        fleet="sim",
        state_dir=str(folder / "server"),
        keys_dir=str(folder / "keys"),
        tasks={task: TaskConfig(task=task, rounds=rounds, judge=judge or JudgeRules(), **paths)},
        distil=distil or DistilConfig(trust_share=0),
        **more,
    )
    begin(config, time.time())
    return config


def make_server(
    config: ServerConfig,
    broker: MemoryBroker,
    clock: FakeClock | Callable[[], float],
    distiller: Distiller,
) -> Server:
    """A server that runs in turns, by a clock of the test or a real one."""
    return Server(
        config,
        Seams(
            connect=lambda _, inbox: MemoryTransport(broker, inbox),
            clock=clock,
            steady=clock.steady if isinstance(clock, FakeClock) else time.monotonic,
            distiller=distiller,
            executors=(Inline(), Inline()),
            inbox=0,
        ),
    )


def drive(server: Server, fleet: FleetSimulator, clock: FakeClock, until: Callable[[], bool], what: str) -> None:
    """Let server and devices act in turns, time passing when nobody has anything to do; fail when it never ends."""
    for _ in range(MAX_STEPS):
        busy = server.step() + fleet.step()
        if until():
            return
        if not busy:
            clock.advance(STEP_S)
    raise AssertionError(
        f"no {what} after {MAX_STEPS} steps; round: {server.coordinator.tasks[fleet.spec.task_id].round}"
    )


def rounds_closed(server: Server, count: int, task: str = "vehicle") -> Callable[[], bool]:
    """Whether that many rounds are over."""

    def check() -> bool:
        current = server.coordinator.tasks[TaskId(task)].round
        return current is not None and current.number == count and current.closed

    return check


def write_artifacts(folder: Path, spec: TaskSpec, *, seed: int = 0, size: int = 3000) -> None:
    """Write an artifact folder of random numbers: enough for a transport to carry, not for a runner to load."""
    rng = np.random.default_rng(seed)
    for tier in TIERS:
        place = folder / tier
        place.mkdir(parents=True, exist_ok=True)
        (place / "template.onnx").write_bytes(f"template of {spec.students[tier]}".encode() * 10)
        for name in ("weights", "golden", "state", "training"):
            save_file({"w": rng.random(size, dtype=np.float32)}, place / f"{name}.safetensors")


def scripted_distiller(scores: list[float]) -> Distiller:
    """A distiller that learns nothing and reaches the scores it is given, one a job; for tests of what is around it."""
    left = iter(scores)
    best = {"score": 0.0}

    def run(folder: Path, _cancelled: threading.Event) -> None:
        job = read_job(folder)
        spec, reached = load_task(job.task), next(left)
        write_artifacts(folder / "candidate", spec, seed=job.round)
        sides = {"candidate": {"accuracy": reached}} | ({"current": {"accuracy": best["score"]}} if job.current else {})
        best["score"] = max(best["score"], reached)
        result = DistilResult(
            headline="accuracy",
            higher_is_better=True,
            metrics=dict.fromkeys(TIERS, sides),
            teacher={"reports": float(len(job.reports))},
            devices={},
            parameters=dict.fromkeys(TIERS, 3000),
        )
        said = {name: (folder / "reports" / name).read_bytes() for name in job.reports}
        heard = {Path(n).stem: msgspec.msgpack.decode(data, type=FullReport).round for n, data in said.items()}
        manifest = describe(folder, job, result, inputs=input_hashes(folder, job), heard=heard, device="none")
        (folder / MANIFEST).write_bytes(encoded(manifest))
        (folder / "result.json").write_bytes(msgspec.json.encode(result))

    return run
