"""Reads what the server starts from: tasks, proxy sets, and what is on disk from before. Owns no loop and no link."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from broker_server.config import ServerConfig, TaskConfig
from broker_server.coordinator import Coordinator
from broker_server.effects import Effect
from broker_server.keys import release_key
from broker_server.proxy_set import build, load_samples, mingle
from broker_server.records import ReleaseRecord
from broker_server.releases import Provenance, ReleaseFolder
from broker_server.rounds import restored
from broker_server.store.blobs import BlobFolder
from broker_server.store.database import Database
from broker_server.task_rounds import TaskRounds, TaskSetup
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


def task_setup(spec: TaskSpec, task: TaskConfig, blobs: BlobFolder, share: float, salt: bytes) -> TaskSetup:
    """Cut and keep a task's proxy set, with a share of the anchors hidden in it.

    Raises:
        DataError: the pack cannot be read, or is of another task.
        StoreError: the disk refused.
    """
    asked = mingle(load_samples(task.proxies, spec), load_samples(task.anchors, spec), share=share, salt=salt)
    return TaskSetup(spec, blobs.put(build(asked.samples)), len(asked.samples), task.rounds, task.judge)


def check_files(config: ServerConfig, specs: Mapping[TaskId, TaskSpec]) -> list[tuple[str, str, int]]:
    """Read every pack of a configuration; return (task, what, samples).

    Raises:
        DataError: a pack cannot be read, or is of another task.
    """
    return [
        (name, what, len(load_samples(Path(getattr(config.tasks[name], what)), spec)))
        for name, spec in specs.items()
        for what in ("anchors", "proxies", "validation")
    ]


def resume(coordinator: Coordinator, database: Database, config: ServerConfig, now: float) -> list[Effect]:
    """Bring a coordinator to where the last one stopped, however it stopped; return what is to be done.

    Raises:
        StoreError: the database refused.
    """
    effects: list[Effect] = []
    for name, task in coordinator.tasks.items():
        effects += _resume_task(task, database, name, now)
        if task.round is not None:
            coordinator.last_reports.restore(database.reports(name, task.round.number, task.setup.proxy.sha256))
    devices = config.devices
    seen = database.seen(since_s=now - devices.keep_messages_s, limit=devices.keep_messages)
    return effects + coordinator.restore(database.devices(), seen, now)


def _resume_task(task: TaskRounds, database: Database, name: TaskId, now: float) -> list[Effect]:
    newest = database.newest().get(name, 0)
    release = next(iter(database.releases(name, after=newest - 1)), None) if newest else None
    record = next(iter(database.rounds(name, limit=1)), None)
    current = None
    if record is not None:
        current = restored(record, database.answered(name, record.number), task.setup.rounds.quorum)
    return task.resume(release, current, now)


def push_release(config: ServerConfig, task: str, folder: Path, *, notes: str, now: float) -> ReleaseRecord:
    """Sign an artifact folder as a task's next release and record it, beside a server that may be running.

    Raises:
        ConfigError: no such task, or the release key is wrong.
        ArtifactError: a file is missing or broken.
        StoreError: the disk refused.
    """
    spec = task_specs(config).get(TaskId(task))
    if spec is None:
        raise ConfigError(f"tasks: there is no {task!r}; there is {', '.join(sorted(config.tasks))}")
    state = Path(config.state_dir)
    database = Database(state / "server.db")
    try:
        key = release_key(Path(config.release_key_file))
        releases = ReleaseFolder(state, config.fleet, database, BlobFolder(state / "blobs"), key)
        return releases.make(spec, folder, Provenance(None, {}, notes), now)
    finally:
        database.close()
