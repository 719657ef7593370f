"""What a device serves when it starts: the first release of the resolver that can be loaded; owns no link, no thread.

The current release comes first, then the one before, then the factory model. None of them needs the network, the
server or the right time, and a device that is offline for ever serves what it has for ever.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from edge_client.config import DeviceConfig
from edge_client.fetcher import Fetcher
from edge_client.installed import InstalledStore, resolve
from edge_client.installer import Candidate, load_release
from edge_protocol.errors import RoadcastError, StoreError
from edge_protocol.task import TaskSpec


def boot(
    config: DeviceConfig, spec: TaskSpec, store: InstalledStore, fetcher: Fetcher
) -> tuple[Candidate | None, list[str]]:
    """Load the release that is to answer frames, None when there is none; and say why others were passed over.

    Each load is counted on the disk before it begins, so that a release that takes the agent down is passed over in
    the end. A disk that cannot count is no reason not to serve.
    """
    skipped: list[str] = []
    folder, own, factory = Path(config.state_dir) / spec.name, fetcher.folder, Path(config.factory)
    whole, damaged = resolve(folder, own, spec=spec, tier=config.tier, keyring=config.keyring, factory=factory)
    for found in whole:
        with suppress(StoreError):
            store.begin_attempt(found.release)
        try:
            candidate = load_release(found.release, found.artifact, found.blob, config.threads)
        except (RoadcastError, OSError) as error:
            skipped.append(f"release {found.release}: {error}")
            candidate = None
        with suppress(StoreError):
            store.end_attempt(found.release)
        if candidate is not None:
            if found.blobs != own:
                _prefer_the_factory_s(fetcher, candidate)
            return candidate, [*damaged, *skipped]
    return None, [*damaged, *skipped]


def _prefer_the_factory_s(fetcher: Fetcher, candidate: Candidate) -> None:
    """A copy of the device's own hides the factory's; here it may be what was damaged."""
    files = candidate.artifact
    for ref in (files.template, files.weights, files.golden):
        fetcher.drop(ref.sha256)
