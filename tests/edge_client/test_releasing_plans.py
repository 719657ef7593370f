"""How a deployment goes on with a plan, and without one."""

from __future__ import annotations

from edge_client import effects as e
from edge_client.plan_effects import Exchange, Planned
from edge_protocol import messages as m
from edge_protocol.effects import Drop
from tests.edge_client.core_driver import signed
from tests.edge_client.test_releasing import linked


def test_a_release_without_a_plan_is_installed_and_says_why() -> None:
    """ONNX Runtime serves it; the reason is told with it, counted, and gone with the next release."""
    driver = linked()
    driver.say(signed(1))
    driver.fetch(1)
    driver.do(e.Checked(1))
    driver.do(e.Trained(driver.last(e.Train).job, None))
    assert driver.core.stage == "building"
    assert Drop("plan-failed", "no memory") in driver.do(Planned(1, "no memory"))
    driver.do(e.Passed(1))
    driver.do(e.Installed(1))
    told = driver.sent(m.Deployment)[-1]
    assert (told.state, told.running, told.reason) == ("committed", 1, "no memory")
    driver.install(2)
    assert driver.sent(m.Deployment)[-1].reason == ""


def test_a_plan_that_comes_later_takes_over_and_clears_the_reason() -> None:
    """For the running release only; while another is under way nothing is told of it, and its own reason stays."""
    driver = linked(1)
    driver.do(Planned(1, "a driver is too old"))
    assert driver.sent(m.Deployment)[-1].reason == "a driver is too old"
    assert driver.do(Planned(7)) == []
    effects = driver.do(Planned(1))
    assert effects[0] == Exchange(1)
    assert driver.sent(m.Deployment)[-1].reason == ""
    driver.say(signed(2))
    assert driver.do(Planned(1, "the GPU fails")) == [Drop("plan-failed", "the GPU fails")]
    driver.fetch(2)
    driver.do(e.CheckFailed(2, "NaN"))
    assert driver.sent(m.Deployment)[-1].reason == "NaN"


def test_a_reason_of_the_probation_is_told_too() -> None:
    """A plan that fails beside the running release does not cost the release."""
    driver = linked(1)
    driver.say(signed(2))
    driver.fetch(2)
    driver.do(e.Checked(2))
    driver.do(e.Trained(driver.last(e.Train).job, None))
    driver.do(Planned(2))
    assert driver.do(Planned(2, "too slow")) == [Drop("plan-failed", "too slow")]
    assert driver.core.stage == "probation"
    driver.do(e.Passed(2))
    driver.do(e.Installed(2))
    assert driver.sent(m.Deployment)[-1].reason == "too slow"
