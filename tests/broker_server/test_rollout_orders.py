"""Orders about a rollout: what each state takes, and what is said where one cannot be done."""

from __future__ import annotations

import msgspec
import pytest

from broker_server.records import OrderRecord, RolloutRecord
from broker_server.rollout import Rollout
from broker_server.rollout_orders import ORDERS, orders_in, refusal, waits_for
from broker_server.rollout_states import RolloutState
from tests.broker_server.rollout_scene import PLAN
from tests.broker_server.scenes import TASK

TAKES = {
    "draft": ["abort", "start"],
    "canary": ["abort", "pause"],
    "ramping": ["abort", "pause"],
    "paused": ["abort", "resume"],
    "complete": ["rollback"],
    "aborted": [],
}


@pytest.mark.parametrize("state", RolloutState)
def test_a_state_takes_its_orders_and_says_so_to_others(state: RolloutState) -> None:
    """No event that only the server fires is offered, and a refusal is a sentence without names of the code."""
    assert orders_in(state) == TAKES[state.value]
    rollout = Rollout(RolloutRecord(task=TASK, counter=2, plan=PLAN, by="ann", state=state.value), {})
    for name in ORDERS:
        order = OrderRecord(task=TASK, counter=2, order=name, by="ann", at_s=1.0)
        said = refusal(order, rollout, None, 1)
        assert (said == "") == (name in TAKES[state.value])
        assert not said or said.startswith(f"the rollout of release 2 is {state.value}: it ")


@pytest.mark.parametrize(
    ("changed", "waits"),
    [
        ({}, "roadcast rollout start vehicle/2"),
        ({"starts": True}, "its turn"),
        ({"state": "canary"}, "its window, 01:00-04:00 UTC"),
        ({"state": "canary", "began_s": 5.0}, ""),
        ({"state": "paused"}, ""),
        ({"state": "ramping", "plan": msgspec.structs.replace(PLAN, to="tag=x")}, "a device that is 'tag=x'"),
        ({"state": "ramping", "plan": PLAN}, "a first device"),
    ],
)
def test_a_rollout_says_what_it_waits_for(changed: dict[str, object], waits: str) -> None:
    """A start, its turn, a window that is closed, devices of which there is none; not what its devices do."""
    plan = msgspec.structs.replace(PLAN, window="01:00-04:00")
    record = RolloutRecord(task=TASK, counter=2, plan=plan, by="ann")
    assert waits_for(record.changed(**changed), 12 * 3600.0) == waits
