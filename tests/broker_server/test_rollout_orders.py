"""Orders about a rollout: what each state takes, and what is said where one cannot be done."""

from __future__ import annotations

import pytest

from broker_server.records import OrderRecord, RolloutRecord
from broker_server.rollout import Rollout
from broker_server.rollout_orders import ORDERS, orders_in, refusal
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
