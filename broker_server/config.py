"""The server's configuration; owns its shape and where relative paths begin, not what the values do."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from broker_server.distil_job import DistilSettings, TrunkSettings
from broker_server.judge import JudgeRules
from broker_server.quotas import QuotaConfig
from broker_server.rollout_plan import Plan
from edge_protocol.config import load_config
from edge_protocol.errors import ConfigError
from edge_protocol.ids import check_id
from edge_protocol.transport.settings import BrokerSettings

Seconds = Annotated[float, Meta(gt=0)]
Days = Annotated[float, Meta(gt=0)]
Positive = Annotated[int, Meta(ge=1)]


class RoundsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """When a round begins and ends.

    Attributes:
        limit: rounds to run, abandoned ones included; None for no end, 0 for the first release only.
        quorum: reports below which a round is abandoned at its deadline.
        enough: reports at which a round closes at once, whoever is still waited for; None to wait for everyone present.
        wait_for: devices that must be there with the current release committed, or sent back, before a round is called.
        deadline_s: how long a round takes reports.
        pause_s: rest after a round.
        trunk: how devices share the changes of their trunks inside a tier; None, the default: not at all.
    """

    limit: Annotated[int, Meta(ge=0)] | None = None
    quorum: Positive = 4
    enough: Positive | None = None
    wait_for: Positive = 4
    deadline_s: Seconds = 3600.0
    pause_s: Annotated[float, Meta(ge=0)] = 60.0
    trunk: TrunkSettings | None = None

    def __post_init__(self) -> None:
        if self.enough is not None and self.enough < self.quorum:
            raise ConfigError(f"rounds.enough: {self.enough} reports are fewer than the quorum of {self.quorum}")


class TaskConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One task: what it is, and the server's own data.

    Attributes:
        task: name of a shipped task, or a YAML file.
        anchors: pack of labelled samples; the first release learns from them.
        proxies: pack of samples that every device answers. Strategies that ask for class means need none: its samples
            then stay with the server and are what the students learn on, in the place of the anchors.
        strategy: rule that fuses this task's reports; None for the one of the ``distil`` section.
        validation: pack of labelled samples that the judge measures on.
        judge: what a candidate may lose, and still become a release.
        rollout: how the judge's releases go over the fleet, without an operator; None for all devices at once.
    """

    task: str
    anchors: str
    proxies: str | None = None
    strategy: str | None = None
    validation: str
    rounds: RoundsConfig = RoundsConfig()
    judge: JudgeRules = JudgeRules()
    rollout: Plan | None = None

    def __post_init__(self) -> None:
        if self.rollout is not None and self.rollout.to:
            raise ConfigError("rollout.to: what a round made is for the whole fleet; leave it out")


class DistilConfig(DistilSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How a candidate is made, and what the distiller may take.

    Attributes:
        timeout_s: a distiller that takes longer is stopped and its round abandoned.
        parallel: distillers that may run at once.
    """

    timeout_s: Seconds = 3600.0
    parallel: Positive = 1

    @property
    def settings(self) -> DistilSettings:
        """The part that the distiller itself reads."""
        return DistilSettings(**{name: getattr(self, name) for name in DistilSettings.__struct_fields__})


class FleetConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How the server looks after devices.

    Attributes:
        stale_after_s: silence after which a device counts as stale; rounds still wait for it.
        offline_after_s: further silence after which it counts as offline.
        max_devices: births beyond this number are refused.
        keep_messages_s: how long the answer to a durable message is remembered.
        keep_messages: most answers remembered.
        keep_results_s: how long interval results are kept.
        quota: what one device may send; more is dropped, counted and shown in the status.
        tags: tag → device names that bear it, which may hold ``*``; for ``rollout start --to tag=…``.
    """

    stale_after_s: Seconds = 60.0
    offline_after_s: Seconds = 240.0
    max_devices: Positive = 100_000
    keep_messages_s: Seconds = 7 * 86_400.0
    keep_messages: Positive = 500_000
    keep_results_s: Seconds = 90 * 86_400.0
    quota: QuotaConfig = QuotaConfig()
    tags: dict[str, tuple[str, ...]] = {}


class TrustConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """How long signed metadata is good for; the server signs again at half of it what it has the keys for.

    Attributes:
        root_days, targets_days, releases_days: of roles whose keys may lie in a safe.
        snapshot_days: of the list of versions that belong together.
        timestamp_days: so long devices take releases when they hear nothing new, from a server that is down or from a
            broker that holds them back.
    """

    root_days: Days = 365.0
    targets_days: Days = 365.0
    releases_days: Days = 365.0
    snapshot_days: Days = 14.0
    timestamp_days: Days = 3.0


class ServerConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The server.

    Attributes:
        fleet: name of the fleet.
        broker: where the broker is.
        state_dir: database, blobs, releases and jobs.
        keys_dir: private keys that sign for the fleet (``roadcast keys init``); root's and targets' may be elsewhere.
        key_passphrase_file: opens them; None for keys that are not encrypted.
        trust: how long signatures are good for.
        tasks: by the task's own name.
        keep_releases: how many releases of a task the broker keeps chunks of.
        keep_rounds: newest rounds of a task of which everything is kept that doing them again needs.
    """

    fleet: str
    state_dir: str
    keys_dir: str
    tasks: Annotated[dict[str, TaskConfig], Meta(min_length=1)]
    broker: BrokerSettings = BrokerSettings()
    key_passphrase_file: str | None = None
    trust: TrustConfig = TrustConfig()
    distil: DistilConfig = DistilConfig()
    devices: FleetConfig = FleetConfig()
    keep_releases: Positive = 2
    keep_rounds: Positive = 5

    def __post_init__(self) -> None:
        check_id(self.fleet, "fleet")
        for name in self.tasks:
            check_id(name, "task")

    def distil_of(self, task: str) -> DistilSettings:
        """How a task's candidates are made: as the ``distil`` section says, by its own strategy where it names one."""
        settings = self.distil.settings
        return msgspec.structs.replace(settings, strategy=self.tasks[task].strategy or settings.strategy)


def read_config(
    path: Path, *, environment: Mapping[str, str] | None = None, flags: Mapping[str, Any] | None = None
) -> ServerConfig:
    """Read a configuration file; relative paths in it begin at its own folder.

    Raises:
        ConfigError: names file, key and what is expected.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: cannot be read: {error}") from error
    config = load_config(text, ServerConfig, where=str(path), environment=environment, flags=flags)
    return _anchored(config, path.resolve().parent)


def _anchored(config: ServerConfig, home: Path) -> ServerConfig:
    """Make every path absolute; the name of a shipped task stays a name."""

    def at(text: str) -> str:
        return str(home / Path(text).expanduser())

    tasks = {
        name: msgspec.structs.replace(
            task,
            task=at(task.task) if task.task.endswith((".yaml", ".yml")) else task.task,
            anchors=at(task.anchors),
            proxies=at(task.proxies) if task.proxies else None,
            validation=at(task.validation),
        )
        for name, task in config.tasks.items()
    }
    passphrase = at(config.key_passphrase_file) if config.key_passphrase_file else None
    files = ("password_file", "ca_file", "cert_file", "key_file")
    named = {name: at(file) for name in files if (file := getattr(config.broker, name)) is not None}
    return msgspec.structs.replace(
        config,
        broker=msgspec.structs.replace(config.broker, **named),
        state_dir=at(config.state_dir),
        keys_dir=at(config.keys_dir),
        key_passphrase_file=passphrase,
        tasks=tasks,
    )
