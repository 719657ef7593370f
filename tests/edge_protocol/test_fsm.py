"""State tables: a row leads on, a miss raises and tells what would have been taken."""

from __future__ import annotations

from enum import Enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edge_protocol.errors import IllegalTransitionError
from edge_protocol.fsm import permits, step, to_mermaid


class Light(Enum):
    """States of a traffic light."""

    RED = "red"
    GREEN = "green"
    DARK = "dark"


class Signal(Enum):
    """What happens to it."""

    GO = "go"
    STOP = "stop"
    FAIL = "fail"


TABLE = {
    (Light.RED, Signal.GO): Light.GREEN,
    (Light.GREEN, Signal.STOP): Light.RED,
    (Light.RED, Signal.FAIL): Light.DARK,
}


@given(st.sampled_from(Light), st.sampled_from(Signal))
def test_a_step_follows_the_table_or_raises(state: Light, event: Signal) -> None:
    """Exactly the rows are permitted; every other pair raises and names both."""
    if permits(TABLE, state, event):
        assert step(TABLE, state, event) is TABLE[state, event]
    else:
        with pytest.raises(IllegalTransitionError, match=f"{state.value}.*does not take '{event.value}'"):
            step(TABLE, state, event)


def test_the_error_lists_what_is_taken() -> None:
    """A state with rows lists their events, one without says so."""
    with pytest.raises(IllegalTransitionError, match="it takes fail, go"):
        step(TABLE, Light.RED, Signal.STOP)
    with pytest.raises(IllegalTransitionError, match="it takes nothing"):
        step(TABLE, Light.DARK, Signal.GO)


def test_the_diagram_has_every_row() -> None:
    """The Mermaid text holds one line a row, in order."""
    assert to_mermaid(TABLE).splitlines() == [
        "stateDiagram-v2",
        "    red --> green: go",
        "    green --> red: stop",
        "    red --> dark: fail",
    ]
