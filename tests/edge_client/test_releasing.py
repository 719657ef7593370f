"""How a device comes to the desired release, whatever messages do on the way."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edge_client import effects as e
from edge_client.core import Remembered
from edge_client.offers import MAX_ATTEMPTS, Running
from edge_client.plan_effects import BuildPlan, Planned
from edge_models.tasks import load_task
from edge_protocol import messages as m
from edge_protocol.effects import Drop
from tests.edge_client.core_driver import PROOF, SPEC, Driver, artifact, signed


def states(driver: Driver) -> list[str]:
    """Deployment states told so far, without the first."""
    return [body.state for body in driver.sent(m.Deployment)]


def linked(running: int = 0) -> Driver:
    """A device that is online and runs a release."""
    driver = Driver(Remembered(running=Running(running, artifact(running).weights.sha256 if running else "")))
    driver.do(e.Linked())
    return driver


def test_a_release_goes_through_every_stage_and_tells_each() -> None:
    """Offered, fetched, checked, head refitted, probation, committed: with the hash that runs."""
    driver = linked()
    driver.install(1)
    assert states(driver) == ["idle", "offered", "fetching", "staged", "building", "probation", "committed"]
    last = driver.sent(m.Deployment)[-1]
    assert (last.release, last.running, last.weights) == (1, 1, artifact(1).weights.sha256)
    assert driver.last(e.Install) == e.Install(1, signed(1).data, PROOF)
    assert driver.core.running == Running(1, artifact(1).weights.sha256)


def test_the_candidate_is_installed_before_it_is_called_committed() -> None:
    """The server counts what it is told: the pointer stands by then."""
    driver = linked()
    reach_install(driver, 1)
    assert (driver.core.stage, driver.core.running.release) == ("probation", 0)
    driver.do(e.Installed(1))
    assert (driver.core.stage, driver.core.running.release) == ("committed", 1)


def test_a_disk_that_refuses_pauses_the_deployment_and_keeps_what_was_fetched() -> None:
    """Neither a count of attempts nor a pointer that cannot be written is the release's fault: it is tried again."""
    driver = linked(1)
    driver.say(signed(2))
    driver.fetch(2)
    assert e.Discard(2, keep_files=True) in driver.do(e.CheckFailed(2, "no room", disk=True))
    assert driver.core.stage == "paused"
    driver.until(lambda: driver.core.stage == "fetching")
    reach_install(driver, 2)
    assert e.Discard(2, keep_files=True) in driver.do(e.InstallFailed(2, "no room"))
    told = driver.sent(m.Deployment)[-1]
    assert (told.state, told.running, told.reason) == ("paused", 1, "no room")
    driver.until(lambda: driver.core.stage == "fetching")
    reach_install(driver, 2)
    driver.do(e.Installed(2))
    assert driver.core.running.release == 2


def test_what_a_superseded_release_fetched_is_let_go_once_the_next_one_said_what_it_shares() -> None:
    """Files of releases that are never installed do not pile up."""
    driver = linked(1)
    driver.say(signed(2))
    driver.do(e.Fetched(artifact(2).weights.sha256))
    effects = driver.say(signed(3))
    assert e.Abandon(artifact(2).weights.sha256) in effects
    assert effects[-1] == e.Discard(2)
    assert e.Fetch(artifact(3).weights) in effects[:-1]


def reach_install(driver: Driver, counter: int) -> None:
    """Bring a release as far as its pointer."""
    driver.say(signed(counter))
    driver.fetch(counter)
    driver.do(e.Checked(counter))
    driver.do(e.Trained(driver.last(e.Train).job, None))
    driver.do(Planned(counter))
    offered = signed(counter)
    assert driver.do(e.Passed(counter)) == [e.Install(counter, offered.data, offered.proof)]


@pytest.mark.parametrize(
    ("offer", "reason"),
    [
        (lambda: signed(1, tier="base"), "no artifact for tier 'nano'"),
        (lambda: signed(1, fleet="other"), "fleet 'other'"),
        (lambda: signed(1, spec=load_task("clinic")), "'clinic'"),
        (lambda: signed(1, spec=msgspec.structs.replace(SPEC, labels=("a", "b"))), "label space"),
    ],
    ids=["wrong tier", "wrong fleet", "wrong task", "wrong label space"],
)
def test_a_release_that_does_not_fit_is_rejected_with_the_reason(offer: Callable[[], e.Offered], reason: str) -> None:
    """Nothing is fetched; the server is told why; the next good release is taken."""
    driver = linked()
    wrong = offer()
    driver.say(wrong)
    assert driver.sent(m.Deployment)[-1].state == "rejected"
    assert reason in driver.sent(m.Deployment)[-1].reason
    assert not driver.all(e.Fetch)
    assert driver.say(wrong) == [], "the same wrong release is not told twice"
    driver.install(2)
    assert driver.core.running.release == 2


def test_an_unproven_release_is_told_and_taken_once_it_is_proven() -> None:
    """The server learns why nothing happens; the same release is not refused for good."""
    driver = linked()
    driver.do(e.Unproven(signed(1).data, "timestamp: version 3 expired"))
    last = driver.sent(m.Deployment)[-1]
    assert (last.state, last.release, last.reason) == ("rejected", 0, "timestamp: version 3 expired")
    driver.install(1)
    assert driver.core.running.release == 1


def test_a_rejection_while_another_release_is_under_way_disturbs_nothing() -> None:
    """Only counted."""
    driver = linked()
    driver.say(signed(3))
    refused = driver.say(signed(4, tier="base"))
    assert [type(x) for x in refused] == [Drop]
    driver.fetch(3)
    assert driver.core.stage == "staged"


def test_a_device_never_goes_back_by_itself() -> None:
    """An older release, replayed, is dropped and the running one stays committed."""
    driver = linked(5)
    assert [x.reason for x in driver.say(signed(4)) if isinstance(x, Drop)] == ["old-release"]
    assert driver.core.stage == "committed"
    assert driver.core.running.release == 5


def test_the_running_release_offered_again_clears_a_rejection() -> None:
    """When the operator takes a wrong release back, the device says so."""
    driver = linked(5)
    assert driver.say(signed(5)) == []
    driver.say(signed(6, tier="base"))
    assert driver.core.stage == "rejected"
    driver.say(signed(5))
    last = driver.sent(m.Deployment)[-1]
    assert (last.state, last.release, last.reason) == ("committed", 5, "")


def test_the_fleet_s_release_does_not_undo_what_became_of_the_device_s_own() -> None:
    """With both topics retained, each connection brings both: a failed one is not tried again, a retry goes on."""
    driver = linked(1)
    ahead, fleet = signed(2), signed(1)
    driver.say(ahead)
    driver.do(e.FetchFailed(artifact(2).weights.sha256, "no", disk=False))
    assert driver.say(fleet) == []
    driver.until(lambda: driver.core.stage == "fetching")
    driver.fetch(2)
    driver.do(e.CheckFailed(2, "NaN weights"))
    driver.say(fleet)
    assert driver.core.stage == "committed"
    assert driver.say(ahead) == []
    driver.install(3)
    assert [x.reason for x in driver.say(fleet) if isinstance(x, Drop)] == ["old-release"]


def test_the_counter_of_the_running_release_with_other_weights_is_not_taken() -> None:
    """One counter means one set of bytes."""
    driver = Driver(Remembered(running=Running(5, "0" * 64)))
    driver.do(e.Linked())
    assert [x.reason for x in driver.say(signed(5)) if isinstance(x, Drop)] == ["old-release"]


def test_a_newer_release_takes_the_place_of_one_under_way() -> None:
    """Files, job and candidate of the old one are let go, in every stage."""
    driver = linked()
    driver.say(signed(1))
    effects = driver.say(signed(2))
    assert {x.sha256 for x in effects if isinstance(x, e.Abandon)} >= {artifact(1).weights.sha256}
    driver.fetch(2)
    assert e.Discard(2) in driver.say(signed(3))
    driver.fetch(3)
    driver.do(e.Checked(3))
    job = driver.last(e.Train).job
    effects = driver.say(signed(4))
    assert e.Stop(job) in effects
    assert e.Discard(3) in effects
    driver.install(5)
    assert driver.core.running.release == 5


def test_late_answers_of_an_old_release_change_nothing() -> None:
    """What a superseded release's check, training or probation comes to is ignored."""
    driver = linked()
    driver.say(signed(1))
    driver.fetch(1)
    driver.say(signed(2))
    driver.fetch(2)
    for late in (
        e.Checked(1),
        e.CheckFailed(1, "late"),
        Planned(1),
        e.Passed(1),
        e.Installed(1),
        e.Failed(1, "late"),
        e.Trained(99, None),
    ):
        assert driver.do(late) == []
    assert driver.core.stage == "staged"
    assert driver.do(e.Fetched("0" * 64)) == []


def test_a_fetch_that_fails_is_tried_again_with_growing_pauses() -> None:
    """A broken blob fails the deployment; a full disk pauses it; both go on later."""
    driver = linked()
    driver.say(signed(1))
    for disk, stage in ((False, "failed"), (True, "paused"), (False, "failed")):
        driver.do(e.FetchFailed(artifact(1).weights.sha256, "no", disk=disk))
        assert driver.core.stage == stage
        assert driver.sent(m.Deployment)[-1].reason == "no"
        driver.until(lambda: driver.core.stage == "fetching")
    driver.fetch(1)
    assert driver.core.stage == "staged"


def test_a_candidate_that_cannot_be_loaded_has_failed_for_good() -> None:
    """Its bytes are what was signed: trying again is in vain, the running release stays."""
    driver = linked(1)
    driver.say(signed(2))
    driver.fetch(2)
    effects = driver.do(e.CheckFailed(2, "NaN weights"))
    assert e.Discard(2) in effects
    told = driver.sent(m.Deployment)[-1]
    assert (told.state, told.reason, told.running) == ("rolled-back", "NaN weights", 1)
    for _ in range(10):
        driver.wait(1000)
    assert driver.core.stage == "rolled-back"


def test_a_refit_that_fails_does_not_block_the_release() -> None:
    """The shared head serves then."""
    driver = linked()
    driver.say(signed(1))
    driver.fetch(1)
    driver.do(e.Checked(1))
    effects = driver.do(e.TrainFailed(driver.last(e.Train).job, "no memory"))
    assert Drop("refit-failed", "no memory") in effects
    assert effects[-1] == BuildPlan(1)


def test_a_failed_probation_is_rolled_back_with_the_reason_and_not_tried_again() -> None:
    """The same release offered again is ignored, a newer one is taken."""
    driver = linked(1)
    offer = signed(2)
    driver.say(offer)
    driver.fetch(2)
    driver.do(e.Checked(2))
    driver.do(e.Trained(driver.last(e.Train).job, None))
    driver.do(Planned(2))
    assert e.Discard(2) in driver.do(e.Failed(2, "p95 too slow"))
    told = driver.sent(m.Deployment)[-1]
    assert (told.state, told.release, told.running, told.reason) == ("rolled-back", 2, 1, "p95 too slow")
    assert driver.say(offer) == []
    driver.install(3)
    assert driver.core.running.release == 3


def test_a_release_that_took_the_agent_down_is_left_alone() -> None:
    """After so many starts without an outcome it is refused, across restarts."""
    driver = Driver(Remembered(attempts={2: MAX_ATTEMPTS, 3: MAX_ATTEMPTS - 1}))
    driver.do(e.Linked())
    driver.say(signed(2))
    assert "took the agent down" in driver.sent(m.Deployment)[-1].reason
    driver.install(3)
    assert driver.core.running.release == 3


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 6), st.booleans(), st.booleans()), max_size=25), st.randoms())
def test_whatever_order_releases_come_in_the_device_ends_at_the_newest_it_can_run(
    schedule: list[tuple[int, bool, bool]], random: object
) -> None:
    """Releases come twice, late and out of order, links break, answers come or not: the counter never falls."""
    driver, floor, newest = linked(), 0, 0
    for counter, answer, lose in schedule:
        driver.say(signed(counter))
        newest = max(newest, counter)
        if lose:
            driver.do(e.Unlinked())
            driver.do(e.Linked())
        if answer:
            finish(driver)
        assert driver.core.running.release >= floor
        floor = driver.core.running.release
    finish(driver)
    assert driver.core.running.release == newest


def finish(driver: Driver) -> None:
    """Answer everything that the deployment under way waits for."""
    for counter in range(1, 7):
        driver.fetch(counter)
        driver.do(e.Checked(counter))
        for train in driver.all(e.Train):
            driver.do(e.Trained(train.job, None))
        driver.do(Planned(counter))
        driver.do(e.Passed(counter))
        driver.do(e.Installed(counter))


def test_files_that_a_policy_keeps_waiting_are_a_reason_while_they_are_wanted() -> None:
    """Told once, taken back when it goes on, and no business of a device that fetches nothing."""
    driver = linked()
    assert driver.do(e.FetchHeld("waits: the hours are 01:00-04:00")) == []
    driver.say(signed(1))
    for _ in range(2):
        driver.do(e.FetchHeld("waits: the hours are 01:00-04:00"))
    driver.do(e.FetchHeld(""))
    told = [(d.state, d.reason) for d in driver.sent(m.Deployment)]
    assert told[-3:] == [("fetching", ""), ("fetching", "waits: the hours are 01:00-04:00"), ("fetching", "")]
    driver.fetch(1)
    assert states(driver)[-1] == "staged"
