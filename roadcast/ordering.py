"""Orders that an operator leaves for a server in its database, and the wait for its answer; owns no order's meaning."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from edge_protocol.errors import CheckFailedError, TransportError
from roadcast.output import progress, warn

if TYPE_CHECKING:
    from broker_server.records import OrderRecord
    from broker_server.store.database import Database

POLL_S = 0.2


def give(database: Database, order: OrderRecord, name: str, wait_s: float) -> None:
    """Leave an order, in place of one about the same rollout that no server has taken; wait until it is done.

    Args:
        database: the server's.
        order: what is wanted.
        name: of the order, for people.
        wait_s: at most.

    Raises:
        CheckFailedError: the server says no.
        StoreError: the disk refused.
        TransportError: no server took it in time.
    """
    if order.device is None:
        for old in database.replace_orders(order.task, order.counter):
            warn(f"{name}: replaces {old.order!r} by {old.by}, which no server has taken")
    number, until = database.add_order(order), time.monotonic() + wait_s
    progress(f"{name}: waiting for the server")
    while (answer := database.answer(number)) is None and time.monotonic() < until:
        time.sleep(POLL_S)
    if answer is None:
        raise TransportError(f"{name}: no server has taken it within {wait_s:g} s; it will when one runs here")
    if answer:
        raise CheckFailedError(f"{name}: {answer}")
