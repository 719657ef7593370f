"""A plan that answers, and ONNX Runtime for the day that the GPU fails; owns neither."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from devices.closing import Closing
from devices.runners.base import F4, Answer, Runner
from edge_protocol.errors import DeviceError

LOG = logging.getLogger(__name__)


class WithStandby(Closing):
    """A runner of two: when the first one's device fails, the second answers that sample and all that follow.

    Args:
        plan: the student in TensorRT.
        standby: the same student in ONNX Runtime.
        failed: hears why the plan answers no more, once.

    Attributes:
        provider: of the one that answers.
        standby: the second one.
        reason: why the plan answers no more; "" while it does.
    """

    def __init__(self, plan: Runner, standby: Runner, failed: Callable[[str], None]) -> None:
        self._plan: Runner | None = plan
        self.standby, self._failed, self.reason = standby, failed, ""
        self._falling = threading.Lock()
        self.provider: str = plan.provider

    @property
    def answering(self) -> Runner:
        """Which of the two the next sample goes to."""
        return self._plan or self.standby

    def infer(self, x: F4) -> Answer:
        """Answer x (N, *input shape) float32, N ≥ 1.

        Raises:
            IncompatibleError: x has another shape than the student takes.
        """
        plan = self._plan
        if plan is not None:
            try:
                return plan.infer(x)
            except DeviceError as error:
                self._fall_back(str(error))
        return self.standby.infer(x)

    def _fall_back(self, reason: str) -> None:
        with self._falling:
            if self._plan is None:
                return
            self._plan, self.provider, self.reason = None, self.standby.provider, reason
        LOG.warning("the GPU fails, ONNX Runtime answers from now on: %s", reason)
        self._failed(reason)

    def close(self) -> None:
        """Free the plan; the standby may be in use elsewhere, and frees itself when it is dropped."""
        plan, self._plan = self._plan, None
        if plan is not None:
            plan.close()
