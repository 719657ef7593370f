"""5 MB to N devices on one machine: from the first chunk published to the last device that has the bytes, verified.

Beside it `mosquitto_sub`, a C program that writes the same messages to a file and checks nothing, subscribed to all of
them before they are published. Devices are processes with the agent's transport and fetcher: they ask for chunks, check
each, write it, check the whole and sync it. Both through one real Mosquitto, in turns. Files lie in memory where there
is /dev/shm: a fleet has as many disks as devices. The 200 light receivers share a process and keep nothing. A second
table says where a device's CPU goes: what its stages take alone, and what its two threads took in all.
"""

from __future__ import annotations

import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Queue

import msgspec

from benchmarks.delivery.light import receive_light
from benchmarks.delivery.receiver import TASK, TOPICS
from benchmarks.delivery.stages import Threads, stages
from benchmarks.harness import Options, Outcome, Spread, Target, ratios, run, spread
from broker_server.brokers import Broker, BrokerOptions, choose_broker
from edge_protocol.blobs import BlobRef, cut
from edge_protocol.errors import NotReadyError
from edge_protocol.transport.mqtt import MqttTransport

BYTES = 5_000_000
COUNTS = (2, 8, 16)
LIGHT = 200
LEAST = 0.6
"""Of mosquitto_sub's throughput, with 16 receivers."""
COLUMNS = (
    "receivers",
    "devices, s",
    "mosquitto_sub, s",
    "throughput over mosquitto_sub's",
    "CPU ms each: pump, network, mosquitto_sub",
    "broker's CPU ms: devices, mosquitto_sub",
)
SIDES = ("devices", "mosquitto_sub", "pump", "network", "mosquitto_sub cpu", "broker", "broker for mosquitto_sub")


def measure(options: Options) -> Outcome:
    """Seconds until N devices have 5 MB, over those until N mosquitto_sub have it. --quick does less."""
    if shutil.which("mosquitto_sub") is None:
        raise NotReadyError("mosquitto_sub is not installed; run: apt install mosquitto-clients")
    repeats = 2 if options.quick else 5
    rows: list[list[object]] = [list(COLUMNS)]
    figures: dict[str, object] = {}
    place = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - a private folder is made in it
    with tempfile.TemporaryDirectory(dir=place) as folder, ExitStack() as stack:
        broker = stack.enter_context(choose_broker("mosquitto", options=BrokerOptions(state_dir=Path(folder) / "b")))
        centre = MqttTransport(broker.settings, "centre", Queue())
        stack.callback(centre.close)
        centre.start()
        for count in COUNTS:
            seconds = compare(centre, broker, Path(folder) / str(count), count, repeats)
            share = ratios(seconds["mosquitto_sub"], seconds["devices"])
            found = {name: spread(values) for name, values in seconds.items()}
            cpu = [f"{1e3 * found[name].median:.0f}" for name in SIDES[2:]]
            rows.append([count, *(found[n] for n in SIDES[:2]), share, ", ".join(cpu[:3]), ", ".join(cpu[3:])])
            figures[str(count)] = {**found, "throughput": share}
        settings = broker.settings
        light = spread([once(centre, lambda ref: receive_light(settings, LIGHT, ref), seed) for seed in (90, 91)])
        rows.append(
            [f"{LIGHT} light, in one process", light, "", f"{LIGHT * BYTES / 1e6 / light.median:.0f} MB/s", "", ""]
        )
    figures["light"] = light
    figures["cpu by stage"], more = by_stage(found, place)
    headline = f"{COUNTS[-1]} devices: {share.median:.2f} of mosquitto_sub's throughput"
    return Outcome(
        headline,
        figures,
        [Target("throughput over mosquitto_sub's", share.median, LEAST, at_most=False)],
        [*rows, *more],
    )


def compare(centre: MqttTransport, broker: Broker, folder: Path, count: int, repeats: int) -> dict[str, list[float]]:
    """Seconds of each side, in turns, after one turn that is not counted; CPU seconds of a receiver on average."""
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    port = broker.settings.port
    with devices(port, folder, count) as fleet:
        pids = [device.pid for device in fleet]
        for turn in range(-1, repeats):
            devices_0, broker_0 = Threads.of(pids), Threads.of([broker.pid])
            ours = once(centre, lambda _: fleet_of(fleet), 1000 * count + 2 * turn)
            spent, broker_1, children = Threads.of(pids) - devices_0, Threads.of([broker.pid]), children_s()
            theirs = once(centre, lambda ref: subscribers(port, folder, ref, count), 1000 * count + 2 * turn + 1, None)
            between, after = broker_1 - broker_0, Threads.of([broker.pid]) - broker_1
            their = (children_s() - children) / count
            found = (ours, theirs, spent.main / count, spent.others / count, their, between.main, after.main)
            for name, value in zip(SIDES, found, strict=True):
                seconds[name].extend([value] if turn >= 0 else [])
    return seconds


def children_s() -> float:
    """CPU seconds of processes that were started here and have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def by_stage(found: Mapping[str, Spread], place: str | None) -> tuple[dict[str, float], list[list[object]]]:
    """CPU ms of one of the most receivers, by stage; what is left over is what no stage alone has."""
    alone = {name: 1e3 * each.median for name, each in stages(random.Random(1).randbytes(BYTES), place).items()}
    network = 1e3 * found["network"].median
    left = {
        "paho": network - alone["out of the socket"],
        "pump": 1e3 * found["pump"].median - sum(alone.values()) + alone["out of the socket"],
    }
    told = {
        **alone,
        "network thread: MQTT packets in Python, waits": left["paho"],
        "pump thread: taking turns with the network thread": left["pump"],
    }
    title = f"CPU ms of one of {COUNTS[-1]} devices, by stage"
    blank = [""] * (len(COLUMNS) - 2)
    return told, [[title, "", *blank], *([f"  {name}", f"{ms:.1f}", *blank] for name, ms in told.items())]


Receive = Callable[[BlobRef], Callable[[], float]]
"""Gets receivers ready for a blob; what it returns waits for the last of them, and says when that was."""


def once(centre: MqttTransport, receive: Receive, seed: int, announced: str | None = TOPICS.release(TASK)) -> float:
    """Publish a blob of its own, announce it to devices, and wait; then have the broker forget it."""
    ref, chunks = cut(random.Random(seed).randbytes(BYTES))
    wait = receive(ref)
    begun = time.monotonic()
    for index, chunk in enumerate(chunks):
        publish(centre, TOPICS.chunk(ref.sha256, index), chunk)
    if announced:
        publish(centre, announced, msgspec.msgpack.encode(ref))
    took = wait() - begun
    for topic in [*filter(None, [announced]), *(TOPICS.chunk(ref.sha256, index) for index in range(ref.chunks))]:
        publish(centre, topic, b"")
    return took


def publish(centre: MqttTransport, topic: str, payload: bytes) -> None:
    """Hand over a retained message, as soon as it is taken."""
    while not centre.publish(topic, payload, retain=True):
        time.sleep(0.0005)


@contextmanager
def devices(port: int, folder: Path, count: int, *, apart: bool = False) -> Iterator[list[subprocess.Popen[str]]]:
    """Start device processes, each in a session of its own if `apart`, and end them."""
    command = [sys.executable, "-m", "benchmarks.delivery.receiver", str(port)]
    fleet = [
        subprocess.Popen(
            [*command, f"cam-{n}", str(folder / str(n))], stdout=subprocess.PIPE, text=True, start_new_session=apart
        )
        for n in range(count)
    ]
    try:
        for device in fleet:
            assert device.stdout is not None
            assert device.stdout.readline() == "ready\n"
        yield fleet
    finally:
        for device in fleet:
            device.kill()
            device.wait()
            assert device.stdout is not None
            device.stdout.close()


def fleet_of(fleet: list[subprocess.Popen[str]]) -> Callable[[], float]:
    """Wait for what every device says."""
    return lambda: max(float(device.stdout.readline()) for device in fleet if device.stdout is not None)


def subscribers(port: int, folder: Path, ref: BlobRef, count: int) -> Callable[[], float]:
    """Start mosquitto_sub, each to end after the last chunk."""
    pattern, folder = TOPICS.chunk(ref.sha256, 0).removesuffix("0") + "+", folder / "sub"
    folder.mkdir(parents=True, exist_ok=True)
    running = []
    for n in range(count):
        with (folder / str(n)).open("wb") as file:
            command = ["mosquitto_sub", "-p", str(port), "-q", "1", "-t", pattern, "-N", "-C", str(ref.chunks)]
            running.append(subprocess.Popen(command, stdout=file))
    time.sleep(1)  # until they have subscribed; one that is later still gets everything, as it is retained

    def wait() -> float:
        for each in running:
            assert each.wait(120) == 0
        ended = time.monotonic()
        assert {(folder / str(n)).stat().st_size for n in range(count)} == {ref.size}
        return ended

    return wait


if __name__ == "__main__":
    raise SystemExit(run(measure))
