"""Puts a release that ONNX Runtime has loaded into TensorRT too, where the board has it, or says why not.

Used by the installer's thread; what is told of a build may be read by any. Owns plans on disk, no release.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING, TypeAlias

from devices.boards.host import read_model
from devices.boards.jetson import parse_parts
from devices.boards.machine import Machine
from devices.boards.profiles import board_of
from edge_client.candidate import Blob, Candidate, read_files
from edge_client.config import DeviceConfig, RunnerChoice
from edge_client.standby import WithStandby
from edge_protocol.errors import NotReadyError, RoadcastError

if TYPE_CHECKING:
    from devices.runners.trt_build import Tell
    from devices.runners.trt_plans import Plans
    from export.in_tensorrt import Workshop

LOG = logging.getLogger(__name__)
MakeWorkshop: TypeAlias = "Callable[[Tell, Plans], Workshop]"


def wants_tensorrt(choice: RunnerChoice, machine: Machine) -> bool:
    """Whether a device is to serve with TensorRT: as it is configured, else when its board has a GPU for it."""
    if choice != "auto":
        return choice == "tensorrt"
    parts = parse_parts(machine.text("proc/device-tree/compatible") or "")
    board = board_of(read_model(machine), parts, None)  # no processor alone tells of a GPU
    return board is not None and board.compute_capability is not None


class Planner:
    """Makes plans of candidates; one at a time.

    Args:
        config: the device's.
        blob: where a blob is.
        make: finds TensorRT and CUDA; this machine's when None.
        machine: the board.

    Attributes:
        wanted: whether this device is to serve with TensorRT.
        watch_s: seconds between two looks at the board's state; None when nothing depends on it.
        counts: builds that began, and plans that served but could not be kept.
    """

    def __init__(
        self, config: DeviceConfig, blob: Blob, make: MakeWorkshop | None = None, machine: Machine | None = None
    ) -> None:
        self._blob, self._make, self._settings = blob, make, config.tensorrt
        self._folder = Path(config.state_dir) / "plans"
        self.wanted = wants_tensorrt(config.runner, machine or Machine())
        self.watch_s = config.tensorrt.watch_s if self.wanted else None
        self.counts: Counter[str] = Counter()
        self._workshop: Workshop | None = None
        self._lacking = ""
        self._stopped: Callable[[], bool] = lambda: False
        self._begun: float | None = None
        self._estimate: float | None = None
        self._share = 0.0

    def due(self, candidate: Candidate) -> bool:
        """Whether no plan was tried for a release that serves, or it was for another state of the board."""
        if not self.wanted:
            return False
        if not candidate.board:
            return True
        board = self._board(candidate)
        return bool(board) and board != candidate.board

    def plan(self, candidate: Candidate, stopped: Callable[[], bool], failed: Callable[[str], None]) -> Candidate:
        """Load a candidate into TensorRT: a kept plan with its weights, else one that is built now, for minutes.

        Args:
            candidate: loaded; its runner goes on answering and stays as standby.
            stopped: whether it is not wanted any more.
            failed: hears when the plan answers no more, later.

        Returns:
            It in TensorRT; as it was, with the reason, where that failed; unchanged when it was stopped.
        """
        from devices.runners.trt_process import StoppedError  # noqa: PLC0415  # see _opened

        runner, note = candidate.runner, ""
        standby = runner.standby if isinstance(runner, WithStandby) else runner
        board = self._board(candidate) or "none"
        self._stopped = stopped
        try:
            workshop = self._opened()
            files = read_files(candidate.artifact, self._blob)
            self._estimate = workshop.plans.estimate(workshop.key(files.template))
            runner = WithStandby(workshop.open(*files), standby, failed)
        except StoppedError:
            return candidate
        except (RoadcastError, OSError) as error:
            note = f"{self.goes_on(candidate)}: {error}"
        except Exception as error:  # a version that was never run here may do anything
            LOG.exception("TensorRT")
            note = f"{self.goes_on(candidate)}: TensorRT failed in an unknown way ({error!r}); report it"
        finally:
            self._begun = None
        return replace(candidate, runner=runner, board=board, note=note)

    @staticmethod
    def goes_on(candidate: Candidate) -> str:
        """What goes on serving when no new plan of a candidate comes."""
        alive = isinstance(candidate.runner, WithStandby) and not candidate.runner.reason
        return "the plan of before serves" if alive else "ONNX Runtime serves"

    def values(self) -> dict[str, float]:
        """How far a build is: share that is done, 0 to 1, and seconds that are left; empty when there is none."""
        begun, share, expected = self._begun, self._share, self._estimate
        if begun is None:
            return {}
        passed = monotonic() - begun
        if expected is not None:
            return {"plan_share": share, "plan_left_s": max(expected - passed, 0.0)}
        return {"plan_share": share} | ({"plan_left_s": passed * (1 - share) / share} if share else {})

    def _opened(self) -> Workshop:
        """TensorRT and what goes with it, which no other device loads; that it is not here is found out once."""
        from devices.runners.trt_build import Order  # noqa: PLC0415
        from devices.runners.trt_plans import Plans  # noqa: PLC0415
        from devices.runners.trt_process import Limits  # noqa: PLC0415
        from export.in_tensorrt import STUDENT, workshop_here  # noqa: PLC0415

        if self._workshop is None:
            if self._lacking:
                raise NotReadyError(self._lacking)
            plans = Plans(self._folder)
            try:
                made = (self._make or workshop_here)(self._hear, plans)
            except Exception as error:  # a TensorRT that was never seen may fail in any way
                known = isinstance(error, RoadcastError)
                self._lacking = str(error) if known else f"TensorRT cannot be used ({error!r}); report it"
                raise NotReadyError(self._lacking) from error
            plans.sweep()
            set_ = self._settings
            limits = Limits(set_.build_timeout_s, set_.needed_mb << 20, set_.spare_mb << 20)
            order = Order(STUDENT, precision=set_.precision, workspace=set_.workspace_mb << 20)
            self._workshop = replace(made, order=order, limits=limits, stopped=self._unwanted, warn=self._not_kept)
        return self._workshop

    def _board(self, candidate: Candidate) -> str:
        """What a plan depends on, in one word; "" when the board does not say."""
        try:
            template = self._blob(candidate.artifact.template.sha256).read_bytes()
            return self._opened().key(template).name
        except Exception as error:  # noqa: BLE001 - what it is, is told when a plan is made; this is asked every minute
            LOG.debug("TensorRT: the board does not say what it is: %s", error)
            return ""

    def _hear(self, phase: str, share: float) -> None:
        if self._begun is None:
            self._begun = monotonic()
            self.counts["plan_builds"] += 1
            LOG.info("TensorRT: %s", phase)
        self._share = share

    def _unwanted(self) -> bool:
        return self._stopped()

    def _not_kept(self, reason: str) -> None:
        self.counts["plans_not_kept"] += 1
        LOG.warning("%s", reason)
