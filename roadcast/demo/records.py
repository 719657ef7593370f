"""What the server has written down, read beside it: rounds, releases, heads. Owns no rule about them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from typing_extensions import Self

from edge_protocol.ids import TaskId
from edge_protocol.manifest import ReleaseManifest, decode_manifest
from roadcast.demo.configs import Places
from roadcast.demo.fleet import Member

if TYPE_CHECKING:
    from broker_server.store.database import Database

_CLOSED = {"released", "abandoned"}


class Records:
    """The server's database, read only.

    Args:
        state: the server's state folder, in which the server has begun.
    """

    def __init__(self, state: Path) -> None:
        from broker_server.store.database import Database

        self._database: Database = Database(state / "server.db")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()

    def newest(self) -> dict[str, int]:
        """Counter of the newest release of each task."""
        return {str(task): counter for task, counter in self._database.newest().items()}

    def over(self, tasks: Iterable[str], limit: int) -> bool:
        """Whether the last round of every task is over."""
        return all(
            any(r.number >= limit and r.state in _CLOSED for r in self._database.rounds(TaskId(task), limit=1))
            for task in tasks
        )

    def outcomes(self, task: str) -> list[str]:
        """What came of each round of a task, from the first release (round 0) on."""
        return [
            record.state if record.state == "released" else f"{record.state}: {record.reason}"
            for record in self._database.rounds(TaskId(task))
        ]

    def manifests(self, task: str) -> list[ReleaseManifest]:
        """Every release of a task, oldest first."""
        return [decode_manifest(record.manifest) for record in self._database.releases(TaskId(task))]


def keep_heads(places: Places, members: Iterable[Member]) -> None:
    """Copy personal heads that are new: a device keeps only the last two, and the evaluation needs the first."""
    for member in members:
        kept = places.heads / member.name
        for choice in (places.device_state(member.name) / member.task / "heads").glob("*.json"):
            head = choice.with_suffix(".safetensors")
            if not (kept / head.name).exists() and head.exists():
                kept.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(head, kept / head.name)
