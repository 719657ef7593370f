"""Topics: building and parsing, each the inverse of the other; owns every topic string of the project.

::

    <prefix>/v1/<fleet>/d/<device>/up/<kind>      device → server
    <prefix>/v1/<fleet>/d/<device>/down/<kind>    server → device
    <prefix>/v1/<fleet>/d/<device>/online         retained; last will
    <prefix>/v1/<fleet>/all/release/<task>        retained, signed; the desired state
    <prefix>/v1/<fleet>/all/round/<task>          retained RoundCall
    <prefix>/v1/<fleet>/blob/<sha256>/<index>     retained content-addressed chunk
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from edge_protocol.errors import LocalProtocolError, RemoteProtocolError
from edge_protocol.ids import DeviceId, FleetId, TaskId, check_id

VERSION: Final = "v1"
UP_KINDS: Final = ("birth", "state", "knowledge", "telemetry", "deployment", "need", "result")
DOWN_KINDS: Final = ("ack", "command")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_INDEX = re.compile(r"0|[1-9][0-9]{0,6}")


@dataclass(frozen=True, slots=True)
class Uplink:
    """A message from a device."""

    device: DeviceId
    kind: str


@dataclass(frozen=True, slots=True)
class Downlink:
    """A message to one device."""

    device: DeviceId
    kind: str


@dataclass(frozen=True, slots=True)
class Presence:
    """Whether a device is connected, as its last will tells."""

    device: DeviceId


@dataclass(frozen=True, slots=True)
class ReleaseTopic:
    """The desired release of a task."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class RoundTopic:
    """The open round of a task."""

    task: TaskId


@dataclass(frozen=True, slots=True)
class ChunkTopic:
    """One chunk of a blob."""

    sha256: str
    index: int


Topic = Uplink | Downlink | Presence | ReleaseTopic | RoundTopic | ChunkTopic


class Topics:
    """Builds and parses the topics of one fleet.

    Args:
        fleet: the fleet's name.
        prefix: first topic level, ``rc`` unless the broker is shared with other software.

    Raises:
        LocalProtocolError: a name holds a character that a topic may not.
    """

    def __init__(self, fleet: FleetId, prefix: str = "rc") -> None:
        self.fleet = FleetId(check_id(fleet, "fleet"))
        self._root = f"{check_id(prefix, 'topic prefix')}/{VERSION}/{fleet}"

    def up(self, device: DeviceId, kind: str) -> str:
        """Topic of a device's message of `kind`."""
        return f"{self._root}/d/{_known(device, kind, UP_KINDS)}/up/{kind}"

    def down(self, device: DeviceId, kind: str) -> str:
        """Topic of a message of `kind` to a device."""
        return f"{self._root}/d/{_known(device, kind, DOWN_KINDS)}/down/{kind}"

    def online(self, device: DeviceId) -> str:
        """Topic of a device's retained presence."""
        return f"{self._root}/d/{check_id(device, 'device')}/online"

    def release(self, task: TaskId) -> str:
        """Topic of a task's retained, signed release."""
        return f"{self._root}/all/release/{check_id(task, 'task')}"

    def round(self, task: TaskId) -> str:
        """Topic of a task's retained round call."""
        return f"{self._root}/all/round/{check_id(task, 'task')}"

    def chunk(self, sha256: str, index: int) -> str:
        """Topic of chunk `index` of the blob with that hash."""
        if not _SHA256.fullmatch(sha256) or index < 0:
            raise LocalProtocolError(
                "bad-blob", f"blob {sha256[:80]!r} chunk {index}: need 64 hex digits and an index ≥ 0"
            )
        return f"{self._root}/blob/{sha256}/{index}"

    @property
    def every_uplink(self) -> tuple[str, str]:
        """Filters that the server subscribes to."""
        return f"{self._root}/d/+/up/+", f"{self._root}/d/+/online"

    def every_downlink(self, device: DeviceId) -> str:
        """Filter for all messages to one device."""
        return f"{self._root}/d/{check_id(device, 'device')}/down/+"

    def parse(self, topic: str) -> Topic:
        """Say what a topic means.

        Raises:
            RemoteProtocolError: ``wrong-fleet`` or ``unknown-topic``.
        """
        head, _, tail = topic.partition(f"/{VERSION}/")
        if f"{head}/{VERSION}/{self.fleet}" != self._root or not tail.startswith(f"{self.fleet}/"):
            raise RemoteProtocolError("wrong-fleet", f"topic {topic[:120]!r} is not under {self._root!r}")
        found = _parse_tail(tail.split("/")[1:])
        if found is None:
            raise RemoteProtocolError("unknown-topic", f"topic {topic[:120]!r} has no meaning here")
        return found


def _known(device: DeviceId, kind: str, kinds: tuple[str, ...]) -> str:
    if kind not in kinds:
        raise LocalProtocolError("bad-kind", f"message kind {kind!r} is not one of {', '.join(kinds)}")
    return check_id(device, "device")


def _parse_tail(levels: list[str]) -> Topic | None:
    match levels:
        case ["d", device, "up", kind] if kind in UP_KINDS:
            return Uplink(DeviceId(device), kind)
        case ["d", device, "down", kind] if kind in DOWN_KINDS:
            return Downlink(DeviceId(device), kind)
        case ["d", device, "online"]:
            return Presence(DeviceId(device))
        case ["all", "release", task]:
            return ReleaseTopic(TaskId(task))
        case ["all", "round", task]:
            return RoundTopic(TaskId(task))
        case ["blob", sha256, index] if _SHA256.fullmatch(sha256) and _INDEX.fullmatch(index):
            return ChunkTopic(sha256, int(index))
        case _:
            return None
