"""The whole agent when disks, messages, candidates and processes fail it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from edge_protocol import messages as m
from edge_protocol.ids import DeviceId
from edge_protocol.transport.base import Refused
from edge_protocol.transport.memory import MemoryBroker
from tests.edge_client.bad_releases import BAD
from tests.edge_client.device_rig import DeviceRig, device_config
from tests.fakes.small_centre import Files, artifact_files, spoilt


@pytest.fixture
def rig(tmp_path: Path) -> Iterator[DeviceRig]:
    """A camera that has booted with nothing installed."""
    made = DeviceRig(device_config(tmp_path))
    yield made
    made.close()


def running(rig: DeviceRig, release: int) -> bool:
    """Whether a release answers frames."""
    return rig.agent.core.running.release == release


def told(rig: DeviceRig) -> m.Deployment:
    """What the device last said about its deployment."""
    found: m.Deployment = rig.centre.of(m.Deployment)[-1]
    return found


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [*BAD.values(), (partial(spoilt, golden=9.0), "golden")],
    ids=[*BAD, "wrong golden answers"],
)
def test_a_release_that_fails_its_check_leaves_the_running_one(
    rig: DeviceRig, spoil: Callable[[Files], Files], reason: str
) -> None:
    """The reason is told, with what to do; the very runner of the old release goes on answering; the next is taken."""
    files = artifact_files()
    rig.centre.release(1, {"nano": files})
    rig.until(lambda: running(rig, 1), "release 1")
    bundle = rig.agent.inference.bundle
    rig.centre.release(2, {"nano": spoil(files)})
    rig.until(lambda: told(rig).state == "rolled-back", "a rollback")
    assert re.search(reason, told(rig).reason), told(rig).reason
    assert told(rig).running == 1
    assert rig.agent.inference.bundle is bundle
    answered = rig.agent.inference.counters.answered
    rig.until(lambda: rig.agent.inference.counters.answered > answered, "more answers")
    rig.centre.release(3, {"nano": artifact_files(seed=1)})
    rig.until(lambda: running(rig, 3), "release 3")


def test_a_candidate_that_is_too_slow_is_rolled_back(tmp_path: Path) -> None:
    """The probation's reason is told; nothing of the candidate is left in memory."""
    rig = DeviceRig(device_config(tmp_path))
    rig.centre.release(1, {"nano": artifact_files()})
    rig.until(lambda: running(rig, 1), "release 1")
    bundle = rig.agent.inference.bundle
    assert bundle is not None

    class Slow:
        provider = "slow"

        def infer(self, x: np.ndarray) -> object:
            time.sleep(0.05)
            return bundle.runner.infer(x)

    rig.agent._installer._config = type(rig.config.probation)(frames=2, wait_s=1, latency_factor=1.0)
    before = rig.agent._installer._check

    def checked(request: object) -> object:
        outcome = before(request)  # type: ignore[arg-type]
        candidate = rig.agent._installer.candidate
        assert candidate is not None
        rig.agent._installer.candidate = type(candidate)(2, candidate.artifact, Slow(), candidate.golden)  # type: ignore[arg-type]
        Slow.close = candidate.runner.close  # type: ignore[attr-defined]
        return outcome

    rig.agent._installer._check = checked  # type: ignore[assignment,method-assign]
    rig.centre.release(2, {"nano": artifact_files(seed=1)})
    rig.until(lambda: told(rig).state == "rolled-back", "rollback")
    assert "p95 latency" in told(rig).reason
    assert rig.agent.inference.bundle is bundle
    assert rig.agent._installer.candidate is None
    rig.close()


def test_a_restart_serves_at_once_from_the_disk(tmp_path: Path) -> None:
    """Without the server, the installed release answers frames; a damaged one falls back to the one before."""
    rig = DeviceRig(device_config(tmp_path))
    for counter in (1, 2):
        rig.centre.release(counter, {"nano": artifact_files(seed=counter - 1)})
        rig.until(lambda counter=counter: running(rig, counter), f"release {counter}")
    rig.close()
    alone = DeviceRig(rig.config, MemoryBroker())
    assert running(alone, 2)
    alone.until(lambda: alone.agent.inference.counters.answered > 3, "answers")
    alone.close()
    weights = Path(rig.config.state_dir) / "blobs" / alone.agent.core.running.weights / "data"
    weights.write_bytes(weights.read_bytes()[:-100])
    fallen = DeviceRig(rig.config, MemoryBroker())
    assert running(fallen, 1)
    assert fallen.agent._drops["fallback"] == 1
    fallen.close()
    healed = DeviceRig(rig.config, rig.broker)
    healed.until(lambda: running(healed, 2), "release 2 again")
    healed.close()
    (Path(rig.config.state_dir) / "vehicle" / "current.json").write_text("{ torn")
    (Path(rig.config.state_dir) / "vehicle" / "previous.json").unlink()
    empty = DeviceRig(rig.config, MemoryBroker())
    assert running(empty, 0)
    empty.close()


def test_a_device_killed_while_it_fetches_goes_on_where_it_was(tmp_path: Path) -> None:
    """What was written before the kill is not fetched again."""
    rig = DeviceRig(device_config(tmp_path))
    rig.until(lambda: rig.centre.of(m.Birth), "birth")
    rig.centre.release(1, {"nano": artifact_files()})
    blobs = Path(rig.config.state_dir) / "blobs"
    rig.agent._receive = lambda *_: None  # type: ignore[method-assign] # nothing more comes in before the kill
    rig.close()
    assert not list(blobs.glob("*/data"))
    again = DeviceRig(rig.config, rig.broker)
    again.until(lambda: running(again, 1), "release 1")
    again.close()


def test_wrong_messages_are_counted_and_change_nothing(rig: DeviceRig) -> None:
    """Garbage, other fleets, other senders, forged chunks: counted by reason, reported, survived."""
    topics, link = rig.centre.topics, rig.centre.link
    rig.until(lambda: rig.centre.of(m.Birth), "birth")
    down = topics.down(DeviceId("cam-1"), "command")
    for payload in (b"", b"garbage", b"RC\x09", b"RC\x01\xc1", b"x" * 400_000):
        link.publish(down, payload)
    link.publish(topics.release(rig.agent.spec.task_id), b"RC\x01\x92")
    rig.centre.say(topics.round(rig.agent.spec.task_id), m.Rebirth())
    rig.agent._inbox.put(Refused("inbox-full", "a test"))
    rig.centre.tell("cam-1", m.Label("vehicle", "nobody-knows", "car"))
    rig.centre.tell("cam-1", m.Label("vehicle", "main-1", "zeppelin"))
    drops = rig.agent._drops
    rig.until(lambda: drops["unknown-label"] and drops["inbox-full"], "the last drop")
    assert drops["malformed"] >= 3
    assert drops["wrong-version"] == 1
    assert drops["oversized"] == 1
    assert drops["wrong-kind"] == 1
    assert drops["unknown-sample"] == 1
    rig.until(lambda: "drop:malformed" in rig.centre.of(m.DeviceState)[-1].counts, "a state with drops")


def test_samples_that_the_disk_refuses_are_counted_in_the_devices_state(rig: DeviceRig) -> None:
    """Serving goes on, and the operator sees why nothing is learnt."""
    rig.until(lambda: rig.centre.of(m.Birth), "birth")
    rig.agent.replay._db.execute("pragma query_only = on")
    rig.until(lambda: "drop:replay-full" in rig.centre.of(m.DeviceState)[-1].counts, "a state with refused samples")


def test_a_refusal_by_the_server_is_counted_and_not_repeated(rig: DeviceRig) -> None:
    """The message is forgotten: sending it again would be in vain."""
    rig.until(lambda: rig.centre.of(m.Birth), "birth")
    rig.until(lambda: len(rig.agent.outbox) == 0, "an empty outbox")
    rig.centre.deaf = {"result"}
    rig.agent._inbox.put(m.IntervalResult("vehicle", "main", 0, 60, 1, {}))
    rig.until(lambda: rig.centre.of(m.IntervalResult), "the result")
    header = next(
        h for h, b in zip(rig.centre.headers, rig.centre.heard, strict=True) if isinstance(b, m.IntervalResult)
    )
    rig.centre.tell("cam-1", m.Ack(header.message_id, False, "too old"))
    rig.until(lambda: rig.agent._drops["refused-too old"], "the refusal")
    assert len(rig.agent.outbox) == 0


def test_a_disk_that_refuses_a_pointer_leaves_the_running_release_until_it_takes_it(tmp_path: Path) -> None:
    """What is told to be installed is what the disk holds: the deployment waits, with the reason, and goes on later."""
    rig = DeviceRig(device_config(tmp_path))
    rig.centre.release(1, {"nano": artifact_files()})
    rig.until(lambda: running(rig, 1), "release 1")
    for refused in ("current.json.tmp", "attempts.json.tmp"):
        (tmp_path / "state" / "vehicle" / refused).mkdir(parents=True)
        rig.centre.release(running_of(rig) + 1, {"nano": artifact_files(seed=1)})
        rig.until(lambda: told(rig).state == "paused", "a pause")
        assert "cannot write" in told(rig).reason
        assert told(rig).running == running_of(rig)
        (tmp_path / "state" / "vehicle" / refused).rmdir()
        rig.until(lambda: told(rig).state == "committed" and told(rig).release == told(rig).running, "the next attempt")
    assert running(rig, 3)
    assert rig.agent._drops["pointer-failed"] >= 1
    rig.close()
    again = DeviceRig(rig.config, MemoryBroker())
    assert running(again, 3)
    again.close()


def running_of(rig: DeviceRig) -> int:
    """Counter of what answers frames."""
    return rig.agent.core.running.release


def test_an_outbox_that_cannot_forget_is_counted(rig: DeviceRig) -> None:
    """The message is sent, and acknowledged, again; nothing crashes."""
    rig.until(lambda: rig.centre.of(m.Birth), "birth")
    rig.until(lambda: len(rig.agent.outbox) == 0, "an empty outbox")
    rig.centre.deaf = {"result"}
    rig.agent._inbox.put(m.IntervalResult("vehicle", "main", 0, 60, 1, {}))
    rig.until(lambda: rig.centre.of(m.IntervalResult), "the result")
    rig.agent.outbox._db.execute("pragma query_only = on")
    rig.centre.tell("cam-1", m.Ack(rig.centre.headers[-1].message_id, True))
    header = next(
        h for h, b in zip(rig.centre.headers, rig.centre.heard, strict=True) if isinstance(b, m.IntervalResult)
    )
    rig.centre.tell("cam-1", m.Ack(header.message_id, True))
    rig.until(lambda: rig.agent._drops["outbox-failed"], "the refusal")
    rig.agent.outbox._db.execute("pragma query_only = off")
    assert len(rig.agent.outbox) == 1


def test_the_desired_state_is_asked_for_again_after_a_connection(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that the broker lost while it granted the filter arrives once the device has asked a second time."""
    monkeypatch.setattr("edge_client.agent._ASK_AGAIN_S", 0.5)
    rig = DeviceRig(device_config(tmp_path))
    lost: list[str] = []

    def lose_the_first(topic: str, payload: bytes) -> list[bytes]:
        if "/all/release/" in topic and not lost:
            lost.append(topic)
            return []
        return [payload]

    rig.broker.fault = lose_the_first
    rig.centre.release(1, {"nano": artifact_files()})
    rig.until(lambda: rig.agent.core.running.release == 1, "release 1")
    assert len(lost) == 1
    rig.close()
