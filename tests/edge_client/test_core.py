"""The device's brain on a fake clock: session, introductions, wrong messages."""

from __future__ import annotations

import pytest

from edge_client import effects as e
from edge_client.core import Remembered
from edge_client.offers import Running
from edge_client.plan_effects import Planned
from edge_protocol import messages as m
from edge_protocol.effects import Drop, Send
from tests.edge_client.core_driver import SPEC, Driver, artifact, call, report, signed


def test_a_linked_device_introduces_itself_before_it_says_that_it_is_there() -> None:
    """Birth comes first, then where the deployment stands, then presence and a report of its state."""
    driver = Driver()
    sent = driver.do(e.Linked())
    assert [type(s.body) for s in sent if isinstance(s, Send)] == [m.Birth, m.Deployment, m.Presence]
    assert isinstance(sent[-1], e.ReportState)
    assert driver.sent(m.Birth)[0].tasks[0].label_space == SPEC.label_space
    assert [s.retain for s in driver.all(Send) if isinstance(s.body, m.Presence)] == [True]


def test_a_server_that_forgot_the_device_gets_a_new_birth() -> None:
    """Rebirth is answered with Birth and the state of the deployment."""
    driver = Driver()
    driver.do(e.Linked())
    assert [type(s.body) for s in driver.say(m.Rebirth()) if isinstance(s, Send)] == [m.Birth, m.Deployment]


def test_the_state_is_reported_at_every_interval_while_linked() -> None:
    """Ten seconds apart as configured, never while the link is lost."""
    driver = Driver()
    driver.do(e.Linked())
    before = len(driver.all(e.ReportState))
    assert driver.core.next_deadline() == driver.clock.now + 10
    assert not [x for x in driver.wait(9) if isinstance(x, e.ReportState)]
    assert [x.session for x in driver.wait(1) if isinstance(x, e.ReportState)] == ["idle"]
    driver.do(e.Unlinked())
    driver.wait(60)
    assert len(driver.all(e.ReportState)) == before + 1


def test_losing_the_link_twice_or_finding_it_twice_is_harmless() -> None:
    """A transport may report an end it had reported, or a new connection without the end of the old one."""
    driver = Driver()
    for event in (e.Unlinked(), e.Linked(), e.Linked(), e.Unlinked(), e.Unlinked(), e.Linked()):
        driver.do(event)
    assert driver.core.session.value == "idle"


def test_stopping_says_goodbye() -> None:
    """The retained presence is taken back before the agent ends."""
    driver = Driver()
    driver.do(e.Linked())
    goodbye = driver.do(e.Stopping())
    assert [s.body for s in goodbye if isinstance(s, Send)] == [m.Presence(online=False)]
    assert driver.core.session.value == "offline"


def test_an_ack_is_passed_to_the_outbox() -> None:
    """The brain does not know message ids; the outbox does."""
    driver = Driver()
    assert driver.say(m.Ack(b"0123456789abcdef", True)) == [e.Forget(b"0123456789abcdef", True, "")]


def test_labels_of_this_task_are_remembered_and_others_dropped() -> None:
    """A label names its task."""
    driver = Driver()
    mine, other = m.Label("vehicle", "main-1", "car"), m.Label("speed", "main-1", "car")
    assert driver.say(mine) == [e.Remember(mine)]
    assert [type(x) for x in driver.say(other)] == [Drop]


@pytest.mark.parametrize(
    "body",
    [m.Presence(online=True), m.Need("0" * 64, (1,)), m.Telemetry({}), report(1, 1)],
    ids=lambda body: type(body).__name__,
)
def test_what_only_a_device_may_say_is_dropped(body: m.Body) -> None:
    """A message that goes the wrong way is counted and changes nothing."""
    driver = Driver()
    assert [x.reason for x in driver.say(body) if isinstance(x, Drop)] == ["wrong-direction"]


def test_a_round_is_answered_once_its_release_runs() -> None:
    """Fetch the proxy set, train, adopt the head, report; and be idle again when the server has the report."""
    driver = Driver()
    driver.do(e.Linked())
    driver.say(call(1, 1))
    assert not driver.all(e.Fetch)
    driver.install(1)
    assert driver.last(e.Fetch).ref == call(1, 1).proxy
    driver.do(e.Fetched(call(1, 1).proxy.sha256))
    train = driver.last(e.Train)
    assert (train.release, train.artifact, train.call) == (1, None, call(1, 1))
    assert driver.core.session.value == "training"
    done = driver.do(e.Trained(train.job, report(1, 1)))
    assert [type(x) for x in done][:2] == [e.Adopt, Send]
    assert driver.all(Send)[-1].durable
    assert driver.core.session.value == "reporting"
    driver.do(e.Delivered(1))
    assert driver.core.session.value == "idle"


def test_a_device_without_privacy_budget_trains_its_own_head_and_reports_no_more() -> None:
    """The last report that the budget allows is sent; then the session says so, in every round and after a restart."""
    driver = Driver()
    driver.do(e.Linked())
    driver.install(1)
    driver.say(call(1, 1))
    driver.do(e.Fetched(call(1, 1).proxy.sha256))
    driver.do(e.Trained(driver.last(e.Train).job, report(1, 1), spent=True))
    assert driver.core.session.value == "reporting"
    driver.do(e.Delivered(1))
    assert driver.core.session.value == "privacy budget spent"
    driver.say(call(2, 1))
    driver.do(e.Fetched(call(2, 1).proxy.sha256))
    assert driver.core.session.value == "privacy budget spent"
    assert driver.last(e.Train).call == call(2, 1)
    done = driver.do(e.Trained(driver.last(e.Train).job, None, spent=True))
    assert [type(x) for x in done] == [e.Adopt]
    assert driver.core.session.value == "privacy budget spent"
    assert driver.last(e.ReportState).session == "privacy budget spent"
    assert len(driver.sent(m.KnowledgeReport)) == 1
    assert driver.say(call(2, 1)) == [], "once a round"
    again = Driver(Remembered(spent=True))
    again.do(e.Linked())
    assert again.core.session.value == "privacy budget spent"
    again.do(e.Unlinked())
    assert again.core.session.value == "connecting"


def test_a_round_goes_on_while_the_link_is_lost() -> None:
    """The report waits in the outbox; the session follows when the link is back."""
    driver = Driver()
    driver.do(e.Linked())
    driver.install(1)
    driver.say(call(1, 1))
    driver.do(e.Fetched(call(1, 1).proxy.sha256))
    driver.do(e.Unlinked())
    assert driver.core.session.value == "connecting"
    driver.do(e.Linked())
    assert driver.core.session.value == "training"
    driver.do(e.Unlinked())
    driver.do(e.Trained(driver.last(e.Train).job, report(1, 1)))
    assert driver.sent(m.KnowledgeReport)
    driver.do(e.Linked())
    assert driver.core.session.value == "reporting"


def test_a_round_call_that_comes_again_late_or_out_of_order_changes_nothing() -> None:
    """Retained calls come with every connection; an answered round is not answered again."""
    driver = Driver(Remembered(running=Running(1, artifact(1).weights.sha256), answered=4))
    for number in (4, 3, 4):
        told = driver.say(call(number, 1))
        assert [drop.reason for drop in told if isinstance(drop, Drop)] == ["old-round"] * (number < 4)
        assert len(told) == (number < 4)
    driver.say(call(5, 1))
    count = len(driver.all(e.Fetch))
    for again in (call(5, 1), call(4, 1), call(2, 1, collecting=False)):
        driver.say(again)
    assert len(driver.all(e.Fetch)) == count == 1


def test_a_call_of_another_task_or_label_space_is_dropped() -> None:
    """Classes that mean something else must not be mixed."""
    import msgspec  # noqa: PLC0415

    driver = Driver()
    other = msgspec.structs.replace(call(1, 1), label_space="0" * 16)
    assert [x.reason for x in driver.say(other) if isinstance(x, Drop)] == ["wrong-task"]


def test_a_newer_round_takes_the_place_of_one_being_fetched() -> None:
    """The old proxy set is let go."""
    driver = Driver()
    driver.do(e.Linked())
    driver.install(1)
    driver.say(call(1, 1))
    effects = driver.say(call(2, 1))
    assert e.Abandon(call(1, 1).proxy.sha256) in effects
    assert driver.last(e.Fetch).ref == call(2, 1).proxy


def test_a_failed_training_is_tried_again_later_and_longer_each_time() -> None:
    """A crash costs time; the pauses double."""
    driver = Driver()
    driver.do(e.Linked())
    driver.install(1)
    driver.say(call(1, 1))
    pauses = []
    for _ in range(3):
        driver.do(e.Fetched(call(1, 1).proxy.sha256))
        failed_at = driver.clock.now
        driver.do(e.TrainFailed(driver.last(e.Train).job, "out of memory"))
        fetches = len(driver.all(e.Fetch))
        driver.until(lambda fetches=fetches: len(driver.all(e.Fetch)) > fetches)
        pauses.append(driver.clock.now - failed_at)
    assert pauses[0] < pauses[1] < pauses[2]
    assert [x.reason for x in driver.all(Drop)] == ["round-failed"] * 3


def test_a_proxy_set_that_cannot_be_stored_is_asked_for_again() -> None:
    """A full disk delays the answer."""
    driver = Driver()
    driver.do(e.Linked())
    driver.install(1)
    driver.say(call(1, 1))
    fetches = len(driver.all(e.Fetch))
    driver.do(e.FetchFailed(call(1, 1).proxy.sha256, "disk full", disk=True))
    driver.until(lambda: len(driver.all(e.Fetch)) > fetches)
    assert driver.last(e.Fetch).ref == call(1, 1).proxy


def test_a_release_takes_the_trainer_from_a_round_and_gives_it_back() -> None:
    """One training subprocess: the deployment goes first, the round begins again on the new trunk."""
    driver = Driver()
    driver.do(e.Linked())
    driver.install(1)
    driver.say(call(1, 2))
    driver.say(call(2, 1))
    driver.do(e.Fetched(call(2, 1).proxy.sha256))
    job = driver.last(e.Train).job
    driver.say(signed(2))
    driver.fetch(2)
    effects = driver.do(e.Checked(2))
    kinds = [type(x) for x in effects]
    assert kinds.index(e.Stop) < kinds.index(e.Train)
    assert e.Stop(job) in effects
    driver.do(e.Fetched(call(2, 1).proxy.sha256))
    driver.do(e.Trained(driver.last(e.Train).job, None))
    driver.do(Planned(2))
    driver.do(e.Passed(2))
    driver.do(e.Installed(2))
    assert driver.core.running.release == 2
    assert len(driver.all(e.Train)) == 3, "round 2 asked for release 1, which is gone: it is not answered"


def test_a_device_that_had_to_stay_on_an_older_release_answers_from_it() -> None:
    """When the round's release was rolled back here, the older trunk still knows something."""
    driver = Driver()
    driver.do(e.Linked())
    driver.install(1)
    driver.say(signed(2))
    driver.say(call(1, 2))
    driver.fetch(2)
    driver.do(e.Checked(2))
    driver.do(e.Trained(driver.last(e.Train).job, None))
    driver.do(Planned(2))
    assert not [x for x in driver.all(e.Fetch) if x.ref == call(1, 2).proxy]
    driver.do(e.Failed(2, "too slow"))
    driver.do(e.Fetched(call(1, 2).proxy.sha256))
    assert driver.last(e.Train).release == 1
    assert driver.last(e.Train).call == call(1, 2)


def test_a_device_that_comes_back_waits_for_the_release_that_is_under_way() -> None:
    """The retained call came before the retained release: the old trunk tells nothing, though proxies came first."""
    driver = Driver(Remembered(running=Running(1, artifact(1).weights.sha256)))
    driver.do(e.Linked())
    driver.say(call(2, 2))
    assert driver.last(e.Fetch).ref == call(2, 2).proxy
    driver.say(signed(2))
    driver.do(e.Fetched(call(2, 2).proxy.sha256))
    assert not driver.all(e.Train)
    driver.fetch(2)
    driver.do(e.Checked(2))
    driver.do(e.Trained(driver.last(e.Train).job, None))
    driver.do(Planned(2))
    driver.do(e.Passed(2))
    driver.do(e.Installed(2))
    driver.do(e.Fetched(call(2, 2).proxy.sha256))
    assert (driver.last(e.Train).release, driver.last(e.Train).call) == (2, call(2, 2))
