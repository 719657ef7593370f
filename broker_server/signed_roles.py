"""Signed metadata as the server keeps it: a folder with a file for each role; owns what is signed, not by which key.

::

    tuf/1.root.json 2.root.json …   every root, for devices that were away
    tuf/targets.json                to which key each task's releases are delegated
    tuf/task-<task>.json            releases of a task: length and hash of each manifest
    tuf/snapshot.json timestamp.json    which versions belong together, and that this is still so

Root and targets may be signed far from here; `renew` signs whatever nears its end and whose key is here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from securesystemslib.signer import Key
from tuf.api.exceptions import UnsignedMetadataError
from tuf.api.metadata import (
    DelegatedRole,
    Delegations,
    Metadata,
    Root,
    Signed,
    Snapshot,
    TargetFile,
    Targets,
    Timestamp,
)

from broker_server.config import TrustConfig
from broker_server.keys import Keys
from broker_server.store.roles import HASHES, TOP_LEVEL, RoleFolder
from edge_protocol.errors import NotReadyError, StoreError
from edge_protocol.ids import TaskId
from edge_protocol.trust import CREATED, MAX_METADATA, SKEW_S, role_of, target_of

MAX_LISTED = 40
"""Newest releases of a task that stay listed, some 110 bytes each: every device fetches the list with every release."""
_DAY_S = 86_400.0
_EPOCH = datetime.fromtimestamp(0, timezone.utc)


class SignedRoles:
    """The metadata of a fleet.

    Args:
        folder: where it is kept.
        keys: those that are here.
        config: how long each role is good for.
    """

    def __init__(self, folder: Path, keys: Keys, config: TrustConfig) -> None:
        self._folder, self._keys, self._config = RoleFolder(folder), keys, config

    @property
    def newest_root(self) -> Path:
        """The file that devices are commissioned with."""
        return self._folder.path / f"{self._folder.root_version}.root.json"

    def tasks(self) -> list[str]:
        """Names of the roles that sign releases."""
        delegations = self._folder.load(Targets, "targets").delegations
        return sorted(delegations.roles or ()) if delegations else []

    def files(self) -> dict[str, bytes]:
        """Everything that devices may ask for, in the order in which it is to be published: the timestamp last.

        Raises:
            StoreError: one cannot be read.
        """
        folder = self._folder
        with folder.lock():
            roots = [f"{version}.root" for version in range(1, folder.root_version + 1)]
            return {name: folder.read(name) for name in [*roots, *self.tasks(), "targets", "snapshot", "timestamp"]}

    @property
    def begun(self) -> bool:
        """Whether a root has been signed."""
        return self._folder.root_version > 0

    def stamp(self) -> tuple[int, bytes]:
        """Something that changes whenever any file does."""
        return self._folder.root_version, self._folder.read("timestamp") if self._folder.has("timestamp") else b""

    def begin(self, keys: Mapping[str, Sequence[Key]], threshold: int, now: float) -> None:
        """Sign the first root, and roles that list nothing.

        Args:
            keys: of each top-level role.
            threshold: of the root's keys that must sign the next root.
            now: seconds since 1970.

        Raises:
            NotReadyError: there is a root already, or a private key is not here.
        """
        with self._folder.lock():
            if self._folder.root_version:
                raise NotReadyError(f"{self._folder.path}: a root exists; it is changed by: roadcast keys rotate root")
            root = Root(version=1, expires=self._until("root", now), consistent_snapshot=False)
            for role in TOP_LEVEL:
                for key in keys[role]:
                    root.add_key(key, role)
            root.roles["root"].threshold = threshold
            targets = Targets(version=1, expires=self._until("targets", now), delegations=Delegations({}, {}))
            signed = {"targets": self._sealed("targets", targets, [root]), "1.root": self._sealed("root", root, [root])}
            for name, data in signed.items():  # in this order: with a root, all of this has begun
                self._folder.write(name, data)
            self._bind(now)

    def delegate(self, task: TaskId, keys: Sequence[Key], threshold: int, now: float) -> None:
        """Have a threshold of these keys sign a task's releases from now on, in place of those that did.

        Raises:
            NotReadyError: a private key is not here.
        """
        role = role_of(task)
        with self._folder.lock():
            targets = self._folder.load(Targets, "targets")
            assert targets.delegations is not None
            assert targets.delegations.roles is not None
            known = targets.delegations.roles.get(role)
            for keyid in list(known.keyids) if known else ():
                targets.revoke_key(keyid, role)
            targets.delegations.roles[role] = DelegatedRole(role, [], threshold, terminating=True, paths=[f"{task}/*"])
            for key in keys:
                targets.add_key(key, role)
            releases = self._folder.load(Targets, role) if self._folder.has(role) else Targets(expires=_EPOCH)
            signed = {
                role: self._next(role, releases, now, by=[targets]),
                "targets": self._next("targets", targets, now),
            }
            for name, data in signed.items():  # in this order: whatever is delegated is there
                self._folder.write(name, data)
            self._bind(now)

    def rotate(self, role: str, keys: Sequence[Key], threshold: int, now: float) -> int:
        """Give a top-level role other keys, by a root that the old threshold and the new one sign; return its version.

        The role is signed first, by old and new keys, so what a crash leaves is good; without old ones the root is.

        Args:
            role: one of `TOP_LEVEL`.
            keys: the new ones; none to sign the root again with the keys it has, before it expires.
            threshold: of the new keys.
            now: seconds since 1970.

        Raises:
            NotReadyError: too few private keys are here.
        """
        folder = self._folder
        with folder.lock():
            old, root = folder.root(), folder.root()
            for keyid in list(root.roles[role].keyids) if keys else ():
                root.revoke_key(keyid, role)
            for key in keys:
                root.add_key(key, role)
            root.roles[role].threshold = threshold if keys else root.roles[role].threshold
            root.version, root.expires = old.version + 1, self._until("root", now)
            sealed = self._sealed("root", root, [old, root])
            if role != "root" and (both := self._by_both(role, old, root, now)):
                folder.write(role, both)
                self._bind(now)
            folder.write(f"{root.version}.root", sealed)
            if role == "targets" and not self._good(role, targets := folder.load(Targets, role), now):
                self._again(role, targets, now)
            self._bind(now)
            return root.version

    def list_release(self, task: TaskId, counter: int, manifest: bytes, now: float, gone: Iterable[int] = ()) -> None:
        """Sign that a manifest is a release of a task; `gone` are counters that are not any more.

        Raises:
            NotReadyError: there is no such role, or its private key is not here.
            StoreError: the disk refused.
        """
        role = role_of(task)
        with self._folder.lock():
            releases = self._folder.load(Targets, role)
            for name in [target_of(task, other) for other in gone]:
                releases.targets.pop(name, None)
            name = target_of(task, counter)
            releases.targets[name] = TargetFile.from_data(name, manifest, HASHES)
            newest = sorted(releases.targets, key=lambda each: int(each.rpartition("/")[2]))[-MAX_LISTED:]
            releases.targets = {each: releases.targets[each] for each in {*newest, name}}
            self._again(role, releases, now)
            self._bind(now)

    def lists(self, task: TaskId, counter: int, manifest: bytes) -> bool:
        """Whether exactly this manifest is a release of a task."""
        name = target_of(task, counter)
        listed = self._folder.load(Targets, role_of(task)).targets.get(name)
        return listed == TargetFile.from_data(name, manifest, HASHES)

    def renew(self, now: float) -> list[str]:
        """Sign again what is past half of its life and whose key is here; say what ends and could not be.

        Raises:
            NotReadyError: snapshot or timestamp ends and its key is not here.
            StoreError: the disk refused.
        """
        ending = [] if self._fresh("root", self._folder.root(), now) else ["root"]
        with self._folder.lock():
            for role in ("targets", *self.tasks()):
                signed = self._folder.load(Targets, role)
                if self._good(role, signed, now):
                    continue
                try:
                    self._again(role, signed, now)
                except NotReadyError:
                    ending.append(role)
            self._bind(now)
        return ending

    def status(self) -> list[dict[str, Any]]:
        """Every role: its version, end, threshold and keys, and which of those are here."""
        root, found = self._folder.root(), []
        for role in (*TOP_LEVEL, *self.tasks()):
            signed: Signed = root if role == "root" else self._folder.metadata(role).signed
            rule = self._folder.delegator(role).get_delegated_role(role)
            here = {signer.public_key.keyid for signer in self._keys.signers(rule.keyids)}
            found.append(
                {
                    "role": role,
                    "version": signed.version,
                    "expires_s": signed.expires.timestamp(),
                    "threshold": rule.threshold,
                    "keys": {keyid: keyid in here for keyid in rule.keyids},
                }
            )
        return found

    def _bind(self, now: float) -> None:
        """Have snapshot and timestamp describe what is here, also after a crash; sign them only when they must be."""
        folder = self._folder
        described = {f"{role}.json": folder.described(role) for role in ("targets", *self.tasks())}
        snapshot = folder.load(Snapshot, "snapshot") if folder.has("snapshot") else Snapshot(expires=_EPOCH)
        if snapshot.meta != described or not self._good("snapshot", snapshot, now):
            snapshot.meta = described
            self._again("snapshot", snapshot, now)
        timestamp = folder.load(Timestamp, "timestamp") if folder.has("timestamp") else Timestamp(expires=_EPOCH)
        if timestamp.snapshot_meta != folder.described("snapshot") or not self._good("timestamp", timestamp, now):
            timestamp.snapshot_meta = folder.described("snapshot")
            self._again("timestamp", timestamp, now)

    def _good(self, role: str, signed: Signed, now: float) -> bool:
        """Whether a role need not sign again: far from its end, and signed by the keys that it has today."""
        return self._folder.has(role) and self._fresh(role, signed, now) and self._folder.verified(role)

    def _again(self, role: str, signed: Signed, now: float) -> None:
        """Sign the next version of a role and put it in place."""
        self._folder.write(role, self._next(role, signed, now))

    def _next(self, role: str, signed: Signed, now: float, by: Sequence[Root | Targets] = ()) -> bytes:
        """The next version of a role, or the first one, signed."""
        signed.version += 1 if self._folder.has(role) else 0
        signed.expires = self._until(role, now)
        if isinstance(signed, Timestamp):
            signed.unrecognized_fields[CREATED] = int(now)
        return self._sealed(role, signed, by or [self._folder.delegator(role)])

    def _by_both(self, role: str, old: Root, new: Root, now: float) -> bytes:
        """The next version of a role, good by either root; empty without the old root's keys of it."""
        try:
            return self._next(role, self._folder.metadata(role).signed, now, by=[old, new])
        except NotReadyError:
            return b""

    def _sealed(self, role: str, signed: Signed, delegators: Sequence[Root | Targets]) -> bytes:
        metadata: Metadata[Any] = Metadata(signed)
        rules = [delegator.get_delegated_role(role) for delegator in delegators]
        for signer in self._keys.signers({keyid: None for rule in rules for keyid in rule.keyids}):
            metadata.sign(signer, append=True)
        try:
            for delegator in delegators:
                delegator.verify_delegate(role, metadata.signed_bytes, metadata.signatures)
        except UnsignedMetadataError as error:
            needs = " and ".join(f"{rule.threshold} of {', '.join(k[:8] for k in rule.keyids)}" for rule in rules)
            raise NotReadyError(f"{error}; it takes keys {needs}: name the folder that has them with --keys") from error
        data = metadata.to_bytes()
        if len(data) > MAX_METADATA:
            raise StoreError(f"{role}: {len(data)} bytes exceed the {MAX_METADATA} that devices take")
        return data

    def _days(self, role: str) -> float:
        return float(getattr(self._config, f"{role if role in TOP_LEVEL else 'releases'}_days"))

    def _until(self, role: str, now: float) -> datetime:
        return datetime.fromtimestamp(now, timezone.utc) + timedelta(days=self._days(role))

    def _fresh(self, role: str, signed: Signed, now: float) -> bool:
        """Whether a role is in the first half of its life; what ends later than it may was signed by a wrong clock."""
        life, left = self._days(role) * _DAY_S, signed.expires.timestamp() - now
        return life / 2 < left < life + SKEW_S
