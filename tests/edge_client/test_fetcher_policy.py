"""A fetcher with a policy, and with a mirror: why it waits is said, and a mirror that fails costs nothing but time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from edge_client.chunk_sources import MIRROR_PAUSE_S, MIRROR_SILENCE_S
from edge_client.effects import Fetched, FetchHeld
from edge_client.fetch_policy import FetchConfig, Surroundings
from edge_client.fetcher import Fetcher
from edge_client.mirror import Mirror
from edge_protocol import messages as m
from edge_protocol.blobs import BlobRef
from edge_protocol.effects import Drop
from edge_protocol.transport.base import Received
from edge_protocol.transport.memory import MemoryBroker
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.edge_client.test_fetcher import CHUNK, DATA, TOPICS, Rig
from tests.fakes.range_server import Handler, RangeServer, honest
from tests.fakes.small_centre import artifact_files
from tests.fakes.waiting import wait_for


class Looks:
    """Surroundings that the test decides."""

    def __init__(self, seen: Surroundings) -> None:
        self.seen = seen

    def __call__(self, now: float) -> Surroundings:
        """What the test says."""
        return self.seen

    def close(self) -> None:
        """Nothing was started."""


def policed(folder: Path, policy: FetchConfig, seen: Surroundings | None = None) -> tuple[Rig, Looks]:
    """A rig whose fetcher has a policy."""
    rig, looks = Rig(folder), Looks(seen or Surroundings())
    rig.fetcher = Fetcher(folder, TOPICS, rig.link, policy=policy, look=looks)
    return rig, looks


def test_a_metered_link_is_waited_out_and_said_once(tmp_path: Path) -> None:
    """Nothing is asked for meanwhile; then it goes on, and that is said too."""
    rig, looks = policed(tmp_path / "blobs", FetchConfig(), Surroundings(metered=True))
    ref = rig.publish(DATA)
    rig.fetch(ref)
    for _ in range(20):
        rig.clock.advance(30)
        rig.said += rig.fetcher.tick(rig.clock.now)
    assert rig.said == [FetchHeld("waits: the link is metered")]
    assert not rig.link._filters
    size = 40 * CHUNK
    told = {"fetch_bytes": size, "fetch_bytes_left": size, "fetch_held": 1, "fetch_idle_s": 600}
    assert rig.fetcher.counts(rig.clock.now) == told
    looks.seen = Surroundings(urgent=True, metered=True)
    rig.said += rig.fetcher.tick(rig.clock.now)
    rig.finish()
    assert rig.said[1:] == [FetchHeld(""), Fetched(ref.sha256)]


def test_whoever_asks_later_hears_why_it_waits_too(tmp_path: Path) -> None:
    """A second blob, while the first one waits."""
    rig, _ = policed(tmp_path / "blobs", FetchConfig(), Surroundings(metered=True))
    for size in (9000, 8000):
        rig.fetch(rig.publish(DATA[:size]))
    assert rig.said == [FetchHeld("waits: the link is metered")] * 2
    rig.fetcher.close()


def test_hours_that_end_in_the_middle_keep_what_was_had(tmp_path: Path) -> None:
    """What was asked for arrives, nothing more is asked for until they begin again."""
    rig, looks = policed(tmp_path / "blobs", FetchConfig(hours="01:00-04:00"), Surroundings(60))
    ref = rig.publish(DATA)
    rig.fetch(ref)
    rig.turn(most=5)
    looks.seen = Surroundings(240)
    rig.turn()
    left = rig.fetcher.counts(rig.clock.now)["fetch_bytes_left"]
    assert 0 < left < 40 * CHUNK
    rig.clock.advance(3600)
    rig.said += rig.fetcher.tick(rig.clock.now)
    assert rig.fetcher.counts(rig.clock.now)["fetch_bytes_left"] == left
    looks.seen = Surroundings(61)
    rig.said += rig.fetcher.tick(rig.clock.now)
    rig.finish()
    assert rig.fetcher.path(ref.sha256).read_bytes() == DATA


def test_a_cap_spreads_a_blob_over_its_time(tmp_path: Path) -> None:
    """40,000 bytes at 2,000 a second take 18 to 20 s, by the deadlines that the fetcher names itself."""
    rig, _ = policed(tmp_path / "blobs", FetchConfig(bytes_per_s=2 * CHUNK))
    ref, begun = rig.publish(DATA), rig.clock.now
    rig.fetch(ref)
    for _ in range(1000):
        rig.turn()
        if rig.all(Fetched):
            break
        deadline = rig.fetcher.next_deadline()
        assert deadline is not None
        rig.clock.now = max(deadline, rig.clock.now) + 1e-6
        rig.said += rig.fetcher.tick(rig.clock.now)
    assert 18 <= rig.clock.now - begun <= 20
    assert rig.said == [Fetched(ref.sha256)]


@pytest.fixture
def server() -> Iterator[RangeServer]:
    """An HTTP server beside the broker."""
    with RangeServer() as made:
        yield made


def mirrored(folder: Path, server: RangeServer) -> Rig:
    """A rig whose fetcher has a mirror."""
    rig = Rig(folder)

    def deliver(ref: BlobRef, index: int, data: bytes) -> None:
        rig.inbox.put(Received(TOPICS.chunk(ref.sha256, index), data))

    rig.fetcher = Fetcher(folder, TOPICS, rig.link, mirror=Mirror(server.base, deliver))
    return rig


def until(rig: Rig, sha256: str) -> None:
    """Turn until a blob is there, without any time passing on the fetcher's clock."""

    def turned() -> bool:
        rig.turn()
        rig.said += rig.fetcher.tick(rig.clock.now)
        return Fetched(sha256) in rig.said

    wait_for(turned, "blob")


def test_a_mirror_is_asked_first_and_the_broker_not_at_all(tmp_path: Path, server: RangeServer) -> None:
    """Even while the broker is away."""
    rig = mirrored(tmp_path / "blobs", server)
    ref = rig.publish(DATA)
    server.files[ref.sha256] = DATA
    rig.link.cut()
    rig.fetch(ref)
    until(rig, ref.sha256)
    assert rig.fetcher.path(ref.sha256).read_bytes() == DATA
    assert rig.link.traffic.messages_down == 0
    assert rig.fetcher.counts(rig.clock.now)["bytes_mirror"] == len(DATA)
    rig.fetcher.close()


def test_a_mirror_that_lies_is_left_for_the_broker_and_tried_again_after_a_pause(
    tmp_path: Path, server: RangeServer
) -> None:
    """The chunks that it got right are kept; the reason is counted; the next blob after the pause is its own again."""
    rig = mirrored(tmp_path / "blobs", server)
    first, second = rig.publish(DATA), rig.publish(DATA[:9000])
    server.files[first.sha256] = DATA[:20_000] + bytes(20_000)
    server.files[second.sha256] = DATA[:9000]
    rig.fetch(first)
    until(rig, first.sha256)
    assert rig.fetcher.path(first.sha256).read_bytes() == DATA
    assert [drop.reason for drop in rig.all(Drop)] == ["mirror-failed"]
    assert 20 <= rig.link.traffic.messages_down <= 40
    rig.clock.advance(1.3 * MIRROR_PAUSE_S)
    before = rig.link.traffic.messages_down
    rig.fetch(second)
    until(rig, second.sha256)
    assert rig.link.traffic.messages_down == before
    rig.fetcher.close()


def test_a_mirror_that_drips_is_left_after_a_minute_and_its_late_bytes_do_no_harm(
    tmp_path: Path, server: RangeServer
) -> None:
    """Slow loris: one byte now and then is no chunk."""

    def drip(handler: Handler, data: bytes, start: int, stop: int) -> None:
        handler.begin(206, stop - start, Content_Range=f"bytes {start}-{stop - 1}/{len(data)}")
        handler.wfile.write(data[start : start + CHUNK // 2])
        wait_for(lambda: server.answer is honest, "end of the test", within_s=60)

    rig = mirrored(tmp_path / "blobs", server)
    ref = rig.publish(DATA)
    server.files[ref.sha256], server.answer = DATA, drip
    rig.fetch(ref)
    wait_for(lambda: server.requests, "request")
    rig.said += rig.fetcher.tick(rig.clock.now)
    assert rig.fetcher.next_deadline() == rig.clock.now + MIRROR_SILENCE_S
    rig.clock.advance(MIRROR_SILENCE_S)
    until(rig, ref.sha256)
    assert "no whole chunk" in rig.all(Drop)[0].detail
    assert rig.fetcher.path(ref.sha256).read_bytes() == DATA
    server.answer = honest
    rig.fetcher.close()


def test_with_neither_mirror_nor_broker_it_waits_for_either(tmp_path: Path, server: RangeServer) -> None:
    """No request, no deadline to run into; the broker's return is enough."""
    rig = mirrored(tmp_path / "blobs", server)
    ref = rig.publish(DATA)
    rig.link.cut()
    rig.fetch(ref)

    def failed() -> list[Drop]:
        rig.said += rig.fetcher.tick(rig.clock.now)
        return rig.all(Drop)

    wait_for(failed, "failure of the mirror")
    assert rig.fetcher.next_deadline() is None
    rig.link.start()
    rig.fetcher.relink()
    until(rig, ref.sha256)
    rig.fetcher.close()


def test_an_operator_sees_why_a_device_waits(tmp_path: Path) -> None:
    """The deployment says so, the state counts it; once it is urgent the release comes."""
    rig = DeviceRig(device_config(tmp_path, fetch={"metered": True}), MemoryBroker())
    rig.centre.release(1, {"nano": artifact_files()})
    rig.until(lambda: [d for d in rig.centre.of(m.Deployment) if "metered" in d.reason], "reason")
    told = next(d for d in rig.centre.of(m.Deployment) if d.reason)
    assert (told.state, told.release, told.reason) == ("fetching", 1, "waits: the link is metered")
    rig.until(lambda: [s for s in rig.centre.of(m.DeviceState) if s.counts.get("fetch_held")], "state")
    (tmp_path / "state" / "fetch-now").touch()
    rig.until(lambda: rig.agent.core.running.release == 1, "release")
    rig.until(lambda: rig.centre.of(m.Deployment)[-1].state == "committed", "outcome")
    assert rig.centre.of(m.Deployment)[-1].reason == ""
    rig.close()


def test_an_agent_fetches_by_http_what_its_configuration_names(tmp_path: Path, server: RangeServer) -> None:
    """The release comes from the mirror alone: the broker holds no chunk of it."""
    rig = DeviceRig(device_config(tmp_path, fetch={"mirror": server.base}), MemoryBroker())
    rig.centre.release(1, {"nano": artifact_files()})
    chunks = [topic for topic in rig.broker.retained if "/blob/" in topic]
    for topic in sorted(chunks, key=lambda topic: int(topic.rpartition("/")[2])):
        name = topic.split("/")[-2]
        server.files[name] = server.files.get(name, b"") + rig.broker.retained.pop(topic)
    rig.until(lambda: rig.agent.core.running.release == 1, "release")
    rig.until(lambda: [s for s in rig.centre.of(m.DeviceState) if s.counts.get("bytes_mirror")], "state")
    rig.close()
