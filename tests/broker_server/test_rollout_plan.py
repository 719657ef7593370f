"""Which devices come first, and what people may write."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker_server.rollout_plan import (
    DAY_S,
    MILLISECONDS,
    SECONDS,
    Member,
    Plan,
    in_order,
    parse_quantity,
    parse_share,
    size_of,
)
from edge_protocol.errors import ConfigError
from edge_protocol.ids import DeviceId

TAGS = {"north": ("cam-1*", "loop-3"), "south": ("cam-2",)}
members = st.lists(
    st.builds(
        Member,
        st.integers(0, 10_000).map(lambda i: DeviceId(f"cam-{i}")),
        st.sampled_from(["nano", "small", "base"]),
        st.sampled_from(["orin", "xavier"]),
        present=st.booleans(),
    ),
    max_size=60,
    unique_by=lambda m: m.device,
)


@given(members, st.randoms())
def test_the_order_depends_on_the_fleet_alone(fleet: list[Member], random: object) -> None:
    """However the devices are listed, the order is the same, and holds each of them once."""
    shuffled = list(fleet)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    ordered = in_order(fleet, "vehicle/2")
    assert ordered == in_order(shuffled, "vehicle/2")
    assert sorted(m.device for m in ordered) == sorted(m.device for m in fleet)


@given(members, st.floats(0.01, 1))
def test_the_first_devices_are_spread_over_tiers_and_boards(fleet: list[Member], share: float) -> None:
    """Every tier with a device that is there is among the canaries, and no stratum has more than its part and one."""
    tiers = {m.tier for m in fleet}
    chosen = in_order(fleet, "x")[: size_of(share, len(fleet), len(tiers))]
    assert {m.tier for m in fleet if m.present} <= {m.tier for m in chosen}
    whole, part = (Counter((m.tier, m.board) for m in group) for group in (fleet, chosen))
    for stratum, count in part.items():
        assert count <= len(chosen) * whole[stratum] / max(len(fleet), 1) + 2


def test_another_release_has_other_canaries() -> None:
    """It is not always the same device that goes first."""
    fleet = [Member(DeviceId(f"cam-{i}"), "nano") for i in range(100)]
    assert len({in_order(fleet, f"vehicle/{counter}")[0].device for counter in range(20)}) > 5


@pytest.mark.parametrize(
    ("share", "count", "tiers", "size"), [(0.05, 100, 3, 5), (0.05, 10, 3, 3), (1, 7, 3, 7), (0.1, 2, 3, 2)]
)
def test_a_share_is_rounded_up_and_holds_every_tier(share: float, count: int, tiers: int, size: int) -> None:
    """Never more than there are."""
    assert size_of(share, count, tiers) == size


@pytest.mark.parametrize(
    ("to", "device", "tier", "covered"),
    [
        ("", "cam-9", "nano", True),
        ("tag=north", "cam-17", "nano", True),
        ("tag=north", "loop-3", "nano", True),
        ("tag=north", "cam-2", "nano", False),
        ("tag=no*,tier=nano", "cam-1", "nano", True),
        ("tag=north,tier=nano", "cam-1", "base", False),
        ("device=cam-?", "cam-1", "nano", True),
        ("board=orin*", "cam-1", "nano", True),
        ("student=gru", "cam-1", "nano", False),
    ],
)
def test_who_a_rollout_is_for(to: str, device: str, tier: str, covered: object) -> None:
    """Tags, tiers, boards, students and names, all of which must hold."""
    member = Member(DeviceId(device), tier, "orin-nano", "depthwise")
    assert Plan(to=to).covers(member, TAGS) is covered


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"to": "north"}, "selects nothing"),
        ({"to": "colour=red"}, "board, device, student, tag, tier"),
        ({"waves": (0.5,)}, "the last wave must be 1"),
        ({"waves": (0.5, 0.2, 1.0)}, "must grow"),
        ({"canary": 0.5, "waves": (0.2, 1.0)}, "must grow"),
        ({"window": "1-4"}, "HH:MM-HH:MM"),
        ({"window": "01:00-01:00"}, "HH:MM-HH:MM"),
        ({"window": "25:00-26:00"}, "HH:MM-HH:MM"),
    ],
)
def test_a_plan_that_makes_no_sense_is_refused(fields: dict[str, object], message: str) -> None:
    """The error says what to write."""
    with pytest.raises(ConfigError, match=message):
        msgspec.structs.replace(Plan(), **fields)


@given(st.floats(0, 10 * DAY_S), st.integers(0, 1439), st.integers(0, 1439))
def test_a_window_opens_within_a_day(now: float, start: int, end: int) -> None:
    """When it opens is now or later, at most a day, and inside the window, over midnight too."""
    if start == end:
        return
    window = f"{start // 60:02}:{start % 60:02}-{end // 60:02}:{end % 60:02}"
    opens = Plan(window=window).opens_at(now)
    assert now <= opens <= now + DAY_S
    since = (opens - 60 * start) % DAY_S
    assert since < (60 * (end - start)) % DAY_S or since > DAY_S - 1e-3
    assert Plan().opens_at(now) == now


def test_shares_and_quantities_as_people_write_them() -> None:
    """Percent, minutes, milliseconds; what has no unit, or another one, is refused."""
    assert (parse_share("5%"), parse_share("0.25"), parse_share("100%")) == (0.05, 0.25, 1.0)
    assert (parse_quantity("30m", SECONDS, "duration"), parse_quantity("1.5h", SECONDS, "duration")) == (1800, 5400)
    assert parse_quantity("40ms", MILLISECONDS, "latency") == 40
    for text in ("30", "30 min", "m", "-3m"):
        with pytest.raises(ConfigError, match="is no duration"):
            parse_quantity(text, SECONDS, "duration")
    with pytest.raises(ConfigError, match="is no share"):
        parse_share("five")
