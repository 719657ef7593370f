"""What a run draws: a look at the idle board, then the run; owns no meter."""

from __future__ import annotations

from collections.abc import Callable

from devices.latency.load import Clock
from devices.latency.power import Draw, PowerMeter, draw_of

IDLE_S = 3.0


def drawn(meter: PowerMeter | None, run: Callable[[], object], clock: Clock, samples: Callable[[], int]) -> Draw | None:
    """Run, and say what it drew; None: without a meter, or not measured.

    Args:
        meter: of the board.
        run: the work; done once, whatever can be measured.
        clock: whose `sleep` passes the idle time.
        samples: answered in the run, asked when it is over.
    """
    if meter is None:
        run()
        return None
    idle = meter.over(lambda: clock.sleep(round(IDLE_S * 1e9)))
    busy = meter.over(run)
    return None if idle is None or busy is None else draw_of(idle, busy, samples())
