"""Everything that reads bytes of a stranger, or of a disk that lies: what it is fed, and what it may raise."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import lru_cache

import msgspec
import numpy as np
from safetensors.numpy import save

from devices.runners.payload import places, read_payload
from edge_client.core import DeviceCore, Profile, Remembered
from edge_client.effects import Fetch, FetchFailed
from edge_client.installed import DAMAGED, Pointer
from edge_client.offers import Offered
from edge_models.head_weights import HeadWeights
from edge_models.tasks import load_task
from edge_models.trunk_changes import decode_change, encode_change
from edge_protocol import codec
from edge_protocol import messages as m
from edge_protocol.blobs import Pull, cut
from edge_protocol.delta import apply_delta, make_delta
from edge_protocol.errors import ArtifactError, DigestError, RemoteProtocolError, RoadcastError
from edge_protocol.ids import SERVER, DeviceId, FleetId
from edge_protocol.manifest import SCALE, decode_manifest, encode_manifest
from edge_protocol.topics import ChunkTopic, Topics
from edge_protocol.vote_codec import CodedVotes, decode_votes, encode_votes
from edge_protocol.votes import class_votes, forecast_votes
from export.golden import check_golden
from tests.edge_client.core_driver import PROOF, signed
from tests.fakes.small_centre import FLEET
from tests.fuzz.mutate import in_json, in_message, in_safetensors
from tests.fuzz.target import Target
from tests.fuzz.trust_targets import pointer, trust_targets
from tests.vectors.make import examples, manifest

SPEC = load_task("vehicle")
WHO = Profile(fleet=FLEET, device=DeviceId("cam-1"), tier="nano", spec=SPEC, report_interval_s=10, prototypes=True)


@lru_cache(maxsize=1)
def targets() -> dict[str, Target]:
    """Every target by name; shares add up to a thousand."""
    return {
        **dict(_messages()),
        "manifest": Target(decode_manifest, [encode_manifest(manifest())], RemoteProtocolError, 126, in_message(0)),
        "topic": Target(_topic, _topics(), RemoteProtocolError, 130),
        "chunk": _chunk(),
        "brain": _brain(),
        "brain/proven": _proven_brain(),
        **dict(trust_targets()),
        **dict(_deltas()),
        **dict(_votes()),
        **dict(_files()),
    }


def _messages() -> Iterator[tuple[str, Target]]:
    """Every kind of message, as a device and as the server reads it."""
    by_kind: dict[m.Kind, list[bytes]] = {}
    for header, body in examples().values():
        by_kind.setdefault(codec.kind_of(body), []).append(codec.encode(header, body))
    for kind, corpus in by_kind.items():

        def feed(data: bytes, kind: m.Kind = kind) -> object:
            return codec.decode(data, kind=kind, fleet="demo")

        yield f"message/{kind}", Target(feed, corpus, RemoteProtocolError, 30, in_message(3))


def _topic(data: bytes) -> object:
    return Topics(FleetId("demo")).parse(data.decode("utf-8", errors="replace"))


def _topics() -> list[bytes]:
    topics, device, task = Topics(FleetId("demo")), DeviceId("cam-1"), load_task("vehicle").task_id
    named = [topics.up(device, "state"), topics.down(device, "ack"), topics.chunk("ab" * 32, 7), topics.online(device)]
    return [each.encode() for each in (*named, *topics.desired(device, task))]


def _chunk() -> Target:
    """A chunk's topic is its header: whatever comes, only what was signed is taken."""
    ref, chunks = cut(bytes(range(256)) * 4, 100)
    topics, right = Topics(FleetId("demo")), dict(enumerate(chunks))

    def feed(data: bytes) -> object:
        pull, line = Pull(ref), data.partition(b"\n")
        topic = topics.parse(line[0].decode("utf-8", errors="replace"))
        if isinstance(topic, ChunkTopic) and topic.sha256 == ref.sha256 and pull.take(topic.index, line[2]):
            assert line[2] == right[topic.index], "a chunk was taken that nobody signed"
        return pull

    corpus = [topics.chunk(ref.sha256, index).encode() + b"\n" + chunk for index, chunk in right.items()]
    return Target(feed, corpus, (RemoteProtocolError, DigestError), 100)


def _brain() -> Target:
    """Messages to a device go on into its brain, which raises nothing at all; an offer takes no way but its gate."""
    spec = load_task("vehicle")
    header = m.Header(FLEET, SERVER, bytes(16), bytes(8), 1, 1.7e9, True)
    bodies: list[m.Body] = [m.ReleaseOffer(signed(1).data), m.Label("vehicle", "main-1", "car")]
    bodies += [m.Ack(bytes(16), accepted=True), m.Measure("vehicle", 2.5)]
    bodies.append(m.PrototypeCall("vehicle", spec.label_space, 6, 3, 4e9, open=True))
    bodies.append(m.RoundCall("vehicle", spec.label_space, 5, 3, cut(b"proxies" * 20, 64)[0], 4e9, open=True))

    def feed(data: bytes) -> object:
        kind: m.Kind = ("release", "command", "ack", "round")[len(data) % 4]
        envelope = codec.decode(data, kind=kind, fleet=FLEET)
        core = DeviceCore(WHO, Remembered(), 0.0)
        try:
            core.handle(envelope, 1.0)
            core.tick(1e9)
        except RoadcastError as error:
            raise AssertionError("the brain raised") from error
        assert core.stage == "idle", "it takes what nothing proves"
        return core

    return Target(feed, [codec.encode(header, body) for body in bodies], RemoteProtocolError, 50, in_message(3))


def _proven_brain() -> Target:
    """Whoever holds the key may err: a manifest that says nonsense is refused, and the brain goes on."""

    def feed(data: bytes) -> object:
        core = DeviceCore(WHO, Remembered(), 0.0)
        for fetch in core.handle(Offered(data, decode_manifest(data), PROOF), 1.0):
            if isinstance(fetch, Fetch):
                core.handle(FetchFailed(fetch.ref.sha256, "a test", disk=False), 2.0)
        core.tick(1e9)
        return core

    offers = [signed(1).data, signed(2, base=1).data]
    return Target(feed, offers, RemoteProtocolError, 10, in_message(0))


def _deltas() -> Iterator[tuple[str, Target]]:
    rng = np.random.default_rng(1)
    base = save({"a": rng.normal(size=64).astype(np.float16), "b": rng.integers(0, 99, 16, np.uint8)})
    other = save({"a": rng.normal(size=64).astype(np.float16), "b": rng.integers(0, 99, 16, np.uint8)})
    delta = make_delta(base, other)
    assert delta is not None

    def patched(data: bytes) -> object:
        made = apply_delta(base, data)
        assert len(made) == len(base), "a delta makes as many bytes as its base has"
        return made

    yield "delta", Target(patched, [delta], DigestError, 60)
    yield "delta/base", Target(lambda data: apply_delta(data, delta), [base, other], DigestError, 25, in_safetensors)


def _votes() -> Iterator[tuple[str, Target]]:
    """The range coder, in both walks, alone and beside a base."""
    rng = np.random.default_rng(2)
    classes = [class_votes(rng.gamma(1, 1, (6, 4)).astype(np.float32), np.ones(4, np.uint8)) for _ in range(2)]
    means, spreads = rng.normal(size=(3, 2)).astype(np.float32), np.ones((3, 2), np.float32)
    forecasts = [forecast_votes(means, spreads * (n + 1)) for n in range(2)]
    for name, kind, (base, votes) in (("classes", "classify", classes), ("forecasts", "forecast", forecasts)):
        for beside in (None, base):
            coded = encode_votes(votes, beside, 1 if beside else 0)

            def feed(data: bytes, coded: CodedVotes = coded, kind: str = kind, beside: object = beside) -> object:
                said = CodedVotes(coded.samples, coded.outputs, coded.base, data[:8].ljust(8, b"\0"), data[8:])
                return decode_votes(said, kind, beside)  # type: ignore[arg-type]

            yield (
                f"range-coder/{name}{'/beside' if beside else ''}",
                Target(feed, [coded.digest + coded.data], RemoteProtocolError, 5),
            )


class _Echo:
    """A runner that answers with what it is asked."""

    provider = "echo"

    def infer(self, x: object) -> object:
        """Answer."""
        from devices.runners.base import Answer  # noqa: PLC0415 - a fake's own need

        return Answer(x, x)  # type: ignore[arg-type]


def _files() -> Iterator[tuple[str, Target]]:
    """Files of a release and of the disk: their hash is checked first, but a key holder may err and a disk may lie."""
    rng = np.random.default_rng(3)
    weights = save({"w": rng.normal(size=(3, 4)).astype(np.float16), "q": np.zeros(4, np.int8)})
    steps = save({"w": np.ones((3, 4), np.int8), f"w{SCALE}": np.full((3, 1), 0.1, np.float32)})
    answers = rng.normal(size=(4, 3)).astype(np.float16)
    golden = save(dict.fromkeys(("inputs", "features", "logits"), answers))
    head = HeadWeights(rng.normal(size=(6, 64)).astype(np.float32), np.zeros(6, np.float32)).to_bytes()
    yield "payload", Target(read_payload, [weights, steps], ArtifactError, 10, in_safetensors)
    yield "golden", Target(lambda data: check_golden(_Echo(), data), [golden], RoadcastError, 10, in_safetensors)  # type: ignore[arg-type]
    yield "head", Target(HeadWeights.from_bytes, [head], RoadcastError, 10, in_safetensors)
    change = encode_change({"trunk.w": rng.normal(size=(3, 4)).astype(np.float32), "trunk.b": np.ones(3, np.float32)})
    yield "trunk", Target(decode_change, [change], RemoteProtocolError, 10, in_safetensors)
    yield "template", Target(places, [template()], ArtifactError, 9)

    def read_pointer(data: bytes) -> object:
        return msgspec.json.decode(data, type=Pointer)

    yield "pointer", Target(read_pointer, [msgspec.json.encode(pointer(signed(1).data, PROOF))], DAMAGED, 10, in_json)


def template(file: bytes = b"w.bin") -> bytes:
    """A protobuf as an exporter writes it: one weight, of which another file holds the numbers."""

    def field(number: int, data: bytes) -> bytes:
        return bytes([number << 3 | 2, len(data)]) + data

    entries = [field(13, field(1, key) + field(2, value)) for key, value in ((b"location", file), (b"offset", b"64"))]
    tensor = b"\x08\x03\x08\x04\x10\x0a" + field(8, b"w") + b"".join(entries)
    return field(7, field(5, tensor))


def main() -> None:
    """Print the names, for `python -m tests.fuzz.targets`."""
    print(json.dumps({name: target.share for name, target in targets().items()}, indent=1))  # noqa: T201


if __name__ == "__main__":
    main()
