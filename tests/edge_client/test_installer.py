"""The installer's thread lives on whatever a candidate does, and refuses one that takes too much memory."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from edge_client.effects import Check, Checked, CheckFailed, Failed, Passed, Probe
from edge_client.inference import Counters
from edge_client.installer import Installer
from edge_client.planner import Planner
from edge_client.seen import Seen
from edge_models.tasks import load_task
from edge_protocol.blobs import cut
from edge_protocol.manifest import Artifact
from tests.edge_client.device_rig import device_config
from tests.fakes.small_centre import Files, artifact_files

SPEC = load_task("vehicle")


class Bench:
    """An installer alone, with the files of releases in a folder."""

    def __init__(self, folder: Path, memory_mb: Iterator[float]) -> None:
        self.folder, self.answers = folder, Queue[Any]()
        config = device_config(folder, probation={"frames": 1, "wait_s": 0, "memory_mb": 100})
        self.installer = Installer(
            spec=SPEC,
            config=config,
            planner=Planner(config, self.blob, None),
            blob=self.blob,
            seen=Seen(1.0),
            stored=lambda _: np.zeros((0, 3, 32, 32), np.uint8),
            prepare=lambda raw: raw.astype(np.float32),
            running=lambda: None,
            frames=Counters(),
            answer=self.answers.put,
            memory_mb=lambda: next(memory_mb),
        )
        self.installer.start()

    def blob(self, sha256: str) -> Path:
        """Where a file is."""
        return self.folder / sha256

    def check(self, files: Files, release: int = 1) -> Any:
        """What comes of a check."""
        refs = []
        for data in (files.template, files.weights, files.golden):
            (self.folder / cut(data)[0].sha256).write_bytes(data)
            refs.append(cut(data)[0])
        template, weights, golden = refs
        self.installer.ask(Check(release, Artifact("nano", "depthwise", template, weights, golden, 1)))
        return self.answers.get(timeout=60)

    def probe(self, release: int = 1) -> Any:
        """What comes of a probation."""
        self.installer.ask(Probe(release))
        return self.answers.get(timeout=60)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """An installer whose process does not grow."""
    made = Bench(tmp_path, repeat(50.0))
    yield made
    made.installer.stop()


@pytest.mark.parametrize("growth", [("check", [50.0, 151.0]), ("probe", [50.0, 60.0, 151.0])], ids=lambda g: g[0])
def test_a_candidate_that_takes_too_much_memory_is_refused(tmp_path: Path, growth: tuple[str, list[float]]) -> None:
    """By what the agent grew since before it was loaded, when it is loaded and again after it answered."""
    stage, readings = growth
    bench = Bench(tmp_path, chain(readings, repeat(50.0)))
    outcome = bench.check(artifact_files())
    if stage == "probe":
        assert outcome == Checked(1)
        outcome = bench.probe()
    assert isinstance(outcome, CheckFailed | Failed)
    assert outcome.reason == "the agent grew by 101 MB with the candidate, allowed are 100"
    assert bench.check(artifact_files(), 2) == Checked(2)
    assert bench.probe(2) == Passed(2)
    bench.installer.stop()


@pytest.mark.parametrize("name", ["inputs", "features", "logits"])
def test_golden_answers_of_a_wrong_form_fail_the_check_and_the_thread_goes_on(bench: Bench, name: str) -> None:
    """Signed, but without a dimension, or empty: a reason, not a dead thread that hangs the device."""
    files = artifact_files()
    for shape in ((), (0,), (0, 3)):
        golden = save(load(files.golden) | {name: np.zeros(shape, np.float16)})
        outcome = bench.check(replace(files, golden=golden))
        assert isinstance(outcome, CheckFailed)
        assert outcome.reason
    assert bench.check(files) == Checked(1)


def test_a_runtime_s_own_error_on_probation_is_a_failure(bench: Bench) -> None:
    """Whatever a runner raises rolls the candidate back."""
    bench.check(artifact_files())
    candidate = bench.installer.candidate
    assert candidate is not None

    class Broken:
        provider = "broken"

        def infer(self, x: object) -> object:
            raise ValueError("out of handles")

        def close(self) -> None:
            """Nothing to close."""

    bench.installer.candidate = replace(candidate, runner=Broken())  # type: ignore[arg-type]
    assert bench.probe() == Failed(1, "ValueError: out of handles")
    assert bench.check(artifact_files()) == Checked(1)
