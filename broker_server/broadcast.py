"""Puts the server's decisions on the broker: releases, their signatures and round calls as what the publisher keeps."""

from __future__ import annotations

from collections.abc import Callable

from broker_server.publisher import Publisher
from broker_server.signed_roles import SignedRoles
from broker_server.store.database import Database
from edge_protocol.blobs import BlobRef
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.manifest import decode_manifest
from edge_protocol.messages import Body, Call, ReleaseOffer, RoundCall
from edge_protocol.topics import Topics

Encode = Callable[[Body], bytes]


class Broadcast:
    """Releases, signed metadata and rounds as retained topics.

    Args:
        roles: who sign that a manifest is a release.
        keep: releases of a task whose chunks the broker keeps.
    """

    def __init__(
        self,
        publisher: Publisher,
        database: Database,
        roles: SignedRoles,
        topics: Topics,
        encode: Encode,
        *,
        keep: int,
    ) -> None:
        self._publisher, self._database, self._topics, self._encode = publisher, database, topics, encode
        self._roles, self._keep = roles, keep
        self._metadata: dict[str, bytes] = {}
        self._stamp = (0, b"")
        self._clearing: set[tuple[TaskId, int]] = set()

    def proxy(self, task: TaskId, ref: BlobRef) -> None:
        """Keep a task's proxy set."""
        self._publisher.hold(task, "proxy", (ref,))

    def round(self, call: Call) -> None:
        """Keep a round call, and the proxy set that it may name."""
        task = TaskId(call.task)
        if isinstance(call, RoundCall):
            self.proxy(task, call.proxy)
        self._publisher.announce(self._topics.round(task), self._encode(call))

    def trust(self) -> None:
        """Keep the signed metadata as they are on disk, where anything has changed.

        Raises:
            StoreError: the disk refused.
        """
        stamp = self._roles.stamp()
        if stamp == self._stamp:
            return
        for name, data in self._roles.files().items():
            if self._metadata.get(name) != data:
                self._metadata[name] = data
                self._publisher.announce(self._topics.metadata(name), data)
        self._stamp = stamp

    def release(self, task: TaskId, counter: int) -> None:
        """Keep a release: chunks first, then the manifest; clear the chunks of releases that are too old.

        Raises:
            LocalProtocolError: ``oversized``: no device would take the offer; nothing was changed.
            StoreError: the database refused.
        """
        found = [r for r in self._database.releases(task) if r.counter <= counter]
        kept = {record.counter for record in found[-self._keep :]}
        records = [r for r in found if r.on_broker]
        offers = {r.counter: self._encode(ReleaseOffer(r.manifest)) for r in records if r.counter == counter}
        for record in records:
            name, refs = f"release/{record.counter}", decode_manifest(record.manifest).blobs
            if record.counter in kept:
                self._publisher.hold(task, name, refs)
            else:
                self._publisher.release(task, name)
                for ref in refs:
                    self._publisher.clear(ref)
                self._clearing.add((task, record.counter))
            if record.counter in offers:
                self._publisher.keep(self._topics.release(task), offers[record.counter])

    def offer(self, task: TaskId, counter: int, devices: tuple[DeviceId, ...]) -> None:
        """Keep a release for some devices, ahead of the fleet: chunks first, then a manifest for each.

        Raises:
            LocalProtocolError: as of `release`.
            StoreError: the database refused.
        """
        manifest = self._database.releases(task, after=counter - 1)[0].manifest
        payload = self._encode(ReleaseOffer(manifest))
        self._publisher.hold(task, f"release/{counter}", decode_manifest(manifest).blobs)
        for device in devices:
            self._publisher.keep(self._topics.release(task, device), payload)

    def withdraw(self, task: TaskId, devices: tuple[DeviceId, ...]) -> None:
        """Clear what was kept for some devices."""
        for device in devices:
            self._publisher.forget(self._topics.release(task, device))

    def settle(self) -> None:
        """Remember what has been cleared, once nothing waits any more.

        Raises:
            StoreError: the database refused; asked again, it will be tried again.
        """
        while self._clearing and self._publisher.idle:
            task, counter = next(iter(self._clearing))
            self._database.clear_release(task, counter)
            self._clearing.discard((task, counter))
