"""Refits between rounds, on a fake clock: they take the trainer when it is free and make way when it is not."""

from __future__ import annotations

from edge_client import effects as e
from edge_client.plan_effects import Planned
from edge_client.refitting import MAX_FAILURES
from tests.edge_client.core_driver import Driver, blob, call, report, signed


def drifted() -> Driver:
    """A device with release 1 that has seen drift."""
    driver = Driver()
    driver.do(e.Linked())
    driver.install(1)
    driver.do(e.Drifted(3, "road"))
    return driver


def test_drift_asks_for_a_refit_whose_head_serves() -> None:
    """On the running release, without a round; one job for any number of alarms."""
    driver = drifted()
    asked = driver.last(e.Train)
    assert (asked.release, asked.artifact, asked.call) == (1, None, None)
    assert len({each.job for each in driver.all(e.Train)}) == len(driver.all(e.Train)), "each job has its own number"
    jobs = len(driver.all(e.Train))
    assert driver.do(e.Trained(asked.job, None)) == [e.Adopt(asked.job)]
    driver.wait(1)
    assert len(driver.all(e.Train)) == jobs


def test_without_a_release_there_is_nothing_to_refit_yet() -> None:
    """The wish is kept, and the release's own refit grants it."""
    driver = Driver()
    driver.do(e.Linked())
    driver.do(e.Drifted(3, "road"))
    assert driver.all(e.Train) == []
    driver.install(1)
    driver.wait(1)
    assert len(driver.all(e.Train)) == 1


def test_a_round_comes_first_and_its_head_is_the_refit() -> None:
    """The refit's job is stopped before the round's starts, and is not asked for again when that one is adopted."""
    driver = drifted()
    refit = driver.last(e.Train)
    driver.say(call(1, 1))
    driver.do(e.Fetched(blob("proxy 1").sha256))
    order = [x for x in driver.effects if isinstance(x, e.Stop) or (isinstance(x, e.Train) and x.call is not None)]
    assert order[0] == e.Stop(refit.job)
    ours = driver.last(e.Train)
    assert ours.call is not None
    driver.do(e.Trained(ours.job, report(1, 1)))
    jobs = len(driver.all(e.Train))
    driver.wait(100)
    assert len(driver.all(e.Train)) == jobs


def test_a_release_comes_first() -> None:
    """A deployment that wants the trainer stops the refit."""
    driver = drifted()
    refit = driver.last(e.Train)
    driver.say(signed(2))
    assert e.Stop(refit.job) in driver.effects
    driver.fetch(2)
    driver.do(e.Checked(2))
    assert driver.last(e.Train).release == 2


def test_a_refit_that_fails_is_tried_again_later_and_not_for_ever() -> None:
    """Pauses grow; the trainer is asked so many times in a row and then waits for the next wish."""
    driver = drifted()
    begun = len(driver.all(e.Train))
    for tries in range(MAX_FAILURES):
        driver.do(e.TrainFailed(driver.last(e.Train).job, "put off"))
        assert len(driver.all(e.Train)) == begun + tries
        driver.wait(5000)
    assert len(driver.all(e.Train)) == begun + MAX_FAILURES - 1
    driver.do(e.Drifted(4, "road"))
    assert len(driver.all(e.Train)) == begun + MAX_FAILURES


def test_the_refit_of_a_release_that_failed_is_made_up_for() -> None:
    """A release whose head could not be fitted, for a hot board say, gets one a minute later."""
    driver = Driver()
    driver.do(e.Linked())
    driver.say(signed(1))
    driver.fetch(1)
    driver.do(e.Checked(1))
    driver.do(e.TrainFailed(driver.last(e.Train).job, "put off: the board was hot for 600 s"))
    driver.do(Planned(1))
    driver.do(e.Passed(1))
    driver.do(e.Installed(1))
    jobs = len(driver.all(e.Train))
    driver.wait(10)
    assert len(driver.all(e.Train)) == jobs
    driver.wait(100)
    assert len(driver.all(e.Train)) == jobs + 1
    assert driver.last(e.Train).release == 1


def test_a_deadline_that_has_passed_is_not_due_for_ever() -> None:
    """While nobody may start it, a refit asks for no tick: the pump would spin."""
    driver = drifted()
    driver.do(e.TrainFailed(driver.last(e.Train).job, "no memory"))
    driver.say(signed(2))
    driver.wait(5000)
    assert driver.core.next_deadline() > driver.clock.now
