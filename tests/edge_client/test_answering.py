"""A device that is slower than its rounds: what it has begun it ends, and the newest round comes next."""

from __future__ import annotations

from edge_client import effects as e
from edge_protocol import messages as m
from edge_protocol.effects import Drop
from tests.edge_client.core_driver import Driver, call, report, signed


def training() -> tuple[Driver, int]:
    """A device that trains for round 1 on release 1, and its job."""
    driver = Driver()
    driver.do(e.Linked())
    driver.install(1)
    driver.say(call(1, 1))
    driver.do(e.Fetched(call(1, 1).proxy.sha256))
    return driver, driver.last(e.Train).job


def test_training_goes_on_when_its_round_closes_and_is_told_late() -> None:
    """The server counts a late answer with its age; a replay of the open call does not start the round again."""
    driver, job = training()
    for told in (call(1, 1, collecting=False), call(1, 1), call(1, 1, collecting=False)):
        assert driver.say(told) == []
    driver.do(e.Trained(job, report(1, 1)))
    assert [sent.round for sent in driver.sent(m.KnowledgeReport)] == [1]
    assert driver.core.session.value == "idle"
    assert driver.say(call(1, 1)) == []
    assert driver.say(call(1, 1, collecting=False)) == []


def test_the_newest_round_waits_for_the_training_and_comes_next() -> None:
    """Of two rounds that were called meanwhile the newer one is answered; one that closed again is not."""
    driver, job = training()
    fetches = len(driver.all(e.Fetch))
    for told in (call(1, 1, collecting=False), call(2, 1), call(2, 1, collecting=False), call(3, 1)):
        driver.say(told)
    assert [drop.reason for drop in driver.say(call(2, 1)) if isinstance(drop, Drop)] == ["old-round"]
    assert len(driver.all(e.Fetch)) == fetches
    driver.do(e.Trained(job, report(1, 1)))
    assert driver.last(e.Fetch).ref == call(3, 1).proxy
    driver.do(e.Fetched(call(3, 1).proxy.sha256))
    driver.do(e.Trained(driver.last(e.Train).job, report(3, 1)))
    assert [sent.round for sent in driver.sent(m.KnowledgeReport)] == [1, 3]
    assert driver.core.session.value == "reporting"


def test_training_that_fails_is_not_begun_again_for_a_round_that_is_over() -> None:
    """A crash ends it when the round is closed; with a newer one open, that one is answered."""
    for then, fetched in ((call(1, 1, collecting=False), 0), (call(2, 1), 1)):
        driver, job = training()
        driver.say(then)
        before = len(driver.all(e.Fetch))
        driver.do(e.TrainFailed(job, "out of memory"))
        driver.wait(600)
        assert len(driver.all(e.Fetch)) - before == fetched


def test_a_release_takes_the_trainer_from_a_round_that_is_over_for_good() -> None:
    """Serving comes first: the answer to the closed round is given up, and its call is not taken up again."""
    driver, job = training()
    driver.say(call(1, 1, collecting=False))
    driver.say(signed(2))
    driver.fetch(2)
    assert e.Stop(job) in driver.do(e.Checked(2))
    fetches = len(driver.all(e.Fetch))
    driver.wait(600)
    assert len(driver.all(e.Fetch)) == fetches


def test_a_call_for_class_means_ends_training_on_proxies() -> None:
    """The server's strategy changed: nobody asks about proxies any more."""
    driver, job = training()
    asked = call(2, 1)
    means = m.PrototypeCall(asked.task, asked.label_space, 2, 1, asked.deadline_s, True)
    assert e.Stop(job) in driver.say(means)
