"""Broker and server killed while a real device fetches, and devices whose clock is in 1970 or 2038."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from broker_server.brokers import Broker
from tests.edge_client.test_deltas import moved
from tests.fakes.brokers import mosquitto_broker
from tests.fakes.small_centre import artifact_files
from tests.fakes.waiting import wait_for
from tests.faults.real_site import WITHIN_S, RealSite, padded

__all__ = ["mosquitto_broker"]
pytestmark = [pytest.mark.broker, pytest.mark.timeout(600)]
SLOW_S = 0.02


@pytest.fixture
def site(tmp_path: Path, mosquitto_broker: Broker) -> Iterator[RealSite]:
    """A server with one release, not running yet, and a device with nothing."""
    made = RealSite(tmp_path, mosquitto_broker)
    with made.proxy:
        yield made


def reach(site: RealSite, release: int) -> None:
    """Wait until the device's disk would boot a release."""
    wait_for(lambda: site.booting()[:1] == [release], f"release {release}", within_s=WITHIN_S)


def test_a_broker_killed_mid_fetch_costs_time_only(site: RealSite, mosquitto_broker: Broker) -> None:
    """It comes back with nothing; the server fills it again and the device goes on to the release."""
    site.proxy.delay_s = SLOW_S
    with site.server(), site.device() as device:
        site.wait_mid_fetch()
        mosquitto_broker.kill()
        for stored in mosquitto_broker.options.state_dir.rglob("*.db"):
            stored.unlink()
        assert site.booting() == []
        mosquitto_broker.start()
        site.proxy.delay_s = 0.0
        reach(site, 1)
        site.wait_told(1)
        assert device.poll() is None


def test_a_server_killed_mid_fetch_is_not_needed(site: RealSite) -> None:
    """The broker has the chunks: the device commits without a server, and tells the next one."""
    site.proxy.delay_s = SLOW_S
    with site.device() as device:
        with site.server() as server:
            site.wait_mid_fetch()
            server.kill()
        site.proxy.delay_s = 0.0
        reach(site, 1)
        with site.server():
            site.wait_told(1)
            assert site.push(padded(moved(artifact_files()), seed=1)) == 2
            reach(site, 2)
            site.wait_told(2)
        assert device.poll() is None
    assert site.booting() == [2, 1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("clock_s", "reason"),
    [(60.0, "clock-untrusted"), (2**31 + 3600.0, "metadata-expired")],
    ids=["1970", "2038"],
)
def test_a_wrong_clock_costs_the_next_release_only(site: RealSite, clock_s: float, reason: str) -> None:
    """In 1970, or after a 32-bit clock, a device serves and tells why it takes nothing; with the time it does."""
    with site.server():
        with site.device():
            reach(site, 1)
            site.wait_told(1)
        assert site.push(padded(moved(artifact_files()), seed=1)) == 2
        with site.device(clock_s=clock_s) as device:
            site.wait_refused(reason)
            assert device.poll() is None
        assert site.booting() == [1]
        with site.device():
            reach(site, 2)
            site.wait_told(2)
