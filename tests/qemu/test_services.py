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


def test_the_set_up_runs_every_command_in_order_unless_it_is_done() -> None:
    """Environment, wheels and the mark that says so, as root; with the mark there is nothing to do."""
    found = read_service(setup_unit(INSTALL, "0123", "/opt/roadcast/wheels-0123"))
    assert [command[0].rpartition("/")[2] for command in found.commands] == ["python3", "python", "touch"]
    assert (found.user, found.unless) == ("root", "/opt/roadcast/venv/ready-0123")
    assert found.commands[-1][1] == found.unless
