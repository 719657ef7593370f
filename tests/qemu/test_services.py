"""Reading our own units, on any machine."""

from __future__ import annotations

from devices.provision.places import STATE_DIR
from devices.provision.site import InstallConfig
from devices.provision.units import agent_unit, setup_unit
from tests.qemu.services import read_service

INSTALL = InstallConfig(user="edge", wheels="wheels")


def test_the_agent_runs_as_its_user_with_what_its_unit_says() -> None:
    """User, environment, umask and the one command are the unit's; no condition keeps it from starting."""
    found = read_service(agent_unit(INSTALL, STATE_DIR))
    assert (found.user, found.umask, found.environment, found.unless) == ("edge", "0027", ("OMP_NUM_THREADS=1",), "")
    assert [command[:3] for command in found.commands] == [("/opt/roadcast/venv/bin/python", "-m", "roadcast.agent")]


def test_the_set_up_runs_unless_it_is_done() -> None:
    """Its script, as root; with the mark in the environment there is nothing to do."""
    found = read_service(setup_unit(INSTALL, "0123", "/opt/roadcast/wheels-0123"))
    assert [command[:2] for command in found.commands] == [("/bin/sh", "/opt/roadcast/set-up.sh")]
    assert (found.user, found.unless) == ("root", "/opt/roadcast/venv/ready-0123")
