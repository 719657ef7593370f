"""``bench run --device``: asks a server to have a device measured, and waits for what it says; owns no link."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from broker_server.measuring import MEASURE
from broker_server.operators import operator
from broker_server.records import OrderRecord
from edge_protocol.errors import CheckFailedError, ConfigError, TransportError
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.measuring import MOST_SECONDS
from roadcast.ordering import POLL_S, give

if TYPE_CHECKING:
    from broker_server.store.database import Database


def measure_device(state_dir: Path, device: str, task: str | None, seconds: float, wait_s: float) -> dict[str, Any]:
    """Have a device measure what it serves, and return what it said.

    Args:
        state_dir: of the server.
        device: its name.
        task: which of its tasks; None for the only one.
        seconds: how long it measures.
        wait_s: for the answer, beyond that.

    Raises:
        CheckFailedError: the server or the device says no.
        ConfigError: no such device or task here, or too many seconds.
        NotReadyError: no server has run on this folder.
        TransportError: no answer in time.
    """
    from broker_server.status import measurement, open_database

    if not 0 < seconds <= MOST_SECONDS:
        raise ConfigError(f"--seconds: a device measures for {MOST_SECONDS:g} s at most, got {seconds:g}")
    database = open_database(state_dir)
    try:
        name, chosen, by = DeviceId(device), _task(database, device, task), operator()
        before = database.measurements().get((name, chosen))
        order = OrderRecord(
            task=chosen, counter=0, order=MEASURE, by=by, at_s=time.time(), device=name, seconds=seconds
        )
        give(database, order, f"measure {device}", wait_s)
        until = time.monotonic() + seconds + wait_s
        while (found := database.measurements().get((name, chosen))) is None or found == before:
            if time.monotonic() > until:
                says = f"{device} has not answered within {seconds + wait_s:g} s; it may still: roadcast server status"
                raise TransportError(says)
            time.sleep(POLL_S)
    finally:
        database.close()
    if found[1].reason:
        raise CheckFailedError(f"{device}: {found[1].reason}")
    return {"device": device, "task": chosen, **measurement(*found)}


def _task(database: Database, device: str, task: str | None) -> TaskId:
    known = next((record for record in database.devices() if record.device == device), None)
    if known is None:
        raise ConfigError(f"--device: no {device!r} in this server's fleet; see: roadcast server status")
    tasks = [runs.task for runs in known.tasks]
    if task is None and len(tasks) == 1:
        return tasks[0]
    if task not in tasks:
        raise ConfigError(f"--task: {device} runs {', '.join(tasks) or 'nothing'}; name one of them")
    return TaskId(task)
