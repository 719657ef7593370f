"""Real brokers as fixtures, imported in a conftest: each test gets a started one, or is skipped where there is none."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from broker_server.brokers import Broker, BrokerKind, BrokerOptions, choose_broker
from broker_server.brokers.mosquitto import Mosquitto
from edge_protocol.errors import NotReadyError


def make_broker(kind: BrokerKind, folder: Path, **options: int) -> Broker:
    """Make a broker that is not yet started, or skip the test; where CI runs, a missing broker is a failure."""
    try:
        return choose_broker(kind, options=BrokerOptions(state_dir=folder / kind, start_timeout_s=30, **options))
    except NotReadyError as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(str(error))


@pytest.fixture
def mosquitto_broker(tmp_path: Path) -> Iterator[Broker]:
    """A started Mosquitto on a free port."""
    with make_broker("mosquitto", tmp_path) as broker:
        yield broker


@pytest.fixture
def nats_broker(tmp_path: Path) -> Iterator[Broker]:
    """A started NATS server in MQTT mode on a free port."""
    with make_broker("nats", tmp_path) as broker:
        yield broker


@pytest.fixture(params=["mosquitto", "nats"])
def any_broker(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Broker]:
    """Each of the real brokers in turn."""
    with make_broker(request.param, tmp_path) as broker:
        yield broker


class LimitedMosquitto(Mosquitto):
    """Mosquitto with other limits than ours.

    Args:
        options: as for any broker.
        limits: configuration lines by their key; None leaves the broker its own default.
    """

    def __init__(self, options: BrokerOptions, limits: Mapping[str, int | None]) -> None:
        super().__init__(options)
        self._limits = limits

    def configuration(self) -> str:
        """Our configuration with these lines in place of its own."""
        kept = [line for line in super().configuration().splitlines() if line.split(" ")[0] not in self._limits]
        return "\n".join([*kept, *(f"{k} {v}" for k, v in self._limits.items() if v is not None), ""])
