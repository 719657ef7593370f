"""A release's student in TensorRT: a kept plan with the new weights, else a new plan; never one whose answers are off.

Nothing here touches a runner that already answers: every attempt is a plan loaded beside it. No torch, no onnx.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Final

from devices.boards.machine import Machine
from devices.runners.cuda import Cuda, load_cudart
from devices.runners.payload import lay_out
from devices.runners.trt_build import Built, Order, Tell
from devices.runners.trt_plans import Key, Plans, key_of
from devices.runners.trt_process import Limits, build_apart
from devices.runners.trt_runner import TrtRunner
from devices.runners.trt_versions import Trt, load_tensorrt
from edge_protocol.errors import DeploymentError, IncompatibleError, StoreError
from export.golden import TOLERANCE, check_golden

LOG = logging.getLogger(__name__)
COARSE: Final = 0.02
"""Tolerance of golden answers where numbers have 16 or 8 bits."""
STUDENT: Final = "student.onnx"
_QUANTISED: Final = b"QuantizeLinear"
Build = Callable[..., Built]
"""Takes what `build_apart` takes."""


def _log(phase: str, share: float) -> None:
    LOG.info("TensorRT: %s, %.0f %%", phase, 100 * share)


@dataclass(frozen=True, slots=True)
class Workshop:
    """What plans are made with.

    Attributes:
        trt: the module.
        cuda: makes a stream for a runner.
        plans: that were built before.
        order: what to build.
        build: see `build_apart`.
        tell: hears of progress.
        warn: hears why a plan that serves could not be kept.
        limits: what a build may take.
        stopped: whether a plan is not wanted any more.
        machine: the board.
    """

    trt: Trt
    cuda: Callable[[], Cuda]
    plans: Plans
    order: Order = field(default_factory=lambda: Order(STUDENT))
    build: Build = build_apart
    tell: Tell = _log
    warn: Callable[[str], None] = LOG.warning
    limits: Limits = field(default_factory=Limits)
    stopped: Callable[[], bool] = lambda: False
    machine: Machine = field(default_factory=Machine)

    def key(self, template: bytes) -> Key:
        """What a template's plan depends on, on this board and as it is now.

        Raises:
            DeviceError: no GPU, or it fails.
        """
        cuda = self.cuda()
        try:
            return key_of(template, self.order, self.trt.__version__, cuda.compute_capability(), self.machine)
        finally:
            cuda.close()

    def open(self, template: bytes, weights: bytes, golden: bytes, *, tolerance: float | None = None) -> TrtRunner:
        """Load a student whose golden answers are right.

        Args:
            template: as for `OrtRunner`, or a self-contained file.
            weights: likewise.
            golden: what it must answer.
            tolerance: of golden answers; by precision unless given.

        Raises:
            DeploymentError: no plan came of the build, or a new plan answers otherwise than it must.
            DeviceError: no GPU, or it fails.
            IncompatibleError: the payload is for another template, damaged, or not finite.
            StoreError: the disk refuses.
        """
        exact = self.order.precision == "file" and _QUANTISED not in template
        allowed = tolerance or (TOLERANCE if exact else COARSE)
        key = self.key(template)
        with self.plans.workplace() as folder:
            student = lay_out(folder, template, weights, STUDENT)
            seconds = self.plans.estimate(key)  # a plan that turns out to be of no use is forgotten, its time is not
            if runner := self._kept(key, weights, golden, allowed, student):
                return runner
            self.tell("build" if seconds is None else f"build, about {seconds:.0f} s", 0)
            begun = time.monotonic()
            timing = self.plans.timing(key)
            built = self.build(folder, self.order, timing, self.tell, limits=self.limits, stopped=self.stopped)
        runner = self._checked(built.plan, None, golden, allowed)
        try:
            self.plans.put(key, built, weights, time.monotonic() - begun)
        except StoreError as error:
            self.warn(str(error))
        return runner

    def _kept(self, key: Key, weights: bytes, golden: bytes, allowed: float, student: Path) -> TrtRunner | None:
        """A kept plan with these weights; None when there is none, or it answers otherwise and is forgotten."""
        found = self.plans.find(key)
        if found is None:
            return None
        plan, kept = found
        other = None if kept.weights == sha256(weights).hexdigest() else student
        try:
            return self._checked(plan, other, golden, allowed)
        except (DeploymentError, IncompatibleError) as error:
            LOG.warning("TensorRT: a kept plan is of no use, building another: %s", error)
            self.plans.forget(key)
            return None

    def _checked(self, plan: bytes, student: Path | None, golden: bytes, allowed: float) -> TrtRunner:
        runner = TrtRunner(self.trt, self.cuda(), plan, student=student)
        try:
            check_golden(runner, golden, allowed)
        except BaseException:
            runner.close()
            raise
        return runner


def workshop_here(tell: Tell = _log, plans: Plans | None = None) -> Workshop:
    """This machine's workshop, with plans below the user's cache unless given.

    Raises:
        NotReadyError: TensorRT or CUDA's runtime is not here.
    """
    trt, library = load_tensorrt(), load_cudart()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Workshop(trt, lambda: Cuda(library), plans or Plans(cache / "roadcast" / "plans"), tell=tell)
