"""The signing roles of a server, put together from its configuration; owns which keys are made, not how they sign."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from broker_server.audit import AuditEntry
from broker_server.config import ServerConfig
from broker_server.effects import SaveAudit
from broker_server.keys import KeyFolder, Keys, passphrase_from
from broker_server.signed_roles import SignedRoles
from broker_server.store.database import Database
from broker_server.store.roles import ONLINE, TOP_LEVEL
from edge_protocol.errors import ConfigError, NotReadyError, TrustError
from edge_protocol.ids import TaskId
from edge_protocol.trust import commissioned, refreshed, role_of, rotated


def own_keys(config: ServerConfig) -> KeyFolder:
    """The keys that lie on the server's disk.

    Raises:
        ConfigError: the passphrase's file cannot be used.
    """
    passphrase = config.key_passphrase_file
    return KeyFolder(Path(config.keys_dir), passphrase_from(Path(passphrase) if passphrase else None))


def signed_roles(config: ServerConfig, more: Iterable[KeyFolder] = ()) -> SignedRoles:
    """The server's roles, signed by its own keys and by those in more folders.

    Raises:
        ConfigError: the passphrase's file cannot be used.
    """
    return SignedRoles(Path(config.state_dir) / "tuf", Keys([own_keys(config), *more]), config.trust)


def ready_roles(config: ServerConfig) -> SignedRoles:
    """The same, for a server that is about to run.

    Raises:
        ConfigError: a key or the passphrase's file cannot be used.
        NotReadyError: no root has been signed, a task is delegated to nobody, or a key is away that signs day by day.
    """
    roles = signed_roles(config)
    missing = sorted({role_of(TaskId(task)) for task in config.tasks} - set(roles.tasks() if roles.begun else ()))
    if missing:
        raise NotReadyError(f"no key signs for {', '.join(missing)} yet; run: roadcast keys init")
    for row in roles.status():
        if row["role"] in ONLINE and sum(row["keys"].values()) < row["threshold"]:
            raise NotReadyError(
                f"{config.keys_dir}: the key of {row['role']} is not here, without which nothing is signed"
            )
    return roles


def begin(
    config: ServerConfig, now: float, *, safe: KeyFolder | None = None, root_keys: int = 1, threshold: int = 1
) -> SignedRoles:
    """Make the keys of a fleet and sign its first root; where there is one, only delegate what is new to the server.

    Args:
        config: the server's.
        now: seconds since 1970.
        safe: folder for the keys of root and targets, which the server itself never needs; None for its own.
        root_keys: how many.
        threshold: of them must sign the next root.

    Raises:
        ConfigError: a key cannot be used.
        NotReadyError: there is a root, and the key of targets is not here.
        StoreError: the disk refused.
    """
    own = own_keys(config)
    roles = signed_roles(config, [safe] if safe else [])
    if not roles.begun:
        counts = {role: root_keys if role == "root" else 1 for role in TOP_LEVEL}
        keys = {role: [_place(role, own, safe).make(role) for _ in range(counts[role])] for role in TOP_LEVEL}
        roles.begin(keys, threshold, now)
    for task in map(TaskId, sorted(config.tasks)):
        if role_of(task) not in roles.tasks():
            roles.delegate(task, [own.make(role_of(task))], 1, now)
    return roles


@dataclass(frozen=True, slots=True)
class Rotation:
    """A role (of root, or by the name of its task), how many new keys it gets, and how many of them must sign."""

    role: str
    count: int
    threshold: int


def rotate(
    config: ServerConfig,
    rotation: Rotation,
    now: float,
    *,
    safe: KeyFolder | None = None,
    more: Iterable[KeyFolder] = (),
) -> SignedRoles:
    """Give a role new keys.

    Args:
        config: the server's.
        rotation: which, and how many; without any, root is signed again by the keys that it has.
        now: seconds since 1970.
        safe: folder where new keys of root and targets go, and where old ones may be; None for the server's own.
        more: further folders with old keys.

    Raises:
        ConfigError: no such role, or a key cannot be used.
        NotReadyError: a key that must sign is not here.
        StoreError: the disk refused.
    """
    role, own = rotation.role, own_keys(config)
    roles = signed_roles(config, [*([safe] if safe else []), *more])
    if role not in TOP_LEVEL and role not in config.tasks:
        raise ConfigError(f"{role!r} is no role: one of {', '.join([*TOP_LEVEL, *sorted(config.tasks)])}")
    roles.status()  # nothing is made for a fleet that has no root
    place = _place(role, own, safe)
    keys = [place.make(role if role in TOP_LEVEL else role_of(TaskId(role))) for _ in range(rotation.count)]
    if role in TOP_LEVEL:
        roles.rotate(role, keys, rotation.threshold, now)
    else:
        roles.delegate(TaskId(role), keys, rotation.threshold, now)
    return roles


def log_change(config: ServerConfig, now: float, who: str, detail: str) -> None:
    """Tell the audit log that keys were changed, where a server has run on the state folder.

    Raises:
        StoreError: the disk refused; the keys are changed all the same.
    """
    path = Path(config.state_dir) / "server.db"
    if not path.exists():
        return
    database = Database(path)
    try:
        database.apply([SaveAudit(AuditEntry(at_s=now, who=who, what="keys", detail=detail))])
    finally:
        database.close()


def refusals(roles: SignedRoles, now: float) -> list[str]:
    """What devices of each task would say to the metadata that are here, in their own words; nothing when all is good.

    Args:
        roles: whose files are looked at.
        now: seconds since 1970.

    Raises:
        NotReadyError: no root has been signed.
        StoreError: a file cannot be read.
    """
    files, at = roles.files(), datetime.fromtimestamp(now, timezone.utc)
    tasks = [TaskId(role.removeprefix(role_of(TaskId("")))) for role in roles.tasks()]
    return sorted({_refusal(files, task, at) for task in tasks} - {""})


def _refusal(files: Mapping[str, bytes], task: TaskId, at: datetime) -> str:
    try:
        refreshed(rotated(commissioned(files["1.root"]), files), files, task, at)
    except TrustError as error:
        return str(error)
    return ""


def _place(role: str, own: KeyFolder, safe: KeyFolder | None) -> KeyFolder:
    """Where a role's keys belong: what the server needs day by day lies with it."""
    return safe or own if role in {"root", "targets"} else own
