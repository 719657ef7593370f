"""A release over a bad link: 2 Mbit/s, 300 ms there and back, stalls, a cut every 20 s; real Mosquitto.

The window that follows the delay stands beside the fixed one of 16 chunks that was there before. Control messages go to
the device four times a second while it fetches. Bytes sent again are all that crossed towards the device beyond what
has to cross once (payload, the packets around each chunk, control messages): chunks that came twice or were cut off,
and handshakes.
"""

from __future__ import annotations

import random
import struct
import tempfile
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, Queue

from benchmarks.delivery.link import Link
from benchmarks.harness import Options, Outcome, Target, run
from broker_server.brokers import BrokerOptions, choose_broker
from edge_client.effects import Fetched
from edge_client.fetcher import Fetcher
from edge_client.pace import Pace
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.ids import DeviceId, FleetId
from edge_protocol.topics import ChunkTopic, Topics
from edge_protocol.transport.base import Connected, Received
from edge_protocol.transport.mqtt import MqttTransport
from edge_protocol.transport.settings import BrokerSettings

RATE, ROUND_TRIP_S = 250_000.0, 0.3
STALL_S, STALL_EVERY_S, CUT_EVERY_S = 0.5, 5.0, 20.0
CONTROL_EVERY_S = 0.25
BYTES, FEW_BYTES = 24_000_000, 5_000_000
FRAMING = 16
"""Bytes of a chunk's packet beside topic and payload, of SUBACK and of UNSUBACK."""
MOST_AGAIN, MOST_LATENCY_S = 0.02, 1.0
TOPICS, DEVICE = Topics(FleetId("bench")), DeviceId("cam-1")
_STAMP = struct.Struct("<d")
_CONTROL = bytes(120)
"""About what an acknowledgement takes."""


class Fixed(Pace):
    """The window that was there before."""

    @property
    def window(self) -> int:
        """Sixteen, whatever the link is."""
        return 16


@dataclass
class Arm:
    """What one way of fetching `payload` bytes in `chunks` came to."""

    payload: int
    chunks: int
    seconds: float = 0.0
    carried: int = 0
    sent: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def again(self) -> float:
        """Bytes sent again, as a share of the payload."""
        control = len(_CONTROL) + _STAMP.size + len(TOPICS.down(DEVICE, "command"))
        once = self.payload + self.chunks * (len(TOPICS.chunk("0" * 64, 10)) + FRAMING)
        return (self.carried - once - control * len(self.latencies)) / self.payload

    @property
    def slower(self) -> float:
        """Seconds over those that the rate alone would take."""
        return self.seconds * RATE / self.payload

    def latency(self, share: float) -> float:
        """Seconds that this share of the control messages which came took at most."""
        return sorted(self.latencies)[min(int(share * len(self.latencies)), len(self.latencies) - 1)]


def measure(options: Options) -> Outcome:
    """Time, bytes sent again and control latency over a bad link. --quick sends 5 MB, not 24, and judges nothing."""
    arms: dict[str, Arm] = {}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        broker = stack.enter_context(choose_broker("mosquitto", options=BrokerOptions(state_dir=Path(folder) / "b")))
        centre = MqttTransport(broker.settings, "centre", Queue())
        stack.callback(centre.close)
        centre.start()
        for name, pace, size in (
            ("window by delay", Pace(), FEW_BYTES if options.quick else BYTES),
            ("fixed window of 16", Fixed(), FEW_BYTES),
        ):
            data = random.Random(size).randbytes(size)
            ref, chunks = cut(data)
            for index, chunk in enumerate(chunks):
                while not centre.publish(TOPICS.chunk(ref.sha256, index), chunk, retain=True):
                    time.sleep(0.002)
            arms[name] = fetch(ref, data, pace, broker.port, centre, Path(folder) / name.split(" ", maxsplit=1)[0])
    return told(*arms.values(), judged=not options.quick)


def told(ours: Arm, before: Arm, *, judged: bool) -> Outcome:
    """Put both arms into words."""
    rows: list[list[object]] = [
        ["arm", "MB", "s", "over the rate alone", "again, %", "control: median, p95, most (s)", "came"]
    ]
    for name, arm in (("window by delay", ours), ("fixed window of 16", before)):
        latencies = ", ".join(f"{arm.latency(share):.2f}" for share in (0.5, 0.95, 1))
        share = f"{len(arm.latencies)} of {arm.sent}"
        rows.append([name, arm.payload / 1e6, arm.seconds, arm.slower, 100 * arm.again, latencies, share])
    targets = [
        Target("bytes sent again, share of the payload", ours.again, MOST_AGAIN),
        Target("control messages, p95 in s", ours.latency(0.95), MOST_LATENCY_S),
    ]
    headline = (
        f"{ours.payload / 1e6:g} MB in {ours.seconds:.0f} s ({ours.slower:.2f} of the rate alone), "
        f"{100 * ours.again:.1f} % sent again, control p95 {ours.latency(0.95):.2f} s "
        f"(fixed window: {before.latency(0.95):.2f} s){'' if judged else '; one cut is too few to judge'}"
    )
    return Outcome(headline, {"ours": vars(ours), "fixed": vars(before)}, targets if judged else (), rows)


def fetch(ref: BlobRef, data: bytes, pace: Pace, port: int, centre: MqttTransport, folder: Path) -> Arm:
    """Fetch a blob over a bad link with control messages beside it."""
    arm, over = Arm(ref.size, ref.chunks), threading.Event()
    inbox: Queue[object] = Queue()
    with Link(port, RATE, ROUND_TRIP_S / 2) as link:
        device = MqttTransport(BrokerSettings(port=link.port, keepalive_s=5), DEVICE, inbox)
        fetcher = Fetcher(folder / "blobs", TOPICS, device)
        fetcher._sources._pace = pace  # noqa: SLF001 - the fixed window has no other way in
        device.subscribe([TOPICS.down(DEVICE, "command")])
        device.start()
        while not device.connected:
            time.sleep(0.01)
        link.carried["down"], begun = 0, time.monotonic()
        helpers = [
            threading.Thread(target=trouble, args=(link, over)),
            threading.Thread(target=command, args=(centre, arm, over)),
        ]
        for helper in helpers:
            helper.start()
        pump(fetcher, ref, inbox, arm)
        arm.seconds, arm.carried = time.monotonic() - begun, link.carried["down"]
        over.set()
        for helper in helpers:
            helper.join()
        fetcher.close()
        device.close()
    assert fetcher.path(ref.sha256).read_bytes() == data
    return arm


def pump(fetcher: Fetcher, ref: BlobRef, inbox: Queue[object], arm: Arm) -> None:
    """What the agent's pump does for a fetcher, until the blob is there."""
    said = fetcher.fetch(ref, time.monotonic())
    while Fetched(ref.sha256) not in said:
        try:
            event = inbox.get(timeout=0.1)
        except Empty:
            event = None
        now = time.monotonic()
        if isinstance(event, Connected):
            fetcher.relink()
        elif isinstance(event, Received):
            topic = TOPICS.parse(event.topic)
            if isinstance(topic, ChunkTopic):
                said = fetcher.chunk(topic, event.payload, now)
                continue
            arm.latencies.append(now - _STAMP.unpack_from(event.payload)[0])
        said = fetcher.tick(now)


def trouble(link: Link, over: threading.Event) -> None:
    """Stall and cut the link by the clock: the first stall after half its time, the first cut too."""
    begun = time.monotonic()
    stall_at, cut_at = begun + STALL_EVERY_S / 2, begun + CUT_EVERY_S / 2
    while not over.wait(max(min(stall_at, cut_at) - time.monotonic(), 0)):
        if stall_at <= cut_at:
            stall_at += STALL_EVERY_S
            link.stall(STALL_S)
        else:
            cut_at += CUT_EVERY_S
            link.cut()


def command(centre: MqttTransport, arm: Arm, over: threading.Event) -> None:
    """Send the device a message every quarter of a second."""
    while not over.wait(CONTROL_EVERY_S):
        arm.sent += centre.publish(TOPICS.down(DEVICE, "command"), _STAMP.pack(time.monotonic()) + _CONTROL)


if __name__ == "__main__":
    raise SystemExit(run(measure))
