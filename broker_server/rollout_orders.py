"""What an operator can order about a rollout as it stands, why not, and what it waits for; pure, owns no rollout."""

from __future__ import annotations

from collections.abc import Iterable

from broker_server.records import OrderRecord, RolloutRecord
from broker_server.rollout import Rollout
from broker_server.rollout_plan import Member, Tags
from broker_server.rollout_states import MOVING, TABLE, RolloutEvent, RolloutState
from edge_protocol.ids import TaskId

_E = RolloutEvent
ORDERS = {event.value: event for event in (_E.START, _E.PAUSE, _E.RESUME, _E.ABORT, _E.ROLLBACK)}


def refusal(order: OrderRecord, rollout: Rollout | None, other: Rollout | None, current: int) -> str:
    """Say why an order cannot be done, and what can be; "" when it can.

    Args:
        order: what an operator wants.
        rollout: of that release, None when it has none that matters any more.
        other: the task's rollout that is under way.
        current: the fleet's release.
    """
    if order.order not in ORDERS:
        return f"{order.order!r} is no order"
    if rollout is None:
        return _without(order.task, order.counter, current)
    takes = orders_in(rollout.state)
    if order.order not in takes:
        able = f"it takes {' or '.join(takes)}" if takes else "it is over"
        over = f"; {_again(order.task)}" if rollout.record.ended_s else ""
        return f"the rollout of release {order.counter} is {rollout.state.value}: {able}{over}"
    if order.order == _E.START.value and other is not None:
        return f"the rollout of release {other.record.counter} is under way; abort it first"
    return ""


def orders_in(state: RolloutState) -> list[str]:
    """What an operator can order in a state."""
    found = {event.value.removesuffix("-canary") for at, event in TABLE if at is state}
    return sorted(found & ORDERS.keys())


def nobody(order: OrderRecord, members: Iterable[Member], tags: Tags) -> str:
    """Say that a start is for devices of which there is none; "" when there is one, or it is for the whole fleet."""
    if order.plan is None or not order.plan.to or any(order.plan.covers(member, tags) for member in members):
        return ""
    return f"no device that has been heard of is {order.plan.to!r}; see: roadcast devices list"


def waits_for(record: RolloutRecord, now: float) -> str:
    """What a rollout waits for before its next wave begins; "" when that is its devices, or nothing.

    Args:
        record: the rollout.
        now: seconds since 1970.
    """
    state, plan = RolloutState(record.state), record.plan
    if state is RolloutState.DRAFT:
        return "its turn" if record.starts else f"roadcast rollout start {record.task}/{record.counter}"
    if state not in MOVING or record.began_s:
        return ""
    if plan.opens_at(now) > now:
        return f"its window, {plan.window} UTC"
    return f"a device that is {plan.to!r}" if plan.to else "a first device"


def _without(task: TaskId, counter: int, current: int) -> str:
    """Say what is with a release that has no rollout, or one that is of no matter any more."""
    if counter > current:
        return f"no release {counter} of {task!r} waits for a rollout: push one with --hold"
    if counter == current:
        return f"release {counter} is the fleet's and has no rollout; {_again(task)}"
    return f"the fleet has release {current}, and the rollout of {counter}, if any, is over; {_again(task)}"


def _again(task: TaskId) -> str:
    return f"to release its files, or older ones, again: roadcast release again {task} NUMBER"
