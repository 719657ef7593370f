"""Orders that are left for a server: what happens to those that none has taken."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from broker_server.records import OrderRecord
from broker_server.store.database import REPLACED, Database
from edge_protocol.errors import TransportError
from edge_protocol.ids import DeviceId, TaskId
from roadcast.ordering import give
from tests.broker_server.rollout_scene import PLAN
from tests.broker_server.scenes import TASK


def test_a_later_order_replaces_one_that_no_server_has_taken(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Corrected while no server runs, the whole fleet does not get what was meant for some; it is said."""
    database = Database(tmp_path / "server.db")
    try:
        wide = OrderRecord(task=TASK, counter=4, order="start", by="ann", at_s=1.0, plan=PLAN)
        narrow = msgspec.structs.replace(wide, plan=msgspec.structs.replace(PLAN, to="tag=lab"))
        other = msgspec.structs.replace(wide, counter=5)
        board = OrderRecord(task=TaskId(""), counter=0, order="retire", by="ann", at_s=1.0, device=DeviceId("cam-1"))
        for order in (wide, other, board, board, narrow):
            with pytest.raises(TransportError, match="no server has taken it"):
                give(database, order, "an order", 0.0)
        left = [(order.counter, order.plan.to if order.plan else None) for order in database.orders()]
        assert left == [(5, ""), (0, None), (0, None), (4, "tag=lab")]
        assert database.answer(1) == REPLACED
        said = capsys.readouterr().err.split()
        assert " ".join(said) == "warning: an order: replaces 'start' by ann, which no server has taken"
    finally:
        database.close()
