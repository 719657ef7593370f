"""Samples the board beside the agent and hands the readings in as messages. Owns no reading and no link."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from time import monotonic

from devices.boards import Machine
from devices.telemetry.sampler import Sample, Sampler
from devices.telemetry.textfile import write_textfile
from edge_client.cameras import Cameras
from edge_client.config import DeviceConfig
from edge_protocol.errors import StoreError
from edge_protocol.messages import Telemetry

LOG = logging.getLogger(__name__)
TELLING = ("state_free_bytes", "disk_written_bytes_total")
"""Readings that tell how many samples a device keeps; not sent where privacy is on."""


def watch_this_board(config: DeviceConfig, emit: Callable[[Telemetry], None], cameras: Cameras) -> BoardTelemetry:
    """The telemetry of the machine that this runs on, not yet started."""
    metrics = None if config.metrics_file is None else Path(config.metrics_file)
    sampler = Sampler(Machine(), state_dir=Path(config.state_dir))
    private = config.privacy.epsilon_per_report is not None
    withheld = TELLING if private else ()
    return BoardTelemetry(sampler, config.report_interval_s, emit, metrics, withheld, cameras.readings)


class BoardTelemetry:
    """A thread that samples; a tool that hangs holds up nothing but the next sample.

    Args:
        sampler: of this board.
        every_s: seconds between two samples.
        emit: takes a message, from any thread.
        metrics: Prometheus file to write as well.
        withheld: how the names of readings begin that are not sent.
        also: further readings at a time (s, monotonic).
    """

    def __init__(
        self,
        sampler: Sampler,
        every_s: float,
        emit: Callable[[Telemetry], None],
        metrics: Path | None = None,
        withheld: tuple[str, ...] = (),
        also: Callable[[float], dict[str, float]] = lambda _now: {},
    ) -> None:
        self._sampler, self._every_s, self._emit, self._metrics = sampler, every_s, emit, metrics
        self._withheld, self._also = withheld, also
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._work, name="board-telemetry", daemon=True)

    def start(self) -> None:
        """Begin; the first sample comes after one interval."""
        self._thread.start()

    def stop(self) -> None:
        """Take no more samples; does not wait for one that is being taken."""
        self._stopping.set()

    def _work(self) -> None:
        while not self._stopping.wait(self._every_s):
            now = monotonic()
            sample = self._sampler.sample(now)
            sample.values.update(self._also(now))
            self._emit(
                Telemetry({name: value for name, value in sample.values.items() if not name.startswith(self._withheld)})
            )
            if self._metrics is not None:
                self._write(self._metrics, sample)

    def _write(self, metrics: Path, sample: Sample) -> None:
        try:
            write_textfile(metrics, sample)
        except StoreError as error:
            LOG.warning("no metrics any more: %s", error)
            self._metrics = None
