"""Quotas: an honest pace always passes, a flood never gets more than its buckets hold, and memory is bounded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from broker_server.quotas import BYTES, DAY_S, MESSAGES, QuotaConfig, Quotas
from edge_protocol.ids import DeviceId

CONFIG = QuotaConfig(messages_s=8, burst=100, bytes_day=1 << 20)
CAM, OTHER = DeviceId("cam-1"), DeviceId("cam-2")
steps = st.lists(st.tuples(st.floats(-5, 30), st.integers(0, 1 << 18)), max_size=300)


@given(steps)
def test_no_schedule_gets_more_than_the_buckets_hold(schedule: list[tuple[float, int]]) -> None:
    """Whatever a device sends and when, and however the clock jumps, what is taken stays below burst plus refill."""
    quotas, now, taken, volume, passed = Quotas(CONFIG, 10), 0.0, 0, 0, 0.0
    for step, size in schedule:
        now, passed = now + step, passed + max(step, 0)
        if not quotas.refusal(CAM, size, now):
            taken, volume = taken + 1, volume + size
        assert taken <= CONFIG.burst + passed * CONFIG.messages_s + 1e-6
        assert volume <= CONFIG.bytes_day * (1 + passed / DAY_S) + 1e-3


def test_an_honest_pace_passes_for_ever() -> None:
    """At the quota's own rate nothing is refused, after the burst is used up as well."""
    quotas = Quotas(CONFIG, 10)
    assert [quotas.refusal(CAM, 1, 0.0) for _ in range(101)] == [""] * 100 + [MESSAGES]
    assert {quotas.refusal(CAM, 1, i / 8) for i in range(1, 500)} == {""}


def test_bytes_are_counted_by_the_day() -> None:
    """A device that has sent its bytes is refused for its bytes, and after half a day has half of them again."""
    quotas = Quotas(CONFIG, 10)
    assert quotas.refusal(CAM, 1 << 20, 0.0) == ""
    assert quotas.refusal(CAM, 1 << 19, 1.0) == BYTES
    assert quotas.refusal(CAM, 1 << 19, DAY_S / 2 + 1) == ""
    assert quotas.refusal(CAM, 1 << 19, DAY_S / 2 + 2) == BYTES


def test_one_device_takes_nothing_from_another() -> None:
    """Buckets are of one device each, and a fleet larger than the limit forgets the one silent for longest."""
    quotas = Quotas(CONFIG, 2)
    for _ in range(200):
        quotas.refusal(CAM, 1, 0.0)
    assert quotas.refusal(OTHER, 1, 0.0) == ""
    assert quotas.refusal(CAM, 1, 0.0) == MESSAGES
    quotas.refusal(DeviceId("cam-3"), 1, 0.0)
    assert len(quotas) == 2
    assert quotas.refusal(CAM, 1, 0.0) == MESSAGES


@given(st.lists(st.tuples(st.floats(-5, 3000), st.integers(1, 1 << 20)), max_size=200))
def test_no_schedule_has_more_published_again_than_its_bucket_holds(schedule: list[tuple[float, int]]) -> None:
    """Nor does what is published again take anything from what a device may send."""
    quotas, now, taken, passed = Quotas(CONFIG, 10), 0.0, 0, 0.0
    for step, size in schedule:
        now, passed = now + step, passed + max(step, 0)
        if not quotas.again(CAM, size, now):
            taken += size
        assert taken <= CONFIG.again_burst + passed * CONFIG.again_s + 1
    assert [quotas.refusal(CAM, 1, now) for _ in range(100)] == [""] * 100


def test_one_device_has_a_whole_blob_published_again_by_and_by() -> None:
    """The largest blob there is takes one device four and a half hours, with no other to help it."""
    quotas, now, left = Quotas(QuotaConfig(), 10), 0.0, 256 << 20
    while left > 0:
        if quotas.again(CAM, 61_440, now):
            now += 4.0
        else:
            left -= 61_440
    assert 4 < now / 3600 < 4.6
