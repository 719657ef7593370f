"""Messages of a small fleet, encoded as devices and server do: the recording that observer and report are tested on."""

from __future__ import annotations

from os import urandom

from edge_models.tasks import load_task
from edge_protocol import codec
from edge_protocol import messages as m
from edge_protocol.blobs import cut
from edge_protocol.ids import DeviceId, FleetId, TaskId
from edge_protocol.manifest import Artifact, ReleaseManifest, encode_manifest
from edge_protocol.topics import Topics

FLEET = "demo"
TOPICS = Topics(FleetId(FLEET))
BLOB, _ = cut(b"x" * 10)
Spoken = tuple[str, bytes]


def pack(sender: str, body: m.Body) -> bytes:
    """Encode with a header of `sender`."""
    header = m.Header(FLEET, sender, urandom(16), urandom(8), 0, 1.0, clock_trusted=True)
    return codec.encode(header, body)


def up(device: str, body: m.Body) -> Spoken:
    """A message from a device on its topic."""
    if isinstance(body, m.Presence):
        return TOPICS.online(DeviceId(device)), pack(device, body)
    return TOPICS.up(DeviceId(device), codec.kind_of(body)), pack(device, body)


def birth(device: str, task: str = "vehicle", tier: str = "nano", release: int = 0) -> Spoken:
    """A device says who it is."""
    running = m.RunningTask(task, "0" * 16, tier, "depthwise", release)
    return up(device, m.Birth("board", "0.1", "onnxruntime", 2, 1 << 30, (running,)))


def state(device: str, release: int, up_down: tuple[int, int], task: str = "vehicle", **values: float) -> Spoken:
    """A device says how it is doing."""
    counts = {"frames": 10, "answered": 10, "swap_skipped": 0, "bytes_up": up_down[0], "bytes_down": up_down[1]}
    return up(device, m.DeviceState(task, "idle", release, counts, values))


def release(counter: int, *, task: str = "vehicle", accuracy: float = 0.5) -> Spoken:
    """The server publishes a release."""
    artifact = Artifact("nano", "depthwise", BLOB, BLOB, BLOB, 1000)
    manifest = ReleaseManifest(FLEET, counter, load_task(task), 1.0, (artifact,), {"nano/accuracy": accuracy})
    return TOPICS.release(TaskId(task)), pack("server", m.ReleaseOffer(encode_manifest(manifest)))


def call(number: int, *, collecting: bool = True, task: str = "vehicle") -> Spoken:
    """The server opens or closes a round."""
    body = m.RoundCall(task, "0" * 16, number, 1, BLOB, 9.0, collecting)
    return TOPICS.round(TaskId(task)), pack("server", body)
