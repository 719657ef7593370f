"""Encoding and decoding a report of 1,000 samples, relative to packing the same content by hand with `struct`.

The raw side is a fixed header, lengths, and the bytes one after the other; it names every field when it reads, and
checks nothing: no type, no bound, no sender. Ours checks all of them. CPU time of batches, in turn.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from benchmarks.harness import Options, Outcome, Target, interleaved, ratios, run, spread
from edge_protocol import codec
from edge_protocol.arrays import pack
from edge_protocol.messages import ClassVotes, Header, KnowledgeReport

SAMPLES = 1000
CLASSES = 6
LIMIT = 5.0
BATCH = 200


class RawReport(NamedTuple):
    """What a report says, as plain values."""

    fleet: str
    sender: str
    message_id: bytes
    boot_id: bytes
    sequence: int
    time_s: float
    clock_trusted: bool
    task: str
    label_space: str
    round: int
    release: int
    proxy: str
    examples: int
    classes: bytes
    confidence: bytes
    density: bytes
    held: bytes


_HEAD = struct.Struct("<16s8sQd?QQQ6I")


def raw_encode(report: RawReport) -> bytes:
    """Pack by hand."""
    texts = [report.fleet.encode(), report.sender.encode(), report.task.encode(), report.label_space.encode()]
    head = _HEAD.pack(
        report.message_id,
        report.boot_id,
        report.sequence,
        report.time_s,
        report.clock_trusted,
        report.round,
        report.release,
        report.examples,
        *map(len, texts),
        len(report.classes),
        len(report.held),
    )
    arrays = (report.classes, report.confidence, report.density, report.held)
    return b"".join((head, *texts, report.proxy.encode(), *arrays))


def raw_decode(data: bytes) -> RawReport:
    """Read what `raw_encode` wrote; bytes that are too short or wrong give nonsense."""
    message_id, boot_id, sequence, time_s, trusted, round_, release, examples, *sizes = _HEAD.unpack_from(data)
    *lengths, samples, classes = sizes
    parts, at = [], _HEAD.size
    for size in (*lengths, 64, samples, samples, samples, classes):
        parts.append(data[at : at + size])
        at += size
    fleet, sender, task, space, proxy = (part.decode() for part in parts[:5])
    numbers = (round_, release, proxy, examples)
    return RawReport(fleet, sender, message_id, boot_id, sequence, time_s, trusted, task, space, *numbers, *parts[5:])


def example() -> tuple[Header, KnowledgeReport, RawReport]:
    """The same report in both forms."""
    rng = np.random.default_rng(7)
    classes, confidence, density = rng.integers(0, (CLASSES, 4, 8), (SAMPLES, 3)).astype("u1").T
    held = np.ones(CLASSES, "u1")
    head = Header("city-north", "cam-0042", bytes(range(16)), bytes(8), 12345, 1_790_000_000.25, clock_trusted=True)
    votes = ClassVotes(pack(classes), pack(confidence), pack(density), pack(held))
    report = KnowledgeReport("vehicle", "0123456789abcdef", 12, 11, "ab" * 32, 4321, votes)
    arrays = (classes.tobytes(), confidence.tobytes(), density.tobytes(), held.tobytes())
    raw = RawReport(*_fields(head), *_fields(report)[:-1], *arrays)
    return head, report, raw


def measure(options: Options) -> Outcome:
    """Encode and decode a 1,000-sample report, over raw struct packing."""
    head, report, raw = example()
    ours, theirs = codec.encode(head, report), raw_encode(raw)
    decode = partial(codec.decode, kind="knowledge", fleet=head.fleet, sender=head.sender)
    assert decode(ours).body == report
    assert raw_decode(theirs) == raw
    cases = {
        "encode": partial(codec.encode, head, report),
        "raw encode": partial(raw_encode, raw),
        "decode": partial(decode, ours),
        "raw decode": partial(raw_decode, theirs),
    }
    batches = {name: partial(_repeat, case) for name, case in cases.items()}
    seconds = interleaved(batches, repeats=200 if options.quick else 2000, clock=time.thread_time)
    found = {way: ratios(seconds[way], seconds[f"raw {way}"]) for way in ("encode", "decode")}
    micros = {name: spread([each / BATCH * 1e6 for each in times]) for name, times in seconds.items()}
    rows = [
        ("", "us", "raw us", "ratio", "bytes", "raw bytes"),
        *((way, str(micros[way]), str(micros[f"raw {way}"]), str(found[way]), len(ours), len(theirs)) for way in found),
    ]
    headline = (
        f"a {SAMPLES}-sample report over raw struct packing: encode {found['encode'].median:.2f} x, "
        f"decode {found['decode'].median:.2f} x (target {LIMIT:g})"
    )
    targets = [Target(f"{way} over raw", ratio.median, LIMIT) for way, ratio in found.items()]
    sizes = {"bytes": len(ours), "raw_bytes": len(theirs)}
    return Outcome(headline, {"ratio": found, "microseconds": micros, **sizes}, targets, rows)


def _fields(message: Header | KnowledgeReport) -> list[object]:
    return [getattr(message, name) for name in message.__struct_fields__]


def _repeat(case: Callable[[], object]) -> None:
    for _ in range(BATCH):
        case()


if __name__ == "__main__":
    raise SystemExit(run(measure))
