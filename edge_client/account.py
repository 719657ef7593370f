"""What reports have told of this device's samples so far; owns ``privacy.json``, no noise and no report.

Spent before sent: the cost of a report is on the disk, whole, before the report goes anywhere. A kill in between costs
the device a report's worth of budget, never the samples their promise.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from edge_client.config import PrivacyConfig
from edge_client.disk import write_atomic
from edge_models.privacy import epsilon_of, noise_cost, sigma_for
from edge_protocol.errors import StoreError


class Spent(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The account as it is written down.

    Attributes:
        cost: sum of the slopes of the reports' Rényi curves, see `edge_models.privacy.noise_cost`.
        reports: how many.
    """

    cost: float
    reports: int


class Account:
    """The privacy budget of one device; used by one thread only.

    Args:
        path: of the file; it is not made before something is spent.
        config: the installer's decision.

    Raises:
        StoreError: the file is damaged or cannot be read: then nobody knows what was spent.
    """

    def __init__(self, path: Path, config: PrivacyConfig) -> None:
        self._path, self._config = path, config
        self._spent = Spent(0.0, 0)
        self.sigma = sigma_for(config.epsilon_per_report, config.delta) if config.epsilon_per_report else 0.0
        if config.epsilon_per_report:
            self._spent = _read(path)

    @property
    def on(self) -> bool:
        """Whether reports are noisy and counted."""
        return self.sigma > 0

    @property
    def epsilon(self) -> float:
        """ε of everything reported since privacy was turned on, at the δ of the configuration."""
        return epsilon_of(self._spent.cost, self._config.delta)

    @property
    def exhausted(self) -> bool:
        """Whether one more report would exceed the budget."""
        return (
            self.on
            and epsilon_of(self._spent.cost + noise_cost(self.sigma), self._config.delta) > self._config.epsilon_total
        )

    def spend(self) -> None:
        """Pay for one report, on the disk, before it is sent.

        Raises:
            StoreError: the budget does not allow it, or the disk refused; do not send the report.
        """
        if not self.on:
            return
        if self.exhausted:
            raise StoreError(f"{self._path}: epsilon_total {self._config.epsilon_total:g} allows no further report")
        spent = Spent(self._spent.cost + noise_cost(self.sigma), self._spent.reports + 1)
        write_atomic(self._path, msgspec.json.encode(spent))
        self._spent = spent

    def values(self) -> dict[str, float]:
        """For the device's state: ``privacy_epsilon`` spent, ``privacy_epsilon_total``; none when privacy is off."""
        return {"privacy_epsilon": self.epsilon, "privacy_epsilon_total": self._config.epsilon_total} if self.on else {}


def _read(path: Path) -> Spent:
    try:
        spent = msgspec.json.decode(path.read_bytes(), type=Spent)
    except FileNotFoundError:
        return Spent(0.0, 0)
    except (OSError, msgspec.DecodeError) as error:
        raise StoreError(
            f"privacy account {path}: {error}; nobody knows what was told. Restore it, or delete it and replay.db"
        ) from error
    if not (spent.cost >= 0 and spent.reports >= 0):
        raise StoreError(f"privacy account {path}: {spent} was never written by a device; restore it")
    return spent
