"""Reads what the server starts from: tasks, proxy sets, and what is on disk from before. Owns no loop and no link."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from broker_server.config import ServerConfig, TaskConfig
from broker_server.coordinator import Coordinator
from broker_server.distil_job import PROTOTYPE_STRATEGIES, VOTE_STRATEGIES, DistilSettings
from broker_server.effects import Effect
from broker_server.key_setup import signed_roles
from broker_server.keys import KeyFolder
from broker_server.proxy_set import build, load_samples, mingle, unguarded
from broker_server.records import ProgressRecord, ReleaseRecord, RolloutRecord
from broker_server.releases import Hold, Provenance, ReleaseFolder
from broker_server.rollout_plan import Plan
from broker_server.rollout_states import RolloutState
from broker_server.rounds import restored
from broker_server.store.blobs import BlobFolder
from broker_server.store.database import Database
from broker_server.task_rounds import TaskRounds, TaskSetup
from edge_models.samples import Samples
from edge_models.tasks import load_task
from edge_protocol.errors import ConfigError
from edge_protocol.ids import TaskId
from edge_protocol.task import TaskSpec


def task_specs(config: ServerConfig) -> dict[TaskId, TaskSpec]:
    """Read every task of a configuration.

    Raises:
        ConfigError: a task cannot be read, or its section has another name than the task.
    """
    specs = {}
    for name, task in config.tasks.items():
        spec = load_task(task.task)
        if spec.name != name:
            raise ConfigError(f"tasks.{name}: the task calls itself {spec.name!r}; name the section so")
        specs[spec.task_id] = spec
    return specs


@dataclass(frozen=True, eq=False)
class TaskFiles:
    """What a task's packs hold, once nothing speaks against a server that runs on them.

    Attributes:
        packs: ``anchors``, ``proxies`` where there are some, ``validation``.
        asked: the proxy set as devices fetch it, with hidden anchors; None where rounds ask for class means.
        samples: how many it holds.
    """

    packs: Mapping[str, Samples]
    asked: bytes | None
    samples: int


def read_files(spec: TaskSpec, task: TaskConfig, settings: DistilSettings, salt: bytes = b"") -> TaskFiles:
    """Read what a task starts from, and refuse what its rounds could not use: for a check and for a server alike.

    Raises:
        ConfigError: the strategy and the task, or what it lacks, do not go together.
        DataError: a pack cannot be read, is of another task, or holds no label or more proxies than it may.
    """
    _check_strategy(spec, task, settings)
    named = {"anchors": task.anchors, "proxies": task.proxies, "validation": task.validation}
    packs = {what: load_samples(path, spec, labelled=what != "proxies") for what, path in named.items() if path}
    if settings.prototypes:
        return TaskFiles(packs, None, 0)
    asked = mingle(packs["proxies"], packs["anchors"], share=settings.trust_share, salt=salt).samples
    return TaskFiles(packs, build(asked), len(asked))


def _check_strategy(spec: TaskSpec, task: TaskConfig, settings: DistilSettings) -> None:
    known = VOTE_STRATEGIES + PROTOTYPE_STRATEGIES
    if settings.strategy not in known:
        raise ConfigError(f"tasks.{spec.name}.strategy: {settings.strategy!r} is not one of {', '.join(known)}")
    if settings.prototypes and spec.kind != "classify":
        raise ConfigError(
            f"tasks.{spec.name}.strategy: {settings.strategy} needs classes, and this task forecasts; name another"
        )
    if settings.prototypes and task.rounds.trunk is not None:
        raise ConfigError(
            f"tasks.{spec.name}.rounds.trunk: {settings.strategy} asks for class means, and a report of them holds "
            "no change of a trunk; leave the section out"
        )
    if not settings.prototypes and task.proxies is None:
        raise ConfigError(
            f"tasks.{spec.name}.proxies: {settings.strategy} asks devices about samples; name a pack of them, or set "
            f"tasks.{spec.name}.strategy to {' or '.join(PROTOTYPE_STRATEGIES)}"
        )


def task_setup(spec: TaskSpec, task: TaskConfig, blobs: BlobFolder, settings: DistilSettings, salt: bytes) -> TaskSetup:
    """Cut and keep a task's proxy set, with a share of the anchors hidden in it; none where class means are asked for.

    Raises:
        ConfigError, DataError: as for `read_files`.
        StoreError: the disk refused.
    """
    files = read_files(spec, task, settings, salt)
    proxy = None if files.asked is None else blobs.put(files.asked)
    return TaskSetup(spec, proxy, files.samples, task.rounds, task.judge)


def check_files(config: ServerConfig, specs: Mapping[TaskId, TaskSpec]) -> list[tuple[str, str, int, str]]:
    """Read every pack of a configuration as a server would; return (task, what, samples, warning).

    Raises:
        ConfigError, DataError: as for `read_files`.
    """
    found: list[tuple[str, str, int, str]] = []
    for name, spec in specs.items():
        settings = config.distil_of(name)
        for what, samples in read_files(spec, config.tasks[name], settings).packs.items():
            found.append((name, what, len(samples), "; ".join(_gaps(what, samples, spec, settings))))
    return found


def _gaps(what: str, samples: Samples, spec: TaskSpec, settings: DistilSettings) -> Iterator[str]:
    """Classes that a server runs without, but does not learn, judge or guard."""
    known = set(samples.targets.tolist()) if spec.kind == "classify" else set()
    if known and what != "proxies" and (lacking := [name for at, name in enumerate(spec.labels) if at not in known]):
        yield f"no sample of {', '.join(lacking)}"
    weighs = what == "anchors" and settings.strategy == "feddistill"  # the others hear everybody alike
    if weighs and (open_to := unguarded(samples, spec, share=settings.trust_share)):
        yield f"none to hide of {', '.join(open_to)}: no device can be judged there, and none teaches it"


def resume(coordinator: Coordinator, database: Database, config: ServerConfig, now: float) -> list[Effect]:
    """Bring a coordinator to where the last one stopped, however it stopped; return what is to be done.

    Raises:
        StoreError: the database refused.
    """
    effects: list[Effect] = []
    held: list[tuple[ReleaseRecord, RolloutRecord, list[ProgressRecord]]] = []
    for name, task in coordinator.tasks.items():
        rolling = _rollouts(database, name)
        effects += _resume_task(task, database, rolling, now)
        held += rolling
        if task.round is not None and task.setup.proxy is not None:
            coordinator.intake.last.restore(database.reports(name, task.round.number, task.setup.proxy.sha256))
    effects += coordinator.rollouts.restore(held, now)
    devices = config.devices
    seen = database.seen(since_s=now - devices.keep_messages_s, limit=devices.keep_messages)
    return effects + coordinator.restore(database.devices(), seen, now)


def _rollouts(database: Database, name: TaskId) -> list[tuple[ReleaseRecord, RolloutRecord, list[ProgressRecord]]]:
    """The rollouts of a task that may still matter: of the fleet's release, the one before it, and newer ones."""
    current = database.serving(name)
    releases = {record.counter: record for record in database.releases(name)}
    before = [counter for counter in releases if current and counter < current.counter]
    since = before[-2] if len(before) > 1 else 0
    records = database.rollouts(name, after=since)
    return [(releases[r.counter], r, database.progress(name, r.counter)) for r in records]


def _resume_task(
    task: TaskRounds,
    database: Database,
    held: list[tuple[ReleaseRecord, RolloutRecord, list[ProgressRecord]]],
    now: float,
) -> list[Effect]:
    name, release = task.task, database.serving(task.task)
    record = next(iter(database.rounds(name, limit=1)), None)
    current = None
    if record is not None:
        rounds = task.setup.rounds
        current = restored(record, database.answered(name, record.number), rounds.quorum, rounds.enough)
    ended = {RolloutState.COMPLETE.value, RolloutState.ABORTED.value}
    rolling = record is not None and any(r.round == record.number and o.state not in ended for r, o, _ in held)
    return task.resume(release, current, now, rolling=rolling)


def push_release(
    config: ServerConfig,
    task: str,
    folder: Path,
    *,
    notes: str,
    now: float,
    by: str = "server",
    held_by: str = "",
    more_keys: Iterable[KeyFolder] = (),
    above: int = 0,
) -> ReleaseRecord:
    """Sign an artifact folder as a task's next release and record it, beside a server that may be running.

    Args:
        config: the server's.
        task: its name.
        folder: holds a folder per tier.
        notes: for people.
        now: seconds since 1970.
        by: who pushes it, for the audit log.
        held_by: who holds it back until a rollout is started; "" for nobody: it is for the whole fleet at once.
        more_keys: folders of keys beside the server's own.
        above: counter that the release's is to be above, as those are that devices tell of.

    Raises:
        ConfigError: no such task, or a key cannot be used.
        NotReadyError: the task's key is not here.
        ArtifactError: a file is missing or broken, or the release could never be offered.
        StoreError: the disk refused.
    """
    spec = _spec(config, task)
    with _releasing(config, more_keys) as releases:
        return releases.make(
            spec, folder, Provenance(None, {}, notes, by), now, _hold(config, task, held_by), above=above
        )


def release_again(
    config: ServerConfig,
    task: str,
    counter: int,
    *,
    notes: str,
    now: float,
    by: str = "server",
    held_by: str = "",
    more_keys: Iterable[KeyFolder] = (),
    above: int = 0,
) -> ReleaseRecord:
    """Sign the files of an earlier release of a task as its next one; arguments and errors are those of a push."""
    spec = _spec(config, task)
    with _releasing(config, more_keys) as releases:
        return releases.again(
            spec.task_id, counter, Provenance(None, {}, notes, by), now, _hold(config, task, held_by), above=above
        )


def _spec(config: ServerConfig, task: str) -> TaskSpec:
    spec = task_specs(config).get(TaskId(task))
    if spec is None:
        raise ConfigError(f"tasks: there is no {task!r}; there is {', '.join(sorted(config.tasks))}")
    return spec


def _hold(config: ServerConfig, task: str, held_by: str) -> Hold | None:
    return Hold(config.tasks[task].rollout or Plan(), held_by, starts=False) if held_by else None


@contextmanager
def _releasing(config: ServerConfig, more_keys: Iterable[KeyFolder]) -> Iterator[ReleaseFolder]:
    """The releases of a server that may be running."""
    state = Path(config.state_dir)
    database = Database(state / "server.db")
    try:
        roles = signed_roles(config, more_keys)
        blobs, limit = BlobFolder(state / "blobs"), config.broker.max_packet_bytes
        yield ReleaseFolder(state, config.fleet, database, blobs, roles, packet_bytes=limit)
    finally:
        database.close()
