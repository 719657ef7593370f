"""Which changes of trunks count, what they come to, and what one round leaves to the next."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save, save_file

from broker_server.distil_job import TrunkSettings
from broker_server.strategies.trunk_sharing import Drift
from broker_server.trunks import TierTrunks, fuse, load_drift, save_drift
from edge_models.trunk_changes import encode_change, length
from edge_protocol.errors import DistillationError, IncompatibleError, RemoteProtocolError
from edge_protocol.ids import DeviceId
from edge_protocol.trunks import TrunkChange

TRUNK = {"trunk.w": np.full((4, 3), 2.0, np.float32), "trunk.b": np.ones(3, np.float32)}
STILL = {name: np.zeros_like(value) for name, value in TRUNK.items()}
PAYLOAD = save({**TRUNK, "head.weight": np.ones((2, 3), np.float32)})
BASE = sha256(PAYLOAD).hexdigest()
OTHER = save({"trunk.w": np.full((5, 3), 2.0, np.float32), "trunk.b": np.ones(3, np.float32)})
PLAIN = TrunkSettings(momentum=0.0, norm=0.5)


def told(size: float, payload: bytes = PAYLOAD, **change: np.ndarray) -> TrunkChange:
    """A change of every weight by a size, or the change that is given."""
    moved = {name.replace("_", "."): value for name, value in change.items()} or {
        name: np.full(value.shape, size, np.float32) for name, value in TRUNK.items()
    }
    return TrunkChange(sha256(payload).hexdigest(), 3, encode_change(moved))


def test_a_tier_moves_by_the_mean_of_its_devices() -> None:
    """Two changes count half each; the head has no part in it."""
    fused, said = fuse({DeviceId("a"): told(0.1), DeviceId("b"): told(0.3)}, {"nano": PAYLOAD}, {}, PLAIN)
    assert said == {"a": "", "b": ""}
    assert set(fused["nano"].change) == set(TRUNK)
    for value in fused["nano"].change.values():
        np.testing.assert_allclose(value, 0.2, rtol=1e-2)
    assert fused["nano"].devices == 2


def test_tiers_are_told_apart_by_the_weights_that_were_changed() -> None:
    """Each device moves its own tier; a tier without a payload, or without devices, has no entry."""
    wide = told(0, OTHER, trunk_w=np.full((5, 3), 0.2, np.float32), trunk_b=np.zeros(3, np.float32))
    sent = {DeviceId("a"): told(0.1), DeviceId("b"): told(0.1), DeviceId("c"): wide, DeviceId("d"): wide}
    fused, said = fuse(sent, {"nano": PAYLOAD, "small": OTHER, "base": b""}, {}, PLAIN)
    assert set(said.values()) == {""}
    assert {tier: len(each.change["trunk.w"]) for tier, each in fused.items()} == {"nano": 4, "small": 5}


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (told(50.0), "too-long: liar sent a change of length"),
        (told(0.1, OTHER), "wrong-base: liar changed weights"),
        (told(0, trunk_w=np.zeros((5, 3), np.float32), trunk_b=np.zeros(3, np.float32)), "wrong-shape: liar"),
        (told(0, trunk_w=np.zeros((4, 3), np.float32)), "wrong-names: liar did not send 'trunk.b'"),
        (
            TrunkChange(BASE, 1, encode_change({**STILL, "head.bias": np.zeros(2, np.float32)})),
            "wrong-names: liar sent 'head.bias'",
        ),
        (TrunkChange(BASE, 1, b"junk"), "malformed: "),
        (
            TrunkChange(sha256(PAYLOAD).hexdigest(), 1, save({"trunk.b": np.full(3, np.nan, np.float16)})),
            "not-finite: ",
        ),
    ],
)
def test_a_liar_is_named_and_the_others_count(bad: TrunkChange, reason: str) -> None:
    """Whatever one device sends, the mean is that of the others, and its reason can be read."""
    sent = {DeviceId("a"): told(0.1), DeviceId("b"): told(0.3), DeviceId("liar"): bad}
    fused, said = fuse(sent, {"nano": PAYLOAD}, {}, PLAIN)
    assert said["liar"].startswith(reason), said["liar"]
    np.testing.assert_allclose(fused["nano"].change["trunk.w"], 0.2, rtol=1e-2)
    assert fused["nano"].devices == 2


def test_one_device_alone_does_not_count() -> None:
    """A mean of one would put that device's own change into the release; with `least` 1 an operator may want it."""
    fused, said = fuse({DeviceId("a"): told(0.1)}, {"nano": PAYLOAD}, {}, PLAIN)
    assert fused == {}
    assert said["a"].startswith("too-few: 1 of the 2 devices that tier 'nano' needs")
    alone = TrunkSettings(momentum=0.0, least=1)
    assert set(fuse({DeviceId("a"): told(0.1)}, {"nano": PAYLOAD}, {}, alone)[0]) == {"nano"}


def test_what_earlier_rounds_agreed_on_is_kept_through_the_file(tmp_path: Path) -> None:
    """With momentum the second round moves further; the drift comes back from its file; other shapes start anew."""
    settings = TrunkSettings(momentum=0.5)
    path = tmp_path / "nano.drift.safetensors"
    sent = {DeviceId("a"): told(0.1), DeviceId("b"): told(0.1)}
    first = fuse(sent, {"nano": PAYLOAD}, {}, settings)[0]["nano"]
    path.write_bytes(save_drift(first.drift))
    kept = load_drift(path)
    assert kept is not None
    assert kept.radius == pytest.approx(first.drift.radius)
    second = fuse(sent, {"nano": PAYLOAD}, {"nano": kept}, settings)[0]["nano"]
    np.testing.assert_allclose(second.change["trunk.w"], 0.15, rtol=2e-2)
    strange = Drift({"trunk.w": np.ones((9, 9))}, 1.0)
    np.testing.assert_allclose(TierTrunks(PAYLOAD, settings, strange).fused().change["trunk.w"], 0)


def test_a_round_is_cut_to_the_median_of_the_last() -> None:
    """A device that goes as far as it may counts as far as its peers went a round ago."""
    first = fuse({DeviceId(n): told(0.1) for n in "ab"}, {"nano": PAYLOAD}, {}, PLAIN)[0]["nano"]
    far = fuse({DeviceId("a"): told(0.9), DeviceId("b"): told(0.1)}, {"nano": PAYLOAD}, {"nano": first.drift}, PLAIN)[
        0
    ]["nano"]
    assert length(far.change) == pytest.approx(first.drift.radius or 0, rel=2e-2)


def test_the_first_drift_and_a_damaged_one(tmp_path: Path) -> None:
    """A release without a drift has none; one that cannot be read is named with what to do."""
    assert load_drift(tmp_path / "none") is None
    (tmp_path / "bad").write_bytes(b"junk")
    save_file({"velocity.trunk.w": np.zeros(1, np.float32)}, tmp_path / "lacks")
    for name in ("bad", "lacks"):
        with pytest.raises(DistillationError, match="remove it"):
            load_drift(tmp_path / name)


def test_a_damaged_payload_is_an_error() -> None:
    """What the centre itself has must be whole."""
    with pytest.raises(IncompatibleError):
        TierTrunks(b"junk", PLAIN)


def test_a_device_counts_once() -> None:
    """A second change of the same device is refused by the rule."""
    tier = TierTrunks(PAYLOAD, PLAIN)
    tier.add(DeviceId("a"), told(0.1))
    with pytest.raises(RemoteProtocolError, match="the first counts"):
        tier.add(DeviceId("a"), told(0.1))
