"""The server's configuration: paths, defaults, and mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from broker_server.config import read_config
from edge_protocol.errors import ConfigError

TEXT = """
fleet: demo
state_dir: ./server
keys_dir: keys
tasks:
  vehicle: {task: vehicle, anchors: a.npz, proxies: /data/p.npz, validation: v.npz, rounds: {limit: 3}}
  mine: {task: mine.yaml, anchors: a.npz, proxies: p.npz, validation: v.npz}
distil: {steps: 5, timeout_s: 60}
broker: {ca_file: id/ca.pem, cert_file: /etc/own.pem, key_file: id/own.key}
"""


def test_paths_begin_at_the_file_and_names_of_tasks_stay_names(tmp_path: Path) -> None:
    """Relative paths are relative to the configuration, absolute ones stay."""
    file = tmp_path / "server.yaml"
    file.write_text(TEXT)
    config = read_config(file, flags={"fleet": "other"}, environment={"ROADCAST__DISTIL__SEED": "9"})
    assert (config.fleet, config.distil.seed, config.distil.settings.steps) == ("other", 9, 5)
    assert config.state_dir == str(tmp_path / "server")
    assert config.tasks["vehicle"].task == "vehicle"
    assert config.tasks["vehicle"].proxies == "/data/p.npz"
    assert config.tasks["mine"].task == str(tmp_path / "mine.yaml")
    assert config.tasks["mine"].rounds.limit is None
    assert (config.broker.ca_file, config.broker.cert_file) == (str(tmp_path / "id" / "ca.pem"), "/etc/own.pem")


def test_a_task_may_have_a_strategy_of_its_own(tmp_path: Path) -> None:
    """Class means for one task beside votes for another; everything else is as the ``distil`` section says."""
    file = tmp_path / "server.yaml"
    file.write_text(TEXT.replace("{task: mine.yaml", "{task: mine.yaml, strategy: fedproto"))
    config = read_config(file)
    own, rest = config.distil_of("mine"), config.distil_of("vehicle")
    assert (own.strategy, own.prototypes, rest.strategy, rest.prototypes) == ("fedproto", True, "feddistill", False)
    assert own.steps == rest.steps == 5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("state_dir", "statedir", "did you mean 'state_dir'"),
        ("fleet: demo", "fleet: a/b", "a/b"),
        ("limit: 3", "limit: -1", "limit"),
        ("steps: 5", "seed: -1", "seed"),
        ("limit: 3", "enough: 3", "fewer than the quorum of 4"),
        ("  mine:", "  mi ne:", "mi ne"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    """Unknown keys, illegal names and impossible numbers are errors that say where."""
    file = tmp_path / "server.yaml"
    file.write_text(TEXT.replace(old, new))
    with pytest.raises(ConfigError, match=message):
        read_config(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    """No file is a ConfigError, not a traceback."""
    with pytest.raises(ConfigError, match=r"nowhere\.yaml"):
        read_config(tmp_path / "nowhere.yaml")
