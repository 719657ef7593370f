"""Topic filters: whether one is legal, and what it covers (MQTT 3.1.1 §4.7). Owns no topic of ours (see `topics`)."""

from __future__ import annotations

from typing import Final

from edge_protocol.errors import LocalProtocolError

_TOPIC_BYTES: Final = 65_535


def check_filter(pattern: str) -> str:
    """Return a topic filter when it is legal.

    Raises:
        LocalProtocolError: ``bad-filter``.
    """
    *inner, last = pattern.split("/")
    wild = any("#" in level for level in inner) or ("#" in last and last != "#")
    wild = wild or any("+" in level and level != "+" for level in (*inner, last))
    if not pattern or wild or len(pattern.encode()) > _TOPIC_BYTES or "\0" in pattern:
        raise LocalProtocolError("bad-filter", f"{pattern[:120]!r} is no topic filter: '+' and '#' fill a whole level")
    return pattern


def matches(pattern: str, topic: str) -> bool:
    """Tell whether an MQTT filter covers a topic (MQTT 3.1.1 §4.7; a leading wildcard covers no `$` topic)."""
    if topic.startswith("$") and pattern[:1] in "+#":
        return False
    want, have = pattern.split("/"), topic.split("/")
    for at, level in enumerate(want):
        if level == "#":
            return True
        if at >= len(have) or level not in {"+", have[at]}:
            return False
    return len(want) == len(have)
