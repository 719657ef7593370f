"""Topics: building and parsing, each the inverse of the other; owns every topic string of the project.

::

    <prefix>/v1/<fleet>/d/<device>/up/<kind>      device → server
    <prefix>/v1/<fleet>/d/<device>/down/<kind>    server → device
    <prefix>/v1/<fleet>/d/<device>/online         retained; last will
    <prefix>/v1/<fleet>/d/<device>/release/<task> retained; a release that this device gets ahead of the fleet
    <prefix>/v1/<fleet>/all/release/<task>        retained; the desired state
    <prefix>/v1/<fleet>/all/tuf/<name>            retained signed metadata: what may be a release at all
    <prefix>/v1/<fleet>/all/round/<task>          retained RoundCall or PrototypeCall
    <prefix>/v1/<fleet>/blob/<sha256>/<index>     retained content-addressed chunk
"""

from __future__ import annotations

import re
from typing import Final

import msgspec

from edge_protocol.blobs import MAX_CHUNKS
from edge_protocol.errors import LocalProtocolError, RemoteProtocolError
from edge_protocol.ids import SERVER, DeviceId, FleetId, TaskId, check_id

VERSION: Final = "v1"
UP_KINDS: Final = ("birth", "state", "knowledge", "telemetry", "deployment", "need", "result", "measured")
DOWN_KINDS: Final = ("ack", "command")

_SHA256 = re.compile(r"[0-9a-f]{64}")
_METADATA = re.compile(r"[1-9][0-9]{0,6}\.root|timestamp|snapshot|targets|task-[A-Za-z0-9_-]{1,64}")
_INDEX = re.compile(r"0|[1-9][0-9]{0,6}")


class Uplink(msgspec.Struct, frozen=True):
    """A message from a device."""

    device: DeviceId
    kind: str


class Downlink(msgspec.Struct, frozen=True):
    """A message to one device."""

    device: DeviceId
    kind: str


class Presence(msgspec.Struct, frozen=True):
    """Whether a device is connected, as its last will tells."""

    device: DeviceId


class ReleaseTopic(msgspec.Struct, frozen=True):
    """The desired release of a task: the fleet's, or the one that a device gets ahead of it."""

    task: TaskId
    device: DeviceId | None = None


class MetadataTopic(msgspec.Struct, frozen=True):
    """Signed metadata of The Update Framework, by file name without ``.json``."""

    name: str


class RoundTopic(msgspec.Struct, frozen=True):
    """The open round of a task."""

    task: TaskId


class ChunkTopic(msgspec.Struct, frozen=True):
    """One chunk of a blob."""

    sha256: str
    index: int


Topic = Uplink | Downlink | Presence | ReleaseTopic | MetadataTopic | RoundTopic | ChunkTopic


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
        return f"{self._root}/d/{_device(device)}/online"

    def release(self, task: TaskId, device: DeviceId | None = None) -> str:
        """Topic of a task's retained release: the fleet's, or one device's own."""
        place = "all" if device is None else f"d/{_device(device)}"
        return f"{self._root}/{place}/release/{_task(task)}"

    def metadata(self, name: str) -> str:
        """Topic of signed metadata: ``<version>.root``, ``timestamp``, ``snapshot``, ``targets`` or ``task-<task>``."""
        return f"{self._root}/all/tuf/{_metadata(name)}"

    def round(self, task: TaskId) -> str:
        """Topic of a task's retained round call."""
        return f"{self._root}/all/round/{_task(task)}"

    def desired(self, device: DeviceId, task: TaskId) -> list[str]:
        """Topics that a device of this task keeps to: its own release, the fleet's, the round."""
        return [self.release(task, device), self.release(task), self.round(task)]

    def chunk(self, sha256: str, index: int) -> str:
        """Topic of chunk `index` of the blob with that hash."""
        sha256, index = _chunk(sha256, index)
        return f"{self._root}/blob/{sha256}/{index}"

    @property
    def every_uplink(self) -> tuple[str, str]:
        """Filters that the server subscribes to."""
        return f"{self._root}/d/+/up/+", f"{self._root}/d/+/online"

    def every_downlink(self, device: DeviceId) -> str:
        """Filter for all messages to one device."""
        return f"{self._root}/d/{_device(device)}/down/+"

    def parse(self, topic: str) -> Topic:
        """Say what a topic means.

        Raises:
            RemoteProtocolError: ``wrong-fleet`` or ``unknown-topic``.
        """
        if not topic.startswith(f"{self._root}/"):
            raise RemoteProtocolError("wrong-fleet", f"topic {topic[:120]!r} is not under {self._root!r}")
        try:
            return _parse_tail(topic[len(self._root) + 1 :].split("/"))
        except LocalProtocolError as error:
            raise RemoteProtocolError("unknown-topic", f"topic {topic[:120]!r} has no meaning here: {error}") from error


def _known(device: DeviceId, kind: str, kinds: tuple[str, ...]) -> str:
    if kind not in kinds:
        raise LocalProtocolError("bad-kind", f"message kind {kind!r} is not one of {', '.join(kinds)}")
    return _device(device)


def _device(text: str) -> DeviceId:
    if text == SERVER:
        raise LocalProtocolError("bad-id", f"no device may be called {SERVER!r}")
    return DeviceId(check_id(text, "device"))


def _task(text: str) -> TaskId:
    return TaskId(check_id(text, "task"))


def _metadata(name: str) -> str:
    if not _METADATA.fullmatch(name):
        raise LocalProtocolError("bad-metadata", f"{name[:80]!r} is no name of signed metadata")
    return name


def _parse_tail(levels: list[str]) -> Topic:
    found: Topic
    match levels:
        case ["d", device, "up", kind] if kind in UP_KINDS:
            found = Uplink(_device(device), kind)
        case ["d", device, "down", kind] if kind in DOWN_KINDS:
            found = Downlink(_device(device), kind)
        case ["d", device, "online"]:
            found = Presence(_device(device))
        case ["d", device, "release", task]:
            found = ReleaseTopic(_task(task), _device(device))
        case ["all", "release", task]:
            found = ReleaseTopic(_task(task))
        case ["all", "tuf", name]:
            found = MetadataTopic(_metadata(name))
        case ["all", "round", task]:
            found = RoundTopic(_task(task))
        case ["blob", sha256, index] if _INDEX.fullmatch(index):
            found = ChunkTopic(*_chunk(sha256, int(index)))
        case _:
            raise LocalProtocolError("unknown-topic", "see docs/wire-format.md for the topics there are")
    return found


def _chunk(sha256: str, index: int) -> tuple[str, int]:
    if not _SHA256.fullmatch(sha256) or not 0 <= index < MAX_CHUNKS:
        detail = f"blob {sha256[:80]!r} chunk {index}: need 64 hex digits and an index of 0 to {MAX_CHUNKS - 1}"
        raise LocalProtocolError("bad-blob", detail)
    return sha256, index
