"""The privacy account: spent before sent, kept through a kill, never below what was told."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from edge_client.account import Account
from edge_client.config import PrivacyConfig
from edge_protocol.errors import StoreError

ON = PrivacyConfig(epsilon_per_report=2.0, epsilon_total=8.0)


def test_privacy_is_off_by_default_and_costs_nothing(tmp_path: Path) -> None:
    """No noise, no file, no figures for the state."""
    account = Account(tmp_path / "privacy.json", PrivacyConfig())
    account.spend()
    assert (account.on, account.exhausted, account.values()) == (False, False, {})
    assert not (tmp_path / "privacy.json").exists()


def test_reports_are_paid_for_until_the_budget_is_spent(tmp_path: Path) -> None:
    """Eleven reports of ε = 2 stay within ε = 8; the twelfth is refused, also after a restart."""
    account = Account(tmp_path / "privacy.json", ON)
    reports = 0
    while not account.exhausted:
        account.spend()
        reports += 1
    assert reports == 11
    assert account.epsilon <= 8
    again = Account(tmp_path / "privacy.json", ON)
    assert (again.exhausted, again.epsilon) == (True, account.epsilon)
    with pytest.raises(StoreError, match="no further report"):
        again.spend()
    wider = Account(tmp_path / "privacy.json", PrivacyConfig(epsilon_per_report=2.0, epsilon_total=10.0))
    assert not wider.exhausted, "an installer may grant more; what was told stays in the account"
    assert wider.values() == {"privacy_epsilon": account.epsilon, "privacy_epsilon_total": 10.0}


def test_an_account_that_the_disk_refuses_or_that_is_damaged_allows_no_report(tmp_path: Path) -> None:
    """What cannot be written down is not spent, so not sent; what cannot be read stops the device."""
    path = tmp_path / "state" / "privacy.json"
    (tmp_path / "state").write_text("a file where the folder should be")
    with pytest.raises(StoreError):
        Account(path, ON)
    (tmp_path / "state").unlink()
    account = Account(path, ON)
    path.parent.mkdir()
    path.mkdir()
    with pytest.raises(StoreError, match="cannot write"):
        account.spend()
    assert account.epsilon == 0
    path.rmdir()
    for text in ("", '{"cost": 1}', '{"cost": -1, "reports": 1}', '{"cost": 1, "reports": 1, "x": 1}'):
        path.write_text(text)
        with pytest.raises(StoreError, match="privacy account"):
            Account(path, ON)


def test_an_account_survives_a_kill_and_never_counts_too_little(tmp_path: Path) -> None:
    """A process that is killed while it spends has written down at least every report that it could have sent."""
    script = (
        "import sys\nfrom pathlib import Path\n"
        "from edge_client.account import Account\nfrom edge_client.config import PrivacyConfig\n"
        "account = Account(Path(sys.argv[1]), PrivacyConfig(epsilon_per_report=0.01, epsilon_total=1e6))\n"
        "while True:\n    account.spend()\n    print('sent', flush=True)\n"
    )
    path = tmp_path / "privacy.json"
    command = [sys.executable, "-c", script, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        for _ in range(20):
            assert process.stdout.readline() == "sent\n"
        process.kill()
        sent = 20 + len(process.stdout.readlines())
    one = Account(tmp_path / "one.json", PrivacyConfig(epsilon_per_report=0.01, epsilon_total=1e6))
    one.spend()
    many = Account(path, PrivacyConfig(epsilon_per_report=0.01, epsilon_total=1e6))
    assert many._spent.reports >= sent
    assert many._spent.cost >= 0.999999 * sent * one._spent.cost
