"""From a fetched payload to serving: read, check hashes, load, check golden answers, warm up, swap.

The device's own parts do it. The bare side is what any user of ONNX Runtime pays for new weights: one
`InferenceSession` on a self-contained file that is already in memory. Both sides run interleaved on one thread, and its
CPU time is measured: the files are cached, and other processes share the cores. Then a camera delivers
frames at a steady rate while releases are swapped all the time: not one may find nobody to answer it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from benchmarks.harness import Options, Outcome, Spread, Target, interleaved, ratios, run, spread
from devices.closing import Closing
from devices.preprocess import Preprocess
from devices.sources.base import Frame
from edge_client.candidate import load_release
from edge_client.disk import file_sha256
from edge_client.inference import Counters, Feed, Inference
from edge_client.pipelines import Bundle, WholeSample
from edge_client.results import Tally
from edge_client.seen import Seen
from edge_models.students import build_student
from edge_models.tasks import load_task
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.errors import DigestError
from edge_protocol.manifest import Artifact
from edge_protocol.task import TIERS, ImageInput, TaskSpec, Tier
from export import BuiltArtifact, build_artifact
from export.graph import inlined

LIMIT = 5.0
WARM_UP = 3
RATE_HZ = 100.0


class Camera(Closing):
    """Delivers a grey image `RATE_HZ` times a second; frames that are late come one after the other."""

    ended = False

    def __init__(self) -> None:
        self._due = time.monotonic()
        self._image = np.full((32, 32, 3), 127, np.uint8)

    def read(self, timeout_s: float) -> Frame | None:
        """Wait for the next frame, at most `timeout_s`."""
        wait = self._due - time.monotonic()
        time.sleep(min(max(wait, 0), timeout_s))
        if wait > timeout_s:
            return None
        self._due += 1 / RATE_HZ
        return Frame(sample="grey", at_s=time.time(), image=self._image)


class Device:
    """The part of a device that takes a new release into service.

    Args:
        folder: holds the files, named by their hash.
        artifact: names them.
        inference: answers frames.
    """

    def __init__(self, folder: Path, artifact: Artifact, shape: tuple[int, ...], inference: Inference) -> None:
        self._folder, self._artifact, self._inference = folder, artifact, inference
        self._frame = np.zeros((1, *shape), np.float32)
        self._release = 0

    def swap(self) -> None:
        """Do what happens between the last chunk and the first answer of a new release."""
        for ref in (self._artifact.template, self._artifact.weights, self._artifact.golden):
            if file_sha256(self._folder / ref.sha256) != ref.sha256:
                raise DigestError(f"{ref.sha256[:12]} was changed on disk while the benchmark ran")
        self._release += 1
        candidate = load_release(self._release, self._artifact, self._folder.joinpath, threads=1)
        for _ in range(WARM_UP):
            candidate.runner.infer(self._frame)
        self._inference.swap(Bundle(self._release, candidate.runner))


def measure(options: Options) -> Outcome:
    """Payload fetched to serving, relative to one bare session, for the six students; and frames skipped meanwhile."""
    repeats, swaps = (20, 20) if options.quick else (200, 200)
    rows: list[tuple[object, ...]] = [("student", "swap CPU ms", "bare session CPU ms", "ratio", "frames", "skipped")]
    figures: dict[str, object] = {}
    worst, lost, frames = 0.0, 0, 0
    for spec in (load_task("vehicle"), load_task("speed")):
        for tier in TIERS:
            with tempfile.TemporaryDirectory() as folder:
                found, counted = _measure_one(spec, tier, Path(folder), repeats, swaps)
            name = f"{spec.name}-{tier}-{spec.students[tier]}"
            seen, skipped = (counted.frames, _lost(counted)) if counted else ("-", "-")
            rows.append((name, *(str(found[key]) for key in ("swap_ms", "bare_ms", "ratio")), seen, skipped))
            figures[name] = {**found, "frames": seen, "skipped": skipped}
            worst = max(worst, found["ratio"].median)
            frames, lost = frames + (counted.frames if counted else 0), lost + (_lost(counted) if counted else 0)
    headline = (
        f"payload fetched to serving: at worst {worst:.2f} x one bare InferenceSession (target {LIMIT:g}); "
        f"{lost} of {frames} frames skipped (target 0)"
    )
    targets = [Target("swap over bare session, worst student", worst, LIMIT), Target("frames skipped", lost, 0)]
    return Outcome(headline, figures, [*targets, Target("frames seen", frames, 100, at_most=False)], rows)


def _measure_one(
    spec: TaskSpec, tier: Tier, folder: Path, repeats: int, swaps: int
) -> tuple[dict[str, Spread], Counters | None]:
    sample = np.random.default_rng(0).normal(size=(4, *spec.input.shape)).astype(np.float32)
    built = build_artifact(spec, tier, build_student(spec, tier), sample)
    artifact = _store(built, spec, tier, folder)
    alone = Device(folder, artifact, spec.input.shape, Inference([], queue=1))
    seconds = interleaved({"swap": alone.swap, "bare": _bare(built)}, repeats=repeats, clock=time.thread_time)
    found = {f"{side}_ms": spread([1e3 * each for each in times]) for side, times in seconds.items()}
    counted = _live(spec, artifact, folder, swaps) if isinstance(spec.input, ImageInput) else None
    return {**found, "ratio": ratios(seconds["swap"], seconds["bare"])}, counted


def _store(built: BuiltArtifact, spec: TaskSpec, tier: Tier, folder: Path) -> Artifact:
    def stored(data: bytes) -> BlobRef:
        ref, _ = cut(data)
        (folder / ref.sha256).write_bytes(data)
        return ref

    files = stored(built.template), stored(built.weights), stored(built.golden)
    return Artifact(tier, spec.students[tier], *files, built.parameters)


def _bare(built: BuiltArtifact) -> Callable[[], object]:
    data = inlined(built.template, built.weights)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    return lambda: onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def _live(spec: TaskSpec, artifact: Artifact, folder: Path, swaps: int) -> Counters:
    """Swap while a camera runs, and return what the inference loop counted."""
    assert isinstance(spec.input, ImageInput)
    tally = Tally(task=spec.name, source="road", interval_s=60, slot_s=None, emit=lambda _: None)
    pipeline = WholeSample(spec, Preprocess(spec.input), tally, Seen(every_s=1e9))
    inference = Inference([Feed("road", Camera, pipeline, tally)], queue=64)
    device = Device(folder, artifact, spec.input.shape, inference)
    device.swap()
    inference.start()
    try:
        for _ in range(swaps):
            device.swap()
            time.sleep(0.02)
    finally:
        inference.stop()
    return inference.counters


def _lost(counters: Counters) -> int:
    return counters.swap_skipped + counters.failed + counters.queue_dropped


if __name__ == "__main__":
    raise SystemExit(run(measure))
