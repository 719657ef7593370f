"""5 MB to N clients beside NVIDIA FLARE and Flower: seconds until the last has verified bytes, and bytes on the wire.

Each sends the same float32 array of 5,000,000 random bytes, another one each turn, from its server to N client
processes that are connected and ready, in plain text on loopback, through the same counting link between server and
clients (payload of TCP, both directions, until the last client has verified). The clock starts at the server's call and
ends when the last client has compared the SHA-256. Turns alternate with ours; the first is not counted. Every server
and client has a session of its own, as FLARE's jobs have: Linux shares a busy machine by sessions.

- Ours: a blob in chunks through Mosquitto; a device process checks each, writes it, checks the whole and syncs it.
- NVIDIA FLARE: provisioned server and sites, scheme ``tcp``, ``connection_security: clear``; a running Collab job calls
  ``collab.clients.take(array)``, which its clients download into memory.
- Flower: SuperLink and SuperNodes; ``grid.send_and_receive`` of a message to each node. It is asked for, not pushed: an
  idle SuperNode sleeps 3 s (fixed), and starts a process for each message. What its SuperExec sleeps between looks
  for tasks is set from 1 s to N/8 s where that is less.

The peers live in an environment of their own, which `make peers` makes (`benchmarks/delivery/peers.txt`).
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue

from benchmarks.delivery.fanout import COUNTS, devices, fleet_of, once
from benchmarks.delivery.link import Link
from benchmarks.delivery.peer_fleets import ROOT, flare, flower, peers_installed
from benchmarks.delivery.peer_turns import Crossed, Lead, Meter
from benchmarks.harness import Options, Outcome, Spread, Target, ratios, run, spread
from broker_server.brokers import BrokerOptions, choose_broker
from edge_protocol.errors import NotReadyError
from edge_protocol.transport.mqtt import MqttTransport

RUN = ROOT / "build" / "peers-run"
PEERS = {"NVIDIA FLARE": flare, "Flower": flower}
WHAT = ("time", "bytes")
SETTLE_S = 0.5
"""Between turns, so that what the other side does after its last client has verified is over."""
Turn = Callable[[int], Crossed]


def measure(options: Options) -> Outcome:
    """Seconds and bytes of 5 MB to N clients, over those of NVIDIA FLARE and Flower, which `make peers` installs.

    --quick has two clients only.
    """
    figures: dict[str, object] = {"versions": peers_installed()}
    repeats = 2 if options.quick else 4
    rows: list[list[object]] = [
        ["clients", "peer", "ours, s", "theirs, s", "time over theirs", "ours, MB", "theirs, MB", "bytes over theirs"]
    ]
    targets = []
    for count in COUNTS[:1] if options.quick else COUNTS:
        for peer in PEERS:
            try:
                found = compare(peer, count, repeats)
            except NotReadyError as error:  # as Flower was on a busy machine: what the others did is not lost
                figures[f"{peer}, {count}"] = str(error)
                rows.append([count, peer, str(error)])
                targets.append(Target(f"{peer}, {count}", math.nan, 1))
                continue
            figures[f"{peer}, {count}"] = found
            names = ("ours_s", "theirs_s", "time", "ours_mb", "theirs_mb", "bytes")
            rows.append([count, peer, *(found[name] for name in names)])
            targets += [Target(f"{what} over {peer}'s, {count}", found[what].median, 1) for what in WHAT]
    worst = [max((each.value for each in targets if each.name.startswith(what)), default=math.nan) for what in WHAT]
    headline = f"at worst {worst[0]:.2f} of a peer's time and {worst[1]:.4f} of its bytes"
    return Outcome(headline, figures, targets, rows)


def compare(peer: str, count: int, repeats: int) -> dict[str, Spread]:
    """Both sides in turns, after one of each that is not counted."""
    sides: tuple[list[Crossed], list[Crossed]] = ([], [])
    with ours(count) as our_turn, theirs(peer, count) as their_turn:
        for turn in range(-1, repeats):
            for side, take in zip(sides, (our_turn, their_turn), strict=True):
                time.sleep(SETTLE_S)
                found = take(100 * count + turn + 1)
                if turn >= 0:
                    side.append(found)
    return summary(*sides)


def summary(mine: list[Crossed], other: list[Crossed]) -> dict[str, Spread]:
    """Medians and spreads of both sides, and of our share of the other's."""
    return {
        "ours_s": spread([each.seconds for each in mine]),
        "theirs_s": spread([each.seconds for each in other]),
        "time": ratios([each.seconds for each in mine], [each.seconds for each in other]),
        "ours_mb": spread([each.total / 1e6 for each in mine]),
        "theirs_mb": spread([each.total / 1e6 for each in other]),
        "ours_up_mb": spread([each.up / 1e6 for each in mine]),
        "theirs_up_mb": spread([each.up / 1e6 for each in other]),
        "bytes": ratios([each.total for each in mine], [each.total for each in other]),
    }


@contextmanager
def theirs(peer: str, count: int) -> Iterator[Turn]:
    """A peer's fleet, ready; what it gives takes one turn."""
    with Lead() as lead, PEERS[peer](RUN / f"{PEERS[peer].__name__}-{count}", lead, count) as link:
        yield lambda seed: lead.turn(seed, count, link)


@contextmanager
def ours(count: int) -> Iterator[Turn]:
    """Our fleet, ready. Files lie where `benchmarks.delivery.fanout` has them."""
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a private folder is made in it
    with tempfile.TemporaryDirectory(dir=place) as folder, ExitStack() as stack:
        broker = stack.enter_context(choose_broker("mosquitto", options=BrokerOptions(state_dir=Path(folder) / "b")))
        link = stack.enter_context(Link(broker.port))
        centre = MqttTransport(broker.settings, "centre", Queue())
        stack.callback(centre.close)
        centre.start()
        fleet = stack.enter_context(devices(link.port, Path(folder), count, apart=True))

        def take(seed: int) -> Crossed:
            found: list[Crossed] = []

            def receive(_: object) -> Callable[[], float]:
                meter, wait = Meter(link), fleet_of(fleet)

                def waited() -> float:
                    ended = wait()
                    found.append(meter.crossed(0))
                    return ended

                return waited

            seconds = once(centre, receive, seed)
            return Crossed(seconds, found[0].down, found[0].up)

        yield take


if __name__ == "__main__":
    raise SystemExit(run(measure))
