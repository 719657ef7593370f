"""Names that appear in topics, and the one rule they obey; owns no registry of them."""

from __future__ import annotations

import re
from typing import NewType

from edge_protocol.errors import ConfigError, LocalProtocolError

FleetId = NewType("FleetId", str)
DeviceId = NewType("DeviceId", str)
TaskId = NewType("TaskId", str)

SERVER = DeviceId("server")
"""The sender's name in messages that the server sends; no device may have it."""

_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def check_id(text: str, what: str) -> str:
    """Return `text` when it is a legal name in a topic.

    Raises:
        LocalProtocolError: it is empty, longer than 64, or holds anything but letters, digits, `_` and `-`.
    """
    if not _ID.fullmatch(text):
        raise LocalProtocolError("bad-id", f"{what} {text[:80]!r} must be 1 to 64 of letters, digits, '_' and '-'")
    return text


def given_id(text: str, what: str) -> str:
    """Return a name that somebody wrote, when it is a legal one in a topic.

    Raises:
        ConfigError: as `check_id`.
    """
    try:
        return check_id(text, what)
    except LocalProtocolError as error:
        raise ConfigError(str(error)) from error
