"""New weights for a loaded graph: through external initializers, against making the whole model anew.

From a weights payload in memory to a session that answers, CPU time, one thread, in turn in one run, each shipped
student. Swapping is `devices.runners.ort_runner.open_student`, which also checks every weight. The peers end with the
same answers: the payload is written into the graph, which is serialised and parsed again (with the onnx package, which
no device has); a whole ONNX file arrived ready made, which costs its bytes at each release; or the student is exported
from PyTorch anew.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

import numpy as np
from onnxruntime import InferenceSession

from benchmarks.harness import Options, Outcome, Target, interleaved, ratios, run, spread
from devices.runners.onnx_file import open_file
from devices.runners.ort_runner import open_student
from edge_models.students import build_student
from edge_models.tasks import load_task
from edge_protocol.task import TIERS
from export import BuiltArtifact, build_artifact
from export.graph import inlined

MOST_OVER_WHOLE, LEAST_EXPORT = 2.0, 100.0
PARITY = 1e-5


def measure(options: Options) -> Outcome:
    """Compare swapping a weights payload with rewriting, reloading and exporting the whole model."""
    repeats = 20 if options.quick else 150
    rows: list[tuple[object, ...]] = [
        ("student", "swap ms", "over written in", "over a whole file", "export over swap", "payload/file bytes")
    ]
    figures: dict[str, object] = {}
    written, whole, exported = list[float](), list[float](), list[float]()
    for task in ("vehicle", "speed"):
        for tier in TIERS:
            spec = load_task(task)
            x = np.random.default_rng(0).normal(size=(4, *spec.input.shape)).astype(np.float32)
            student = build_student(spec, tier)
            begun = time.process_time()
            built = build_artifact(spec, tier, student, x)
            export_s = time.process_time() - begun
            full = inlined(built.template, built.weights)
            cases: dict[str, Callable[[], InferenceSession]] = {
                "swap": partial(open_student, built.template, built.weights),
                "written": partial(_written, built),
                "whole": partial(open_file, full),
            }
            answers = [open_case().run(["logits"], {"input": x})[0] for open_case in cases.values()]
            for answer in answers[1:]:
                np.testing.assert_allclose(answer, answers[0], rtol=PARITY, atol=PARITY)
            seconds = interleaved(cases, repeats=repeats, clock=time.process_time)
            over = {name: ratios(seconds["swap"], seconds[name]) for name in ("written", "whole")}
            swap = spread([1e3 * one for one in seconds["swap"]])
            dearer, bytes_share = 1e3 * export_s / swap.median, len(built.weights) / len(full)
            rows.append(
                (f"{task} {tier}", swap.median, over["written"].median, over["whole"].median, dearer, bytes_share)
            )
            figures[f"{task}_{tier}"] = {"swap_ms": swap, **over, "export_over_swap": dearer, "bytes": bytes_share}
            written.append(over["written"].median)
            whole.append(over["whole"].median)
            exported.append(dearer)
    targets = (
        Target("swapping over loading a whole file that is ready, at most", max(whole), MOST_OVER_WHOLE),
        Target("exporting over swapping, at least", min(exported), LEAST_EXPORT, at_most=False),
    )
    headline = (
        f"swapping weights takes {min(written):.2f} to {max(written):.2f} of rewriting the whole model, "
        f"{min(whole):.2f} to {max(whole):.2f} of loading one that is ready; an export takes {min(exported):.0f} to "
        f"{max(exported):.0f} times as long"
    )
    return Outcome(headline, figures, targets, rows)


def _written(built: BuiltArtifact) -> InferenceSession:
    return open_file(inlined(built.template, built.weights))


if __name__ == "__main__":
    raise SystemExit(run(measure))
