"""State machines as tables; owns the one rule for taking a step.

A table is data: ``{(state, event): next_state}``. A miss raises and changes nothing. Time is never read here.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TypeVar

from edge_protocol.errors import IllegalTransitionError

S = TypeVar("S", bound=Enum)
E = TypeVar("E", bound=Enum)

Table = Mapping[tuple[S, E], S]


def step(table: Table[S, E], state: S, event: E) -> S:
    """Return the state that `event` leads to from `state`.

    Raises:
        IllegalTransitionError: the table has no such row; the message lists the events that `state` takes.
    """
    try:
        return table[state, event]
    except KeyError:
        taken = sorted(str(e.value) for s, e in table if s is state) or ["nothing"]
        raise IllegalTransitionError(
            f"{type(state).__name__} {state.value!r} does not take {event.value!r}; it takes {', '.join(taken)}"
        ) from None


def permits(table: Table[S, E], state: S, event: E) -> bool:
    """Tell whether `event` has a row for `state`."""
    return (state, event) in table


def to_mermaid(table: Table[S, E]) -> str:
    """Draw the table as a Mermaid state diagram, one line per row, in the table's own order."""
    rows = [f"    {a.value} --> {b.value}: {event.value}" for (a, event), b in table.items()]
    return "\n".join(["stateDiagram-v2", *rows])
