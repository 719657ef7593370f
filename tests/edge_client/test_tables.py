"""The tables of a device: every row can be reached, everything else is refused."""

from __future__ import annotations

from enum import Enum
from itertools import product

import pytest

from edge_client.deployment import BUSY, DEPLOYMENT, ENDED, Stage, Step
from edge_client.governor import JOB, Phase
from edge_client.session import ONLINE, SESSION, Session, SessionEvent
from edge_protocol.errors import IllegalTransitionError
from edge_protocol.fsm import Table, step


def reachable(table: Table[Enum, Enum], start: Enum) -> set[Enum]:
    """States that events lead to from `start`."""
    found = {start}
    while new := {to for (state, _), to in table.items() if state in found} - found:
        found |= new
    return found


@pytest.mark.parametrize(
    ("table", "start", "states"),
    [(SESSION, Session.OFFLINE, Session), (DEPLOYMENT, Stage.IDLE, Stage), (JOB, Phase.WAITING, Phase)],
)
def test_every_state_can_be_reached_and_no_row_is_dead(
    table: Table[Enum, Enum], start: Enum, states: type[Enum]
) -> None:
    """From the first state, events lead to every state, so every row can be taken."""
    assert reachable(table, start) == set(states)
    assert {state for state, _ in table} == set(states)


@pytest.mark.parametrize(("table", "states", "events"), [(SESSION, Session, SessionEvent), (DEPLOYMENT, Stage, Step)])
def test_what_has_no_row_is_refused(table: Table[Enum, Enum], states: type[Enum], events: type[Enum]) -> None:
    """An event without a row raises, and names the events that would be taken."""
    for state, event in product(states, events):
        if (state, event) not in table:
            with pytest.raises(IllegalTransitionError, match="it takes"):
                step(table, state, event)


def test_only_a_probation_or_the_running_release_leads_to_committed() -> None:
    """No row but PASS and KEEP ends in COMMITTED."""
    leading = {(state, event) for (state, event), to in DEPLOYMENT.items() if to is Stage.COMMITTED}
    assert leading == {(Stage.PROBATION, Step.PASS), (Stage.OFFERED, Step.KEEP)}


def test_a_newer_offer_is_taken_in_every_stage() -> None:
    """The desired release may change at any time."""
    assert all(DEPLOYMENT[stage, Step.OFFER] is Stage.OFFERED for stage in Stage)
    assert set(BUSY) | set(ENDED) | {Stage.IDLE, Stage.COMMITTED} == set(Stage)


def test_the_link_can_be_lost_and_the_agent_stopped_in_every_state_online() -> None:
    """LOSE leads to CONNECTING, STOP to OFFLINE."""
    assert all(SESSION[state, SessionEvent.LOSE] is Session.CONNECTING for state in ONLINE)
    assert all(SESSION[state, SessionEvent.STOP] is Session.OFFLINE for state in (*ONLINE, Session.CONNECTING))
