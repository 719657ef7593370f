"""A board with a GPU and some TensorRT, for an agent: its power mode can change, its builds can be held and fail."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

from devices.boards.machine import Machine
from devices.runners.cuda import Cuda
from devices.runners.trt_build import Built, Order, Tell, build_plan
from devices.runners.trt_plans import Plans
from devices.runners.trt_process import StoppedError
from export.in_tensorrt import Build, Workshop
from tests.fakes.cudart import FakeCudart
from tests.fakes.trt import fake_tensorrt


class TrtBoard:
    """Stands for a Jetson.

    Args:
        folder: a root file system with nothing in it.
        trt: the module; 10.3.0 when None.
        build: see `Workshop`; in this process when None.

    Attributes:
        builds: that were begun.
        open: while it is not set, builds wait in their middle.
        power_mode: what ``nvpmodel`` says.
        full: whether the disk refuses to keep plans.
    """

    def __init__(self, folder: Path, trt: Any = None, build: Build | None = None) -> None:
        self.trt, self.library = trt or fake_tensorrt("10.3.0"), FakeCudart()
        self.builds, self.open, self.power_mode, self.full = 0, threading.Event(), "15W", False
        self.open.set()
        self._machine = Machine(folder, self._run)
        self._build = build or self._in_this_process

    def workshop(self, tell: Tell, plans: Plans) -> Workshop:
        """As `workshop_here` does."""
        self.made = Workshop(
            self.trt, lambda: Cuda(self.library), plans, build=self._count, tell=tell, machine=self._machine
        )
        return self.made

    def _run(self, argv: tuple[str, ...]) -> str | None:
        return f"NV Power Mode: {self.power_mode}\n0\n" if argv[0] == "nvpmodel" else None

    def _count(self, folder: Path, order: Order, timing: bytes, tell: Tell, **guards: Any) -> Built:
        self.builds += 1
        built = self._build(folder, order, timing, tell, **guards)
        if self.full:
            key = self.made.key((folder / order.student).read_bytes())
            (folder.parent / f"{key.name}.plan.part").mkdir()
        return built

    def _in_this_process(self, folder: Path, order: Order, timing: bytes, tell: Tell, **guards: Any) -> Built:
        built = build_plan(self.trt, folder, order, timing, tell)
        tell("build", 0.5)
        while not self.open.wait(0.02):
            if guards["stopped"]():
                raise StoppedError("stopped")
        return built
