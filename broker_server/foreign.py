"""Releases that devices run and their server does not have, as after an older backup was brought back; only reads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from broker_server.records import DeviceTask
from broker_server.registry import DeviceStatus
from broker_server.store.database import Database
from edge_protocol.ids import DeviceId, TaskId
from edge_protocol.manifest import decode_manifest

REACH = 1000
"""How far above the newest release a counter may lie that a device tells of, to be counted on from. A device that lies
can so push the next counter up by this much at each release, and would need 2⁵³ / 1000 releases to use them up."""


@dataclass(frozen=True, slots=True)
class Foreign:
    """A device that runs what its server does not have, and how to get it back."""

    device: DeviceId
    task: TaskId
    says: str
    fix: str


def next_counter(database: Database, task: TaskId, above: int = 0) -> int:
    """The counter of the next release: above the newest one, `above`, and all that devices, not retired, tell of.

    Raises:
        StoreError: the disk refused.
    """
    newest = database.newest().get(task, 0)
    told = [release for _, runs, release in _told(database) if runs.task == task and release <= newest + REACH]
    return max(newest, above, *told) + 1


def foreign(database: Database) -> list[Foreign]:
    """Every device that runs a release that is not here, or other weights than the release of that counter here.

    Raises:
        StoreError: the disk refused.
    """
    manifests = {(record.task, record.counter): record.manifest for record in database.releases()}
    newest = database.newest()

    @cache
    def weights(task: TaskId, counter: int) -> set[str]:
        return {part.weights.sha256 for part in decode_manifest(manifests[task, counter]).artifacts}

    found = []
    for device, runs, release in _told(database):
        fix = f"release anew, above it: roadcast release again {runs.task} N"
        fix += f" --above {release}" if release > newest.get(runs.task, 0) + REACH else ""
        if release and (runs.task, release) not in manifests:
            says = f"runs release {release} of {runs.task}, which this server does not have (an older backup?)"
        elif runs.weights and runs.release == release and runs.weights not in weights(runs.task, release):
            says = f"runs other weights as release {release} of {runs.task} than this server has (an older backup?)"
        else:
            continue
        found.append(Foreign(device, runs.task, says, fix))
    return found


def warnings(found: list[Foreign]) -> list[str]:
    """A line for each task of which devices run what its server does not have."""
    tally = Counter(each.task for each in found)
    first = {each.task: each for each in reversed(found)}
    more = {task: f" (and {count - 1} more)" if count > 1 else "" for task, count in tally.items()}
    return [f"{each.device}{more[task]} {each.says}; {each.fix}" for task, each in first.items()]


def _told(database: Database) -> Iterator[tuple[DeviceId, DeviceTask, int]]:
    """What each device runs, and the highest counter by which it told so: at its birth, a deployment, or in a state."""
    states = {(stored.device, stored.state.task): stored.state.release for stored in database.states()}
    for device in database.devices():
        if device.state != DeviceStatus.RETIRED.value:
            for runs in device.tasks:
                yield device.device, runs, max(runs.release, states.get((device.device, runs.task), 0))
