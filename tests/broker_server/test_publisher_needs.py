"""What devices ask for again: published, but not too often, and not beyond their budget."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from broker_server.publisher import COOLDOWN_S
from broker_server.quotas import AGAIN
from tests.broker_server.publisher_scene import TASK, Scene


def free(_: int) -> str:
    """A budget without end."""
    return ""


def test_a_chunk_that_a_device_misses_is_sent_again_but_not_too_often(tmp_path: Path) -> None:
    """Ten devices that miss the same chunk at once cost one publication."""
    scene = Scene(tmp_path)
    ref = scene.blob(b"a")
    scene.publisher.hold(TASK, "release/1", (ref,))
    scene.settle(0.0)
    scene.broker.lose_store()
    for _ in range(10):
        assert scene.publisher.need(ref.sha256, (1,), COOLDOWN_S - 0.1, free) == ""
    scene.settle(COOLDOWN_S)
    assert scene.chunks(ref) == []
    for _ in range(10):
        scene.publisher.need(ref.sha256, (1,), COOLDOWN_S, free)
    before = scene.transport.traffic.messages_up
    scene.settle(COOLDOWN_S)
    assert (scene.chunks(ref), scene.transport.traffic.messages_up) == ([1], before + 1)


def test_the_cooldown_of_a_chunk_grows_until_there_is_a_new_link(tmp_path: Path) -> None:
    """Asked for each second over a day it is published every 128 s at last; others do not wait for it."""
    scene = Scene(tmp_path)
    ref = scene.blob(b"a")
    scene.publisher.hold(TASK, "release/1", (ref,))
    scene.settle(0.0)
    sent = [scene.transport.traffic.messages_up]
    for now in range(1, 86_400):
        scene.publisher.need(ref.sha256, (1,), float(now), free)
        scene.publisher.pump(float(now))
        sent.append(scene.transport.traffic.messages_up)
    again = [now for now in range(1, 86_400) if sent[now] > sent[now - 1]]
    assert again[:8] == [2, 6, 14, 30, 62, 126, 254, 382]
    assert {later - sooner for sooner, later in itertools.pairwise(again[6:])} == {128}
    scene.publisher.need(ref.sha256, (0,), 86_400.0, free)
    assert scene.publisher.pump(86_400.0) == 1
    scene.publisher.connected(float(again[-1]))
    scene.settle(float(again[-1]))
    scene.publisher.need(ref.sha256, (1,), again[-1] + COOLDOWN_S, free)
    assert scene.publisher.pump(again[-1] + COOLDOWN_S) == 1


def test_a_device_s_budget_bounds_what_is_published_at_its_word(tmp_path: Path) -> None:
    """Chunks go out as far as it reaches; the refusal is told, and what waits in the queue anyway costs nothing."""
    scene = Scene(tmp_path)
    ref, last = scene.blob(b"a", 6), scene.blobs.put(b"b" * 15, 10)
    scene.publisher.hold(TASK, "release/1", (ref, last))
    budget = [35]

    def spend(size: int) -> str:
        if budget[0] < size:
            return AGAIN
        budget[0] -= size
        return ""

    assert scene.publisher.need(ref.sha256, tuple(range(6)), 0.0, spend) == ""
    assert budget == [35]
    scene.settle(0.0)
    scene.broker.lose_store()
    assert scene.publisher.need(last.sha256, (1,), 10.0, spend) == ""
    assert budget == [30]
    assert scene.publisher.need(ref.sha256, tuple(range(6)), 10.0, spend) == AGAIN
    scene.settle(10.0)
    assert (scene.chunks(ref), scene.chunks(last), budget) == ([0, 1, 2], [1], [0])


def test_a_need_for_what_is_not_kept_is_refused(tmp_path: Path) -> None:
    """Unknown blobs and chunks have a reason; the known chunks of the same need still go out."""
    scene = Scene(tmp_path)
    ref = scene.blob(b"a")
    assert scene.publisher.need(ref.sha256, (0,), 0.0, free) == "unknown-blob"
    scene.publisher.hold(TASK, "release/1", (ref,))
    assert scene.publisher.need(ref.sha256, (0, 99), 0.0, free) == "unknown-chunk"


@pytest.mark.parametrize("back", [0.5, 86_400.0])
def test_a_clock_that_was_set_back_keeps_no_chunk_from_who_needs_it(tmp_path: Path, back: float) -> None:
    """A chunk published in what is the future now is published again when it is asked for, and then cools down."""
    scene = Scene(tmp_path)
    ref = scene.blob(b"a")
    scene.publisher.hold(TASK, "release/1", (ref,))
    scene.settle(100_000.0)
    scene.broker.lose_store()
    scene.publisher.need(ref.sha256, (0, 1), 100_000.0 - back, free)
    scene.settle(100_000.0 - back)
    assert scene.chunks(ref) == [0, 1]
    scene.broker.lose_store()
    scene.publisher.need(ref.sha256, (0, 1), 100_000.0 - back + 1, free)
    scene.settle(100_000.0 - back + 1)
    assert scene.chunks(ref) == []
