"""The inference loop: every frame is accounted for, a swap skips none, a bad source or frame ends nothing."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typing_extensions import Self

from devices.closing import Closing
from devices.preprocess import Preprocess
from devices.runners.base import Answer
from devices.sources import Frame
from edge_client.inference import Feed, Inference
from edge_client.moving_objects import Line, MovingObjectsConfig
from edge_client.pipelines import Bundle, Objects, WholeSample
from edge_client.results import Tally
from edge_client.seen import Seen
from edge_models.tasks import load_task
from edge_protocol.errors import IncompatibleError, SourceError
from edge_protocol.messages import IntervalResult
from edge_protocol.task import ImageInput
from tests.fakes.waiting import wait_for

VEHICLE, SPEED = load_task("vehicle"), load_task("speed")
assert isinstance(VEHICLE.input, ImageInput)


class Constant:
    """A runner that always says the same, of any task."""

    provider = "test"

    def __init__(self, outputs: int = 6, best: int = 1, fail: bool = False) -> None:
        self.outputs, self.best, self.fail, self.calls = outputs, best, fail, 0

    def infer(self, x: np.ndarray) -> Answer:
        """Logits with one best output."""
        self.calls += 1
        if self.fail:
            raise IncompatibleError("of another shape")
        logits = np.zeros((len(x), self.outputs), np.float32)
        logits[:, self.best] = 3
        return Answer(np.ones((len(x), 64), np.float32), logits)

    def close(self) -> None:
        """Nothing is held."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Frames(Closing):
    """A source of given frames, as fast as asked or at a pace."""

    def __init__(self, frames: list[Frame], pause_s: float = 0.0, fail: bool = False) -> None:
        self.frames, self.pause_s, self.fail = frames, pause_s, fail

    @property
    def ended(self) -> bool:
        """Whether the last frame was delivered."""
        return not self.frames

    def read(self, timeout_s: float) -> Frame | None:
        """The next frame."""
        if self.fail:
            self.fail = False
            raise SourceError("unplugged")
        if self.pause_s:
            time.sleep(self.pause_s)
        return self.frames.pop(0) if self.frames else None


def picture(number: int, **more: object) -> Frame:
    """A numbered picture."""
    return Frame(sample=f"s-{number}", at_s=1.7e9 + number / 25, image=np.full((32, 32, 3), 90, np.uint8), **more)  # type: ignore[arg-type]


def camera(opener: Callable[[], Frames], *, queue: int = 1000) -> tuple[Inference, Feed, Seen, list[IntervalResult]]:
    """A whole-sample camera."""
    out: list[IntervalResult] = []
    seen = Seen(0.0)
    tally = Tally(task="vehicle", source="main", interval_s=60, slot_s=None, emit=out.append)
    feed = Feed("main", opener, WholeSample(VEHICLE, Preprocess(VEHICLE.input), tally, seen), tally)  # type: ignore[arg-type]
    return Inference([feed], queue), feed, seen, out


def test_every_frame_is_answered_once_across_many_swaps() -> None:
    """While frames flow, bundles are swapped again and again: none is skipped, none is answered twice."""
    frames = 400
    inference, feed, _, out = camera(lambda: Frames([picture(i) for i in range(frames)], pause_s=0.0005))
    inference.swap(Bundle(0, Constant()))
    inference.start()
    release = 0
    while not inference.ended:
        release += 1
        inference.swap(Bundle(release, Constant()))
        time.sleep(0.001)
    inference.stop()
    counters = inference.counters
    assert (counters.frames, counters.answered, counters.swap_skipped) == (frames, frames, 0)
    assert release > 10
    assert sum(result.values["car"] for result in out) == frames
    inference.take(feed, picture(frames), 0.0)
    assert set(inference.latency_ms()) == {"latency_p50_ms", "latency_p95_ms"}


def test_a_release_is_not_told_as_fast_as_the_one_before() -> None:
    """What another release took is not said of this one, which has answered nothing; a new head is no new release."""
    inference, feed, _, _ = camera(lambda: Frames([]))
    inference.swap(Bundle(1, Constant()))
    inference.take(feed, picture(1), 0.0)
    inference.swap(Bundle(1, Constant()))
    assert inference.latency_ms()
    inference.swap(Bundle(2, Constant()))
    assert inference.latency_ms() == {}


def test_frames_before_the_first_release_wait_and_are_not_called_skipped() -> None:
    """They are remembered for the replay store; a bundle that vanished would be counted."""
    inference, feed, seen, _ = camera(lambda: Frames([]))
    inference.take(feed, picture(1), 0.0)
    assert (inference.counters.answered, inference.counters.swap_skipped) == (0, 0)
    assert [kept.sample for kept in seen.drain()] == ["s-1"]
    assert inference.latency_ms() == {}
    inference.swap(Bundle(1, Constant()))
    inference.take(feed, picture(2), 0.0)
    inference._bundle = None
    inference.take(feed, picture(3), 0.0)
    assert inference.counters.swap_skipped == 1


def test_frames_come_before_what_is_done_between_them() -> None:
    """What waits is answered first; then comes the step, with what serves, again and again until it is taken away."""
    inference, feed, _, _ = camera(lambda: Frames([]))
    runner = Constant()
    inference.swap(Bundle(1, runner))
    for number in range(5):
        inference.offer(feed, picture(number))
    answered: list[int] = []

    def step(bundle: Bundle | None) -> None:
        assert bundle is inference.bundle
        answered.append(runner.calls)

    inference.between(step)
    inference.start()
    wait_for(lambda: len(answered) > 20, "steps")
    inference.between(None)
    inference.offer(feed, picture(5))
    wait_for(lambda: runner.calls == 6, "an answer")
    steps = len(answered)
    inference.offer(feed, picture(6))
    wait_for(lambda: runner.calls == 7, "another")
    inference.stop()
    assert set(answered[:20]) == {5}
    assert len(answered) == steps


def test_black_frozen_and_empty_frames_are_missing_never_zero() -> None:
    """They are not answered and do not cover their interval."""
    inference, feed, _, out = camera(lambda: Frames([]))
    inference.swap(Bundle(1, Constant()))
    for number, fault in enumerate(("black", "frozen", "stalled", "unreadable")):
        inference.take(feed, picture(number, fault=fault), 0.0)
    inference.take(feed, Frame(sample="s", at_s=1.7e9), 0.0)
    inference.take(feed, None, 0.0)
    assert (inference.counters.missing, inference.counters.answered) == (5, 0)
    assert out == []


def test_the_oldest_frame_gives_way_when_too_many_wait() -> None:
    """The queue is bounded and every frame is accounted for; the end of a source is never dropped."""
    inference, feed, _, _ = camera(lambda: Frames([]), queue=4)
    inference.swap(Bundle(1, Constant()))
    inference._queue.put((feed, None, 0.0))
    for number in range(10):
        inference.offer(feed, picture(number))
    while inference._queue.qsize():
        inference.answer_next()
    counters = inference.counters
    assert counters.frames == counters.answered + counters.queue_dropped == 10
    assert counters.answered <= 5
    assert feed.ended
    inference._drop_oldest()


def test_a_frame_that_cannot_be_answered_costs_only_itself(caplog: pytest.LogCaptureFixture) -> None:
    """Counted and logged with its name; the loop goes on."""
    inference, feed, _, _ = camera(lambda: Frames([]))
    inference.swap(Bundle(1, Constant(fail=True)))
    inference.take(feed, picture(7), 0.0)
    inference.swap(Bundle(2, Constant()))
    inference.take(feed, picture(8), 0.0)
    assert (inference.counters.failed, inference.counters.answered) == (1, 1)
    assert "s-7" in caplog.text


def test_a_source_that_fails_is_opened_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unplugged camera is counted, and tried again until it delivers."""
    monkeypatch.setattr("edge_client.inference._REOPEN_S", 0.01)
    tries: list[int] = []

    def opener() -> Frames:
        tries.append(1)
        if len(tries) == 1:
            raise SourceError("no such device")
        return Frames([picture(i) for i in range(3)], fail=len(tries) == 2)

    inference, _, _, _ = camera(opener)
    inference.start()
    wait_for(lambda: inference.ended, "end of the source")
    inference.stop()
    assert inference.counters.source_failures == 2
    assert inference.counters.frames == 3


def test_a_silent_source_does_not_hold_the_agent_up() -> None:
    """Stopping ends the threads of a camera that delivers nothing."""
    silent = Frames([picture(1)])
    silent.read = lambda _timeout_s: None  # type: ignore[method-assign]
    inference, _, _, _ = camera(lambda: silent)
    before = threading.active_count()
    inference.start()
    inference.stop()
    assert threading.active_count() == before


def test_a_silent_source_comes_round_and_a_driver_that_hangs_does_not() -> None:
    """The watchdog is fed beside a logger without new rows, and not once a read does not come back."""
    source, hang, hung = Frames([picture(1)]), threading.Event(), threading.Event()

    def read(_timeout_s: float) -> None:
        if hang.is_set():
            hung.set()
            hang_ends.wait(60)

    hang_ends = threading.Event()
    source.read = read  # type: ignore[method-assign]
    inference, feed, _, _ = camera(lambda: source)
    assert not inference.turned()
    inference.start()
    for _ in range(3):
        wait_for(inference.turned, "a turn of every thread")
    hang.set()
    assert hung.wait(30)
    inference.turned()
    begun = inference.counters.frames
    inference.offer(feed, picture(2))
    wait_for(lambda: inference.counters.frames > begun, "the inference thread's own turn")
    assert not inference.turned()
    hang_ends.set()
    inference.stop()


def test_moving_objects_are_counted_by_line_direction_and_class(real_data: Path) -> None:
    """The real clip, with a student that sees cars only: what crosses is counted as cars."""
    from devices.sources import open_source  # noqa: PLC0415

    out: list[IntervalResult] = []
    seen = Seen(0.0)
    tally = Tally(task="vehicle", source="road", interval_s=60, slot_s=None, emit=out.append)
    lines = (Line("a", (0.0, 0.5), (1.0, 0.5)),)
    pipeline = Objects(VEHICLE, Preprocess(VEHICLE.input), MovingObjectsConfig(lines=lines), tally, seen)  # type: ignore[arg-type]
    feed = Feed("road", lambda: open_source("pack:///none", name="road"), pipeline, tally)
    inference = Inference([feed], 8)
    runner = Constant()
    with open_source(f"file://{real_data}/intel_car_detection.mp4", name="road", rate_hz=float("inf")) as source:
        for number in range(170):
            frame = None
            while frame is None and not source.ended:
                frame = source.read(5)
            if number == 60:
                inference.swap(Bundle(1, runner))
            if frame is not None:
                inference.take(feed, frame, float(number))
    inference.take(feed, None, 0.0)
    keys = {key for result in out for key in result.values}
    assert keys <= {"a/forward/car", "a/backward/car"}
    assert keys
    assert inference.counters.frames == 170
    assert inference.counters.answered == 110
    assert runner.calls > 0
    assert seen.drain()


def test_what_was_seen_is_bounded_and_a_label_finds_its_sample() -> None:
    """Recent samples are remembered for a label; the hand-over to the replay store is bounded and counted."""
    seen = Seen(every_s=10.0, recent=3)
    from edge_client.replay import Kept  # noqa: PLC0415

    for number in range(5):
        seen.see(Kept(f"s-{number}", 0.0, np.zeros((2, 2, 3), np.uint8)), float(number))
    assert [kept.sample for kept in seen.drain()] == ["s-0"]
    seen.see(Kept("s-5", 0.0, np.zeros((2, 2, 3), np.uint8), target=2), 5.0)
    assert [(kept.sample, kept.target) for kept in seen.drain()] == [("s-5", 2)]
    assert not seen.labelled("s-1", 4)
    assert seen.labelled("s-4", 4)
    assert [(kept.sample, kept.target) for kept in seen.drain()] == [("s-4", 4)]
    assert len(seen.latest(2)) == 2
    assert seen.latest(0) == []
    for _ in range(5000):
        seen.keep(Kept("x", 0.0, np.zeros(1, np.uint8)))
    assert seen.overrun == 5000 - 4096
    assert len(seen.drain()) == 4096


def test_how_unsure_the_answers_are_is_told_by_the_minute_and_the_scene() -> None:
    """What the source says of the scene comes before its name; the doubt is 1 - the best probability."""
    inference, feed, seen, _ = camera(lambda: Frames([]))
    inference.swap(Bundle(1, Constant()))
    for number in (0, 1, 60 * 25, 2 * 60 * 25):
        inference.take(feed, picture(number, condition="night"), 0.0)
        inference.take(feed, picture(number), 0.0)
    logits = Constant().infer(np.zeros((1, 3, 32, 32), np.float32)).logits[0]
    doubt = 1 - np.exp(logits).max() / np.exp(logits).sum()
    told = seen.doubts.drain()
    assert [each.condition for each in told] == ["night", "main", "night", "main"]
    assert [each.doubt for each in told] == pytest.approx([float(doubt)] * 4, rel=1e-5)
