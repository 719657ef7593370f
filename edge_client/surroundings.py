"""Finds out what the fetch policy asks for: the hour, whether the link is metered, whether it is urgent."""

from __future__ import annotations

import subprocess
import time
from math import inf
from pathlib import Path
from typing import Protocol

from edge_client.fetch_policy import FetchConfig, Surroundings

LOOK_S = 5.0
COMMAND_S = 60.0
"""Seconds between two runs of the command; one that takes as long is killed, and the link counts as metered."""
URGENT = "fetch-now"
"""File in the state directory that makes fetching urgent while it is there."""
_NO = {"", "0", "no", "false"}


class Look(Protocol):
    """Looks around for the fetch policy."""

    def __call__(self, now: float) -> Surroundings:
        """Say what was found, at `now` (s) or shortly before."""
        ...

    def close(self) -> None:
        """End what it has started."""
        ...


class Lookout:
    """Looks around every few seconds; used by one thread only, and never waits.

    Args:
        config: the policy.
        state: the state directory.
    """

    def __init__(self, config: FetchConfig, state: Path) -> None:
        self._config, self._state = config, state
        self._seen, self._look_at = Surroundings(), -inf
        self._command: subprocess.Popen[bytes] | None = None
        self._command_at, self._costs = -inf, bool(config.metered_command)

    def __call__(self, now: float) -> Surroundings:
        """Return what was found within the last few seconds before `now` (s, monotonic)."""
        if now >= self._look_at:
            self._look_at = now + LOOK_S
            local = time.localtime()
            metered = self._config.metered or self._file() or (bool(self._config.metered_command) and self._asked(now))
            self._seen = Surroundings(local.tm_hour * 60 + local.tm_min, metered, (self._state / URGENT).exists())
        return self._seen

    def close(self) -> None:
        """End a command that runs."""
        if self._command is not None:
            self._command.kill()
            self._command.wait()
            self._command = None

    def _file(self) -> bool:
        """What the file says; one that is there and cannot be read counts as a metered link."""
        path = self._config.metered_file
        if path is None:
            return False
        try:
            with Path(path).open("rb") as file:
                said = file.read(16)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        return said.decode(errors="replace").strip().lower() not in _NO

    def _asked(self, now: float) -> bool:
        """What the command said last; until it has, and when it cannot run, the link counts as metered."""
        if self._command is not None and (code := self._command.poll()) is not None:
            self._costs, self._command = code == 0, None
        if now >= self._command_at:
            self._command_at = now + COMMAND_S
            if self._command is not None:
                self.close()
                self._costs = True
            try:
                self._command = subprocess.Popen(
                    self._config.metered_command,
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            except OSError:
                self._costs = True
        return self._costs
