"""What devices did, as a file beside the database: for `roadcast devices list` and the next server. Owns its form."""

from __future__ import annotations

from pathlib import Path

import msgspec

from broker_server.conduct import Conduct, Offences
from broker_server.periods import NEVER, over
from edge_protocol.files import write_atomic

NAME = "conduct.json"
EVERY_S = 5.0


def read_conduct(state_dir: Path) -> Offences:
    """Read what the last server wrote; nothing when there is nothing, or nothing that can be read."""
    try:
        return msgspec.json.decode((state_dir / NAME).read_bytes(), type=Offences)
    except (OSError, msgspec.MsgspecError):
        return {}


class ConductFile:
    """Writes it now and then, when it has changed.

    Args:
        state_dir: the server's.
        conduct: whose.
    """

    def __init__(self, state_dir: Path, conduct: Conduct) -> None:
        self._path, self._conduct = state_dir / NAME, conduct
        self._written, self._saved_s = b"", NEVER

    def save(self, now: float) -> None:
        """Write it when it is due.

        Raises:
            StoreError: the disk refused.
        """
        if not over(self._saved_s, EVERY_S, now):
            return
        self._saved_s = now
        self._conduct.forget(now)
        data = msgspec.json.encode(self._conduct.offences)
        if data != self._written:
            write_atomic(self._path, data)
            self._written = data
