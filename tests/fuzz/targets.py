"""Everything that reads bytes of a stranger, or of a disk that lies: what it is fed, and what it may raise."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import msgspec
import numpy as np
from safetensors.numpy import save

from devices.runners.payload import places, read_payload
from edge_client.core import DeviceCore, Profile, Remembered
from edge_client.effects import Fetch, FetchFailed
from edge_client.gate import Gate
from edge_client.installed import DAMAGED, Pointer
from edge_client.offers import Offered
from edge_client.trust_store import TrustStore
from edge_models.head_weights import HeadWeights
from edge_models.tasks import load_task
from edge_protocol import codec
from edge_protocol import messages as m
from edge_protocol.blobs import Pull, cut
from edge_protocol.delta import apply_delta, make_delta
from edge_protocol.effects import Drop
from edge_protocol.errors import ArtifactError, DigestError, RemoteProtocolError, RoadcastError, TrustError
from edge_protocol.ids import SERVER, DeviceId, FleetId
from edge_protocol.manifest import ReleaseManifest, decode_manifest, encode_manifest
from edge_protocol.topics import ChunkTopic, ReleaseTopic, Topics
from edge_protocol.trust import commissioned, refreshed, rotated
from edge_protocol.vote_codec import CodedVotes, decode_votes, encode_votes
from edge_protocol.votes import class_votes, forecast_votes
from export.golden import check_golden
from tests.edge_client.core_driver import PROOF, artifact, signed
from tests.fakes.small_centre import FLEET, signed_fleet
from tests.fuzz.mutate import Deep, in_json, in_message, in_safetensors
from tests.vectors.make import examples, manifest

Errors = type[Exception] | tuple[type[Exception], ...]


@dataclass(frozen=True)
class Target:
    """Something that reads bytes.

    Attributes:
        feed: gives it some.
        corpus: legal ones, to be spoilt.
        errors: all that it may raise.
        share: of the inputs that it gets, in thousandths; slow ones get few.
        deep: spoils what the bytes say, every second time.
    """

    feed: Callable[[bytes], object]
    corpus: list[bytes]
    errors: Errors
    share: int
    deep: Deep | None = None


def targets() -> dict[str, Target]:
    """Every target by name; shares add up to a thousand."""
    return {
        **dict(_messages()),
        "manifest": Target(decode_manifest, [encode_manifest(manifest())], RemoteProtocolError, 130, in_message(0)),
        "topic": Target(_topic, _topics(), RemoteProtocolError, 150),
        "chunk": _chunk(),
        "brain": _brain(),
        "brain/proven": _proven_brain(),
        "metadata": _metadata(),
        **dict(_deltas()),
        **dict(_votes()),
        **dict(_files()),
    }


def _messages() -> Iterator[tuple[str, Target]]:
    """Every kind of message, as a device and as the server reads it."""
    by_kind: dict[m.Kind, list[bytes]] = {}
    for header, body in examples().values():
        by_kind.setdefault(codec.kind_of(body), []).append(codec.encode(header, body))
    share = 396 // len(by_kind)
    for kind, corpus in by_kind.items():

        def feed(data: bytes, kind: m.Kind = kind) -> object:
            return codec.decode(data, kind=kind, fleet="demo")

        yield f"message/{kind}", Target(feed, corpus, RemoteProtocolError, share, in_message(3))


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
    """Messages to a device go on through gate and brain, which raise nothing and never take what is not listed."""
    spec, fleet = load_task("vehicle"), signed_fleet()
    who = Profile(fleet=FLEET, device=DeviceId("cam-1"), tier="nano", spec=spec, report_interval_s=10)
    made = [ReleaseManifest(FLEET, counter, spec, 1.0, (artifact(counter),), {}) for counter in (1, 2)]
    legal, metadata = {fleet.release(manifest) for manifest in made}, fleet.files()
    header = m.Header(FLEET, SERVER, bytes(16), bytes(8), 1, 1.7e9, True)
    bodies: list[m.Body] = [*map(m.ReleaseOffer, legal), m.Label("vehicle", "main-1", "car")]
    bodies += [m.RoundCall("vehicle", spec.label_space, 5, 3, cut(b"proxies" * 20, 64)[0], 4e9, open=True)]
    trust = TrustStore(Path(fleet.folder) / "device", fleet.root)
    gate = Gate(spec.task_id, who.device, Topics(FLEET), trust, lambda _: None, lambda: fleet.now)
    for name, data in metadata.items():
        gate.metadata(name, data, 0.0)

    def feed(data: bytes) -> object:
        kind: m.Kind = ("release", "command", "round")[len(data) % 3]
        envelope = codec.decode(data, kind=kind, fleet=FLEET)
        core = DeviceCore(who, Remembered(), 0.0)
        try:
            if isinstance(envelope.body, m.ReleaseOffer):
                for event in gate.offer(ReleaseTopic(spec.task_id), envelope.body.manifest, 1.0):
                    if not isinstance(event, Drop):
                        core.handle(event, 1.0)
            else:
                core.handle(envelope, 1.0)
            core.tick(1e9)
        except RoadcastError as error:
            raise AssertionError("the brain raised") from error
        if core.stage == "fetching":
            assert isinstance(envelope.body, m.ReleaseOffer)
            assert envelope.body.manifest in legal, "it takes what nobody listed"
        return core

    return Target(feed, [codec.encode(header, body) for body in bodies], RemoteProtocolError, 6, in_message(3))


def _proven_brain() -> Target:
    """Whoever holds the key may err: a manifest that says nonsense is refused, and the brain goes on."""
    who = Profile(fleet=FLEET, device=DeviceId("cam-1"), tier="nano", spec=load_task("vehicle"), report_interval_s=10)

    def feed(data: bytes) -> object:
        core = DeviceCore(who, Remembered(), 0.0)
        for fetch in core.handle(Offered(data, decode_manifest(data), PROOF), 1.0):
            if isinstance(fetch, Fetch):
                core.handle(FetchFailed(fetch.ref.sha256, "a test", disk=False), 2.0)
        core.tick(1e9)
        return core

    return Target(feed, [signed(1).data, signed(2, base=1).data], RemoteProtocolError, 60, in_message(0))


def _metadata() -> Target:
    """Signed metadata, every role of them in its place among the others, which are right."""
    fleet, task = signed_fleet(), load_task("vehicle").task_id
    files, now = fleet.files(), datetime.fromtimestamp(fleet.now, timezone.utc)

    def feed(data: bytes) -> object:
        name, _, content = data.partition(b"\n")
        received = {**files, name.decode("utf-8", errors="replace"): content}
        return refreshed(rotated(commissioned(fleet.root), received), received, task, now)

    corpus = [name.encode() + b"\n" + data for name, data in files.items()]
    return Target(feed, corpus, TrustError, 2)


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
    forecasts = [forecast_votes(means, spreads * (n + 1), np.full(3, 0.5, np.float32)) for n in range(2)]
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
    answers = rng.normal(size=(4, 3)).astype(np.float16)
    golden = save(dict.fromkeys(("inputs", "features", "logits"), answers))
    head = HeadWeights(rng.normal(size=(6, 64)).astype(np.float32), np.zeros(6, np.float32)).to_bytes()
    yield "payload", Target(read_payload, [weights], ArtifactError, 10, in_safetensors)
    yield "golden", Target(lambda data: check_golden(_Echo(), data), [golden], RoadcastError, 10, in_safetensors)  # type: ignore[arg-type]
    yield "head", Target(HeadWeights.from_bytes, [head], RoadcastError, 10, in_safetensors)
    yield "template", Target(places, [template()], ArtifactError, 9)
    offered, names = signed(1), dict.fromkeys(("template", "weights", "golden"), "a" * 64)
    pointer = Pointer(release=1, manifest=offered.data, proof=offered.proof, **names)

    def read_pointer(data: bytes) -> object:
        return msgspec.json.decode(data, type=Pointer)

    yield "pointer", Target(read_pointer, [msgspec.json.encode(pointer)], DAMAGED, 10, in_json)


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
