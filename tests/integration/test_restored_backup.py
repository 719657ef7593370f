"""A server is brought back from an older copy of its folder, while devices run releases that were made since."""

from __future__ import annotations

import shutil
from pathlib import Path

from broker_server.foreign import foreign, next_counter, warnings
from broker_server.key_setup import Rotation, rotate
from tests.fakes.centre import make_server, scripted_distiller
from tests.fakes.small_centre import artifact_files
from tests.integration.test_rollouts import TASK, Street, weights


def test_devices_take_the_next_release_of_a_server_that_lost_their_own(tmp_path: Path) -> None:
    """It counts on from what they run, says meanwhile that they run what it has not, and they end on its files."""
    street = Street(tmp_path)
    try:
        street.until(lambda: street.running == [1, 1], "release 1")
        street.server.close()
        shutil.copytree(tmp_path / "server", tmp_path / "backup")
        street.server.transport.cut("stopped")  # type: ignore[attr-defined]
        start(street)
        street.push(artifact_files(seed=1))
        street.until(lambda: street.running == [2, 2], "release 2")
        street.server.close()
        street.server.transport.cut("its disk died")  # type: ignore[attr-defined]
        shutil.rmtree(tmp_path / "server")
        shutil.copytree(tmp_path / "backup", tmp_path / "server")
        start(street)
        for role in ("snapshot", "timestamp"):
            rotate(street.config, Rotation(role, 1, 1), street.clock())
        street.until(lambda: next_counter(street.server.database, TASK) == 3, "word of release 2")
        assert (
            "runs release 2 of vehicle, which this server does not have" in warnings(foreign(street.server.database))[0]
        )
        street.push(artifact_files(seed=2))
        street.until(lambda: street.running == [3, 3], "release 3")
        own = weights(street.server.database.releases(TASK)[-1].manifest)
        assert all(agent.core.running.weights in own for agent in street.agents)
        street.until(lambda: not foreign(street.server.database), "end of the warnings")
    finally:
        street.close()


def start(street: Street) -> None:
    """Start a server on what lies in the folder."""
    street.server = make_server(street.config, street.broker, street.clock, scripted_distiller([]))
    street.server.start()
