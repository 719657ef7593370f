"""The picture of the fleet is what its messages say."""

from __future__ import annotations

from edge_protocol import messages as m
from edge_protocol.transport.filters import matches
from roadcast.demo.observer import Observer, bytes_per_round
from tests.fakes import fleet_talk as talk


def _observe(*spoken: talk.Spoken) -> Observer:
    observer = Observer(talk.FLEET)
    for at, (topic, payload) in enumerate(spoken):
        observer.take(topic, payload, float(at))
    return observer


def test_a_device_appears_with_what_it_runs() -> None:
    """Birth, presence, state and deployment fill a device's line."""
    observer = _observe(
        talk.up("cam-1", m.Presence(online=True)),
        talk.birth("cam-1"),
        talk.up("cam-1", m.Deployment("vehicle", 1, "committed", 1, "")),
        talk.state("cam-1", 1, (10, 20), latency_p50_ms=1.5, latency_p95_ms=4.0, shared_accuracy=0.5),
    )
    seen = observer.devices["cam-1"]
    assert (seen.online, seen.tier, seen.student, seen.release) == (True, "nano", "depthwise", 1)
    assert (seen.deployment, seen.session) == ("committed", "idle")
    assert seen.values["shared_accuracy"] == 0.5
    assert seen.latency == [(3.0, 1.5, 4.0)]


def test_a_failed_deployment_tells_why() -> None:
    """The reason stands beside the state."""
    observer = _observe(talk.up("cam-1", m.Deployment("vehicle", 2, "rolled-back", 1, "", "p95 71.9 > 40 ms")))
    assert observer.devices["cam-1"].deployment == "rolled-back: p95 71.9 > 40 ms"
    assert observer.devices["cam-1"].release == 1


def test_releases_and_rounds_of_tasks_are_followed() -> None:
    """The newest signed release counts, with its metrics, and the round that is called."""
    observer = _observe(
        talk.release(1, accuracy=0.5),
        talk.call(1),
        talk.call(1, collecting=False),
        talk.release(2, accuracy=0.6),
        talk.release(1, accuracy=0.5),
    )
    task = observer.tasks["vehicle"]
    assert (task.release, task.round, task.collecting) == (2, 1, False)
    assert task.metrics[2] == {"nano/accuracy": 0.6}


def test_bytes_are_told_apart_by_round() -> None:
    """What a device sent between two calls belongs to the earlier round; a restarted device never counts below zero."""
    observer = _observe(
        talk.state("cam-1", 0, (5, 50)),
        talk.call(1),
        talk.state("cam-1", 1, (20, 80)),
        talk.state("cam-1", 1, (30, 90)),
        talk.call(2),
        talk.state("cam-1", 1, (31, 200)),
        talk.call(3),
        talk.state("cam-1", 1, (1, 2)),
    )
    assert bytes_per_round(observer.devices["cam-1"]) == {0: (5, 50), 1: (25, 40), 2: (1, 110), 3: (0, 0)}


def test_interval_results_add_up_once() -> None:
    """Counts of two intervals are added; a result that comes twice (QoS 1) counts once."""
    first = talk.up("cam-1", m.IntervalResult("vehicle", "road", 0, 60, 1.0, {"a/forward/car": 3}))
    second = talk.up(
        "cam-1", m.IntervalResult("vehicle", "road", 60, 120, 0.5, {"a/forward/car": 2, "a/forward/bike": 1})
    )
    seen = _observe(first, second, first).devices["cam-1"]
    assert seen.results == {"road": {"a/forward/car": 5, "a/forward/bike": 1}}
    assert seen.coverage == {"road": [1.0, 0.5]}


def test_what_cannot_be_read_is_counted_by_reason() -> None:
    """Rubbish, a manifest that is none and another fleet's topic change nothing."""
    good_topic, good = talk.birth("cam-1")
    observer = _observe(
        (good_topic, b"rubbish"),
        (good_topic.replace("demo", "other"), good),
        (talk.release(9)[0], talk.pack("server", m.ReleaseOffer(b"rubbish"))),
        (good_topic, b""),
    )
    assert observer.refused == {"malformed": 2, "wrong-fleet": 1}
    assert observer.tasks["vehicle"].release == 0


def test_other_messages_are_passed_over() -> None:
    """Telemetry, reports' acks and chunks are nobody's line in the table."""
    observer = _observe(
        talk.up("cam-1", m.Telemetry({"x": 1.0})),
        (talk.TOPICS.chunk("0" * 64, 0), b"chunk"),
    )
    assert observer.devices["cam-1"].counts == {}
    assert observer.refused == {}


def test_the_filters_cover_what_is_followed() -> None:
    """Uplinks, presence, releases and rounds of the tasks asked for; no chunk."""
    filters = Observer(talk.FLEET).filters(["vehicle"])
    spoken = [talk.birth("cam-1"), talk.up("cam-1", m.Presence(online=True)), talk.release(1), talk.call(1)]
    assert all(any(matches(pattern, topic) for pattern in filters) for topic, _ in spoken)
    assert not any(matches(pattern, talk.TOPICS.chunk("0" * 64, 0)) for pattern in filters)
