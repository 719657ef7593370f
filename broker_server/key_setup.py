"""The signing roles of a server, put together from its configuration; owns which keys are made, not how they sign."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from broker_server.config import ServerConfig
from broker_server.keys import KeyFolder, Keys, passphrase_from
from broker_server.signed_roles import ONLINE, TOP_LEVEL, SignedRoles
from edge_protocol.errors import NotReadyError
from edge_protocol.ids import TaskId
from edge_protocol.trust import role_of


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
        ConfigError: the passphrase's file cannot be used.
        NotReadyError: no root has been signed, or a task is delegated to nobody.
    """
    roles = signed_roles(config)
    missing = sorted({role_of(TaskId(task)) for task in config.tasks} - set(roles.tasks() if roles.stamp() else ()))
    if missing:
        raise NotReadyError(f"no key signs for {', '.join(missing)} yet; run: roadcast keys init")
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
    if not roles.stamp():
        places = {role: own if role in ONLINE else safe or own for role in TOP_LEVEL}
        counts = {role: root_keys if role == "root" else 1 for role in TOP_LEVEL}
        keys = {role: [places[role].make(role) for _ in range(counts[role])] for role in TOP_LEVEL}
        roles.begin(keys, threshold, now)
    for task in map(TaskId, sorted(config.tasks)):
        if role_of(task) not in roles.tasks():
            roles.delegate(task, [own.make(role_of(task))], now)
    return roles
