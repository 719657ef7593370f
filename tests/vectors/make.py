"""Writes the golden vectors: one JSON file for each message type, with its bytes and what they mean.

Run ``python -m tests.vectors.make`` after a change of the wire contract that is meant to be one; read the difference
before you commit it, for devices in the field speak the old bytes.
"""

from __future__ import annotations

import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from edge_models.trunk_changes import encode_change
from edge_protocol import codec
from edge_protocol import messages as m
from edge_protocol.arrays import pack
from edge_protocol.blobs import cut
from edge_protocol.manifest import Artifact, Delta, ReleaseManifest, encode_manifest
from edge_protocol.prototypes import told_arrays
from edge_protocol.task import ImageInput, TaskSpec
from edge_protocol.trunks import TrunkAsk, TrunkChange
from edge_protocol.vote_codec import encode_votes
from edge_protocol.votes import forecast_values, forecast_votes

FOLDER = Path(__file__).parent
FLEET = "demo"


def header(number: int, sender: str = "cam-1") -> m.Header:
    """A header that differs by `number`."""
    return m.Header(FLEET, sender, bytes([number]) * 16, b"bootboot", number, 1_790_000_000.5 + number, True)


def manifest() -> ReleaseManifest:
    """A release of a small camera task with one artifact, plain and in INT8."""
    template, weights, golden = (cut(name * 50, 64)[0] for name in (b"template", b"weights", b"golden"))
    task = TaskSpec(
        name="vehicle",
        title="Vehicle types",
        kind="classify",
        plugin="edge_models.kinds.classify",
        labels=("bike", "car", "truck"),
        input=ImageInput(height=32, width=32, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25)),
        students={"nano": "depthwise", "small": "residual", "base": "mixer"},
    )
    deltas = (Delta(sha256(b"weights of release 2").hexdigest(), cut(b"delta" * 20, 64)[0]),)
    artifact = Artifact("nano", "depthwise", template, weights, golden, 20_000, deltas)
    int8 = msgspec.structs.replace(artifact, deltas=(), variant="int8-cpu")
    metrics = {"nano/accuracy": 0.75}
    return ReleaseManifest(FLEET, 3, task, 1_790_000_000.0, (artifact, int8), metrics, 2, "first light")


def examples() -> dict[str, tuple[m.Header, m.Body]]:
    """One message of each type, and one of each kind of votes, by name."""
    votes = m.ClassVotes(
        pack(np.array([0, 2, 1], "u1")),
        pack(np.array([3, 2, 0], "u1")),
        pack(np.array([1, 7, 4], "u1")),
        pack(np.array([1, 0, 1], "u1")),
    )
    forecasts = m.ForecastVotes(
        pack(np.array([[0.5, -1.25], [0.0, 2.0]], "<f2")),
        pack(np.array([[1.0, 0.5], [0.25, 4.0]], "<f2")),
    )
    digest = sha256(b"proxy").hexdigest()
    short = bytes.fromhex(digest)[: m.PROXY_BYTES]
    later = m.ClassVotes(votes.classes, pack(np.array([3, 2, 1], "u1")), pack(np.array([1, 6, 4], "u1")), votes.held)
    means = (np.arange(3 * 64, dtype=np.float32) / 64 - 1).reshape(3, 64)
    steps = forecast_votes(*forecast_values(forecasts))
    change = encode_change({"trunk.w": np.array([[0.5, -1.0]], "f4"), "trunk.b": np.array([0.25], "f4")})
    proxy = cut(b"proxy samples" * 20, 64)[0]
    bodies: dict[str, m.Body] = {
        "birth": m.Birth(
            "orin-nano", "0.1.0", "ort 1.20", 6, 8 << 30, (m.RunningTask("vehicle", "ab12", "nano", "dw", 2),)
        ),
        "state": m.DeviceState("vehicle", "idle", 2, {"frames": 1000, "drop:oversized": 1}, {"latency_p50_ms": 3.5}),
        "knowledge-classes": m.KnowledgeReport("vehicle", "ab12", 4, 2, digest, 321, votes),
        "knowledge-forecasts": m.KnowledgeReport("speed", "cd34", 1, 1, digest, 42, forecasts),
        "telemetry": m.Telemetry({"temperature_c": 51.5, "power_w": 7.25}),
        "deployment": m.Deployment("vehicle", 3, "rolled_back", 2, sha256(b"weights").hexdigest(), "golden differs"),
        "need": m.Need(digest, (0, 1, 300)),
        "result": m.IntervalResult("vehicle", "road", 1_790_000_000.0, 1_790_000_060.0, 0.5, {"a/in/car": 12.0}),
        "ack": m.Ack(bytes(range(16)), accepted=True),
        "rebirth": m.Rebirth(),
        "label": m.Label("vehicle", "road-000017", "truck"),
        "round": m.RoundCall("vehicle", "ab12", 5, 3, proxy, 1_790_000_900.0, open=True),
        "release": m.ReleaseOffer(encode_manifest(manifest())),
        "presence": m.Presence(online=True),
        "coded-classes": m.CodedReport("vehicle", "ab12", 4, 2, short, 321, encode_votes(votes)),
        "coded-classes-later": m.CodedReport("vehicle", "ab12", 5, 3, short, 321, encode_votes(later, votes, 4)),
        "coded-forecasts": m.CodedReport("speed", "cd34", 1, 1, short, 42, encode_votes(steps)),
        "measure": m.Measure("vehicle", 5.0),
        "measured": m.Measured(
            "vehicle", bytes(range(16)), 3, "CPUExecutionProvider", 4000, {"p50_ms": 1.25, "p95_ms": 1.5}
        ),
        "prototype-call": m.PrototypeCall("vehicle", "ab12", 6, 3, 1_790_000_900.0, open=True),
        "prototypes": m.PrototypeReport("vehicle", "ab12", 6, 3, "nano", *told_arrays(means, np.array([5, 0, 2000]))),
        "coded-trunk": m.CodedReport(
            "speed", "cd34", 1, 1, short, 42, encode_votes(steps), TrunkChange(digest, 75, change)
        ),
        "round-trunk": m.RoundCall("speed", "cd34", 5, 3, proxy, 1_790_000_900.0, True, TrunkAsk(75, 128, 0.003, 0.5)),
    }
    from_server = {"ack", "rebirth", "label", "round", "round-trunk", "release", "measure", "prototype-call"}
    return {
        name: (header(number, "server" if name in from_server else "cam-1"), body)
        for number, (name, body) in enumerate(bodies.items(), start=1)
    }


def plain(value: object) -> Any:
    """Show a value as JSON: structures as objects with their type, bytes as ``{"hex": …}``."""
    match value:
        case msgspec.Struct():
            fields = {name: plain(getattr(value, name)) for name in value.__struct_fields__}
            return {"type": type(value).__name__, **fields}
        case bytes():
            return {"hex": value.hex()}
        case tuple() | list():
            return [plain(item) for item in value]
        case dict():
            return {key: plain(item) for key, item in value.items()}
        case _:
            return value


def vector(name: str) -> dict[str, Any]:
    """What the file of an example says."""
    head, body = examples()[name]
    payload = codec.encode(head, body)
    return {
        "kind": codec.kind_of(body),
        "hex": payload.hex(),
        "header": plain(head),
        "body": plain(body),
    }


def main() -> None:
    """Write every file."""
    for name in examples():
        (FOLDER / f"{name}.json").write_text(json.dumps(vector(name), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
