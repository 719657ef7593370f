"""Trunks that are shared: devices' own training code, the wire, the real server and distiller, to a judged release."""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from msgspec.structs import replace
from safetensors.numpy import save

from broker_server.config import DistilConfig, RoundsConfig
from broker_server.distil_job import TrunkSettings
from broker_server.proxy_set import load_samples
from broker_server.records import RoundRecord
from broker_server.replay import replay
from broker_server.round_facts import manifest_of, round_details
from broker_server.server import Server
from devices.runners.payload import read_payload
from edge_client.trunk_lesson import trunk_change
from edge_models.tasks import load_task
from edge_models.trunk_changes import encode_change
from edge_protocol import messages as m
from edge_protocol.task import Tier
from edge_protocol.transport.memory import MemoryBroker
from edge_protocol.trunks import TrunkChange
from export.released import released_student
from tests.broker_server.strategies.ballots import forecast_votes
from tests.fakes.centre import centre_config, drive, make_server, rounds_closed
from tests.fakes.clock import FakeClock
from tests.fakes.fleet_simulator import FleetSimulator, SimulatedDevice, in_memory
from tests.fakes.round_state import LENIENT, SPEED, in_process, save_series

SPEC = load_task(SPEED)
SHARING = TrunkSettings(steps=4, batch=16, learning_rate=1e-3)
DISTIL = DistilConfig(first_steps=2, steps=24, checkpoint_steps=12, anchor_weight=3.0, seed=1, trust_share=0)
"""Without hidden anchors nothing hangs on the server's random salt: the same round every time."""
LIARS = {"dev-6": "huge", "dev-7": "nan", "dev-8": "other-tier", "dev-9": "stale", "dev-10": "junk"}
"""Device → how it lies; tiers go round: nano, small, base."""

pytestmark = pytest.mark.timeout(300)


class Fleet:
    """Eleven devices: two honest ones of `nano` and of `small`, one of `base`, five liars, one that sends no change."""

    def __init__(self, state: Path) -> None:
        self.state = state
        self.asked: list[m.RoundCall] = []

    def payload(self, tier: str, release: int) -> bytes:
        """A tier's weights payload, as a device of that tier has it."""
        return (self.state / "releases" / SPEED / str(release) / f"{tier}.weights.safetensors").read_bytes()

    def honest(self, tier: Tier, call: m.RoundCall, seed: int) -> TrunkChange:
        """What the training subprocess of a device makes of its own windows."""
        assert call.trunk is not None
        payload = self.payload(tier, call.release)
        own = load_samples(save_series(self.state.parent / f"own-{seed}.npz", seed), SPEC)
        student = released_student(read_payload(payload), SPEC, tier)
        change = trunk_change(student, own.raw.astype(np.float32), own.targets, SPEC, call.trunk, seed)
        return TrunkChange(sha256(payload).hexdigest(), call.trunk.steps, encode_change(change))

    def trunk(self, device: SimulatedDevice, call: m.RoundCall) -> TrunkChange | None:
        """What a device sends, by its nature; one is silent."""
        self.asked.append(call)
        if device.name == "dev-5":
            return None
        tier: Tier = device.tier  # type: ignore[assignment]
        sent = self.honest(tier, call, int(device.name.removeprefix("dev-")))
        return self.spoilt(LIARS.get(device.name, ""), sent, call, tier)

    def spoilt(self, how: str, sent: TrunkChange, call: m.RoundCall, tier: Tier) -> TrunkChange:
        """What a liar makes of an honest change."""
        weights = {
            name: value for name, value in read_payload(self.payload(tier, call.release)).items() if "head" not in name
        }
        lies = {
            "": lambda: sent,
            "huge": lambda: with_data(sent, encode_change({n: np.full_like(v, 30) for n, v in weights.items()})),
            "nan": lambda: with_data(sent, save({n: np.full(v.size, np.nan, np.float16) for n, v in weights.items()})),
            "other-tier": lambda: with_data(sent, self.honest("nano", call, 1).data),
            "stale": lambda: replace(sent, base=sha256(b"an older release").hexdigest()),
            "junk": lambda: with_data(sent, b"\xff" * 40),
        }
        return lies[how]()


def with_data(change: TrunkChange, data: bytes) -> TrunkChange:
    """The same, with another change in it."""
    return replace(change, data=data)


class Told(NamedTuple):
    """A state folder, its two rounds, and who took part."""

    state: Path
    first: RoundRecord
    second: RoundRecord
    parts: Fleet


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Told]:
    """A state folder after two rounds with shared trunks."""
    home = tmp_path_factory.mktemp("centre")
    for seed, name in enumerate(("anchors", "proxies", "validation")):
        save_series(home / f"{name}.npz", seed)
    rounds = RoundsConfig(limit=2, quorum=11, wait_for=11, deadline_s=600, pause_s=0, trunk=SHARING)
    config = centre_config(home, rounds=rounds, task=SPEED, distil=DISTIL, judge=LENIENT)
    clock, broker, parts = FakeClock(), MemoryBroker(), Fleet(Path(config.state_dir))
    server = make_server(config, broker, clock, in_process)
    fleet = FleetSimulator(in_memory(broker), SPEC, clock, 11, knowledge=lambda *_: votes_of(server), trunk=parts.trunk)
    try:
        server.start()
        fleet.start()
        drive(server, fleet, clock, rounds_closed(server, 2, SPEED), "end of round 2")
        _, first, second = server.database.rounds(SPEED)
        yield Told(parts.state, first, second, parts)
    finally:
        server.close()


def votes_of(server: Server) -> m.ForecastVotes:
    """Forecasts of every proxy: next to nothing changes."""
    return forecast_votes([0.3125] * server.coordinator.tasks[SPEED].setup.samples, horizons=3)


def test_a_round_with_shared_trunks_ends_in_a_release(told: Told) -> None:
    """All reports count, the call asked for trunks, two tiers share, and drifts lie beside the release."""
    state, record, parts = told.state, told.first, told.parts
    assert (record.state, record.refused) == ("released", {}), record.reason
    assert {call.trunk for call in parts.asked} == {SHARING.ask}
    manifest = manifest_of(state, record)
    assert manifest is not None
    assert manifest.result.teacher["reports"] == 11
    counted = {device for device, why in manifest.result.trunks.items() if not why}
    assert counted == {"dev-0", "dev-3", "dev-1", "dev-4"}, manifest.result.trunks
    release = state / "releases" / SPEED / "2"
    assert {path.name for path in release.glob("*.drift.safetensors")} == {
        "nano.drift.safetensors",
        "small.drift.safetensors",
    }


@pytest.mark.parametrize(
    ("device", "reason"),
    [
        ("dev-6", "too-long: dev-6 sent a change of length"),
        ("dev-7", "not-finite: "),
        ("dev-8", "wrong-names: dev-8"),
        ("dev-9", "wrong-base: dev-9 changed weights"),
        ("dev-10", "malformed: "),
        ("dev-2", "too-few: 1 of the 2 devices that tier 'base' needs"),
    ],
)
def test_an_operator_reads_why_a_change_does_not_count(told: Told, device: str, reason: str) -> None:
    """A liar's change is refused with its reason, beside its votes, which count."""
    state, record = told.state, told.first
    rows = {row["device"]: row for row in round_details(record, manifest_of(state, record))["devices"]}
    assert rows[device]["trunk"].startswith(reason)
    assert rows[device]["counts"]
    assert rows["dev-0"]["trunk"] == "counts"
    assert rows["dev-5"]["trunk"] is None


def test_the_round_after_can_be_done_again(told: Told) -> None:
    """From the drifts and reports that its manifest names by hash come the same files and refusals, bit for bit."""
    state, record = told.state, told.second
    manifest = manifest_of(state, record)
    assert manifest is not None
    drift = state / "releases" / SPEED / "2" / "nano.drift.safetensors"
    report = state / "jobs" / f"{SPEED}-2" / "reports" / "dev-0.report"
    for name, file in ((str(drift), drift), ("reports/dev-0.report", report)):
        assert manifest.inputs[name] == sha256(file.read_bytes()).hexdigest()
    found = replay(state, record, in_process)
    assert found.same, [pair for pair in found.outcomes if not pair.same]
    assert {"nano/drift.safetensors", "trunk/dev-0", "trunk/dev-9"} <= {pair.what for pair in found.outcomes}
