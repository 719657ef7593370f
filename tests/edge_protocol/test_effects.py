"""Effects are values: equal when they say the same, and they cannot be changed on the way to the shell."""

from __future__ import annotations

import pytest

from edge_protocol.effects import Drop, Send
from edge_protocol.ids import DeviceId
from edge_protocol.messages import Rebirth


def test_effects_are_values() -> None:
    """A core's answer can be compared with what a test expects, and nobody changes it."""
    send = Send(Rebirth(), to=DeviceId("cam-1"))
    assert send == Send(Rebirth(), to=DeviceId("cam-1"))
    assert not send.retain
    assert not send.durable
    assert Drop("oversized", "a") != Drop("oversized", "b")
    with pytest.raises(AttributeError, match="immutable"):
        send.retain = True  # type: ignore[misc]
