"""Topic filters: legality and coverage, against the examples of the MQTT 3.1.1 specification."""

from __future__ import annotations

import pytest

from edge_protocol.errors import LocalProtocolError
from edge_protocol.transport.filters import check_filter, matches


@pytest.mark.parametrize("pattern", ["#", "+", "a", "a/#", "+/a/+", "/", "/a", "a//b", "$SYS/#"])
def test_legal_filters_pass(pattern: str) -> None:
    """Wildcards that fill a level, and empty levels, are legal (§4.7.1)."""
    assert check_filter(pattern) == pattern


@pytest.mark.parametrize("pattern", ["", "a#", "a/#/b", "#/a", "a+", "+a/b", "##", "\0", "ü" * 40_000])
def test_illegal_filters_are_refused(pattern: str) -> None:
    """Half a level of wildcard, an early '#', NUL and over-long filters are not (§4.7.1, §4.7.3)."""
    with pytest.raises(LocalProtocolError) as error:
        check_filter(pattern)
    assert error.value.reason == "bad-filter"


@pytest.mark.parametrize(
    ("pattern", "topic", "covered"),
    [
        ("sport/tennis/player1/#", "sport/tennis/player1", True),
        ("sport/tennis/player1/#", "sport/tennis/player1/score/wimbledon", True),
        ("sport/tennis/+", "sport/tennis/player1/ranking", False),
        ("sport/+", "sport", False),
        ("sport/+", "sport/", True),
        ("+/+", "/finance", True),
        ("/+", "/finance", True),
        ("+", "/finance", False),
        ("#", "$SYS/broker", False),
        ("+/broker", "$SYS/broker", False),
        ("$SYS/#", "$SYS/broker", True),
        ("a/b", "a/b/c", False),
        ("a/b/c", "a/b", False),
    ],
)
def test_coverage_follows_the_specification(pattern: str, topic: str, covered: bool) -> None:
    """The examples of §4.7.1 and §4.7.2."""
    assert matches(pattern, topic) is covered
