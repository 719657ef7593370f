"""Puts a device's parts together from its configuration: preprocessing, feeds, memories, link; owns no loop."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import time
from typing import TypeAlias

import numpy as np

from devices.packs import ImagePack, SeriesPack
from devices.preprocess import Preprocess
from devices.sources import Source, open_source
from edge_client.account import Account
from edge_client.cameras import Cameras
from edge_client.config import DeviceConfig, SourceConfig
from edge_client.disk import Disk
from edge_client.fetcher import Fetcher
from edge_client.inference import Feed
from edge_client.installer import Prepare
from edge_client.labels import image_samples, open_commissioning, series_samples
from edge_client.moving_objects import MovingObjectsConfig
from edge_client.notify import notify
from edge_client.outbox import Outbox
from edge_client.pipelines import Objects, Pipeline, Series, WholeSample
from edge_client.replay import Kept, ReplayStore
from edge_client.results import Tally
from edge_client.seen import Seen
from edge_client.sensor_windows import live_windows
from edge_models.scales import Scale
from edge_models.windows import LiveWindows
from edge_protocol.blobs import BlobRef
from edge_protocol.errors import ConfigError, DataError, StoreError, TrustError
from edge_protocol.messages import IntervalResult
from edge_protocol.task import ImageInput, SeriesInput, TaskSpec
from edge_protocol.topics import Topics
from edge_protocol.transport.base import Inbox, LastWill, Received, Transport
from edge_protocol.transport.mqtt import mqtt_transport
from edge_protocol.transport.settings import is_awaited
from edge_protocol.trust import commissioned

LOG = logging.getLogger(__name__)
REPLAY = "replay.db"
Emit = Callable[[IntervalResult], None]
MakeTransport: TypeAlias = Callable[[Inbox, LastWill], Transport]


@dataclass(frozen=True, eq=False, slots=True)
class Parts:
    """What frames go through.

    Attributes:
        feeds: one per source.
        cameras: how their sources fare.
        seen: what was just seen.
        prepare: from stored samples to the student's input.
        account: of what reports may tell.
    """

    feeds: list[Feed]
    cameras: Cameras
    seen: Seen
    prepare: Prepare
    account: Account


def open_memories(config: DeviceConfig, spec: TaskSpec) -> tuple[Outbox, ReplayStore, int]:
    """Open what outlives a restart, and say how many of the two the disk refused.

    A device serves first: on a disk that is full or damaged they live in memory until the next start.
    """
    outbox_file, replay_file = (Path(config.state_dir) / name for name in ("outbox.db", REPLAY))
    budget, refused = config.replay.budget_bytes, 0
    try:
        outbox = Outbox(outbox_file)
    except StoreError as error:
        LOG.warning("%s; until the next start messages are kept in memory", error)
        outbox, refused = Outbox(outbox_file, in_memory=True), refused + 1
    try:
        replay = ReplayStore(replay_file, budget)
        replay.belong_to(spec)
    except StoreError as error:
        LOG.warning("%s; until the next start samples are kept in memory", error)
        replay, refused = ReplayStore(replay_file, budget // 10, in_memory=True), refused + 1
    return outbox, replay, refused


def build_parts(
    config: DeviceConfig, spec: TaskSpec, replay: ReplayStore, emit: Emit, told: Callable[[str], float] = lambda _: 0.0
) -> Parts:
    """Make feeds for every source, and fill the replay store with what the installer gathered.

    Args:
        config: of the device.
        spec: of its task.
        replay: its samples.
        emit: takes results.
        told: until when (s since 1970) a source's results were told before this start.

    Raises:
        ConfigError: the configuration does not fit the task, see `check_task`, or a source does not.
        DataError: the commissioning pack cannot be read, or is of another kind.
        SourceError: a series source cannot be opened to learn its sensors.
        StoreError: the privacy account is damaged.
    """
    check_task(config, spec)
    account = Account(Path(config.state_dir) / "privacy.json", config.privacy)
    seen, cameras = Seen(config.replay.every_s), Cameras(Path(config.state_dir))
    if isinstance(spec.input, ImageInput):
        preprocess = Preprocess(spec.input, config.preprocess)
        _commission_images(config, spec, preprocess, replay)
        feeds = [
            cameras.watch(
                _image_feed(source, spec, preprocess, seen, emit), period_s=source.rate_hz and 1 / source.rate_hz
            )
            for source in config.sources
        ]
        return Parts(feeds, cameras, seen, preprocess.batch, account)
    assert isinstance(spec.input, SeriesInput)
    windows = partial(
        live_windows, spec, history=_commission_series(config, spec, replay), replay=Path(config.state_dir) / REPLAY
    )
    feeds = [
        cameras.watch(
            _series_feed(source, spec, windows, seen, emit, _told_s(source, told)),
            kind="logger_row",
            period_s=spec.input.interval_s,
        )
        for source in config.sources
    ]
    return Parts(feeds, cameras, seen, lambda raw: np.ascontiguousarray(raw, np.float32), account)


def _image_feed(source: SourceConfig, spec: TaskSpec, preprocess: Preprocess, seen: Seen, emit: Emit) -> Feed:
    tally = Tally(task=spec.name, source=source.name, interval_s=spec.interval_s, slot_s=None, emit=emit)
    pipeline: Pipeline = WholeSample(spec, preprocess, tally, seen)
    if (source.serving or spec.serving) == "moving-objects":
        pipeline = Objects(spec, preprocess, MovingObjectsConfig(lines=source.lines), tally, seen)
    return Feed(source.name, _opener(source, spec.side), pipeline, tally)


def _told_s(source: SourceConfig, told: Callable[[str], float]) -> float:
    """Until when a logger's file was told; a time that is yet to come was a wrong clock's, and holds nothing back."""
    until = told(source.name) if source.uri.startswith("csv://") and not source.loop else 0.0
    return until if until <= time() else 0.0


def _series_feed(
    source: SourceConfig,
    spec: TaskSpec,
    windows: Callable[[Sequence[str]], LiveWindows],
    seen: Seen,
    emit: Emit,
    told_s: float,
) -> Feed:
    assert isinstance(spec.input, SeriesInput)
    with open_source(source.uri, name=source.name, rate_hz=source.rate_hz, loop=source.loop) as opened:
        sensors = getattr(opened, "sensors", None)
    if not sensors:
        raise ConfigError(f"sources: {source.name!r} delivers no readings, task {spec.name!r} takes series")
    tally = Tally(
        task=spec.name,
        source=source.name,
        interval_s=spec.interval_s,
        slot_s=spec.input.interval_s,
        emit=emit,
        told_s=told_s,
    )
    pipeline = Series(spec, windows(sensors), sensors, tally, seen, source.name)
    return Feed(source.name, _opener(source), pipeline, tally)


def _opener(source: SourceConfig, side: tuple[str, ...] = ()) -> Callable[[], Source]:
    return partial(open_source, source.uri, name=source.name, rate_hz=source.rate_hz, loop=source.loop, side=side)


def _commission_images(config: DeviceConfig, spec: TaskSpec, preprocess: Preprocess, replay: ReplayStore) -> None:
    if config.labels.commissioning is not None:
        path = config.labels.commissioning

        def gathered() -> Iterator[Kept]:
            pack = open_commissioning(path, spec)
            assert isinstance(pack, ImagePack)
            return image_samples(pack, spec, preprocess)

        replay.commission(_mark(path, config), gathered)


def _commission_series(config: DeviceConfig, spec: TaskSpec, replay: ReplayStore) -> SeriesPack | None:
    if config.labels.commissioning is None:
        return None
    pack = open_commissioning(config.labels.commissioning, spec)
    assert isinstance(pack, SeriesPack)
    mark = _mark(config.labels.commissioning, config) + " numbered"
    replay.commission(mark, lambda: series_samples(pack, spec, Scale.fit(pack.values)))
    return pack


def _mark(path: str, config: DeviceConfig) -> str:
    """Name a pack as it lies there now, and how it is prepared."""
    try:
        told = Path(path).stat()
    except OSError as error:
        raise DataError(f"{path}: no commissioning pack can be read there: {error.strerror or error}") from error
    return f"{Path(path).resolve()} {told.st_size} {told.st_mtime_ns} {config.preprocess!r}"


def check_task(config: DeviceConfig, spec: TaskSpec) -> None:
    """Hold a configuration against its task, as far as that needs no source.

    Raises:
        ConfigError: privacy is asked for where there is none, class means of more samples than a job may have of a
            class, or lines where nothing is counted.
    """
    asked = (config.privacy.epsilon_per_report, config.privacy.prototype_k)
    if asked != (None, None) and spec.kind != "classify":
        raise ConfigError(
            f"privacy: task {spec.name!r} forecasts; only classifiers can report with privacy, or class means"
        )
    least = (config.privacy.prototype_k or 0) * len(spec.labels)
    if config.train.max_samples < least:
        raise ConfigError(
            f"privacy: class means of {config.privacy.prototype_k} samples of each of {len(spec.labels)} labels need"
            f" train.max_samples of {least}, not {config.train.max_samples}; raise it, or lower prototype_k"
        )
    for source in config.sources:
        if source.lines and (source.serving or spec.serving) != "moving-objects":
            raise ConfigError(f"sources: {source.name!r} has lines, which only 'serving: moving-objects' counts at")


def read_root(config: DeviceConfig) -> bytes:
    """The root that the device was commissioned with, from its file or from the configuration itself.

    Raises:
        ConfigError: there is no such file, or it is no root.
    """
    text = config.trusted_root
    try:
        root = text.encode() if text.lstrip().startswith("{") else Path(text).read_bytes()
        commissioned(root)
    except (OSError, TrustError) as error:
        raise ConfigError(
            f"trusted_root: {error}; bring the newest tuf/<n>.root.json of the server's state folder"
        ) from error
    return root


def make_fetcher(
    config: DeviceConfig, topics: Topics, link: Transport, put: Callable[[object], None], disk: Disk | None
) -> Fetcher:
    """Make what pulls blobs; the chunks of a mirror come into the inbox as the broker's do.

    Raises:
        ConfigError: the certificates for the mirror cannot be used.
    """
    policy = config.fetch

    def deliver(ref: BlobRef, index: int, data: bytes) -> None:
        put(Received(topics.chunk(ref.sha256, index), data))

    mirror = None
    if policy.mirror is not None:
        from edge_client.mirror import Mirror  # noqa: PLC0415  # HTTP is for devices that have a mirror

        mirror = Mirror(policy.mirror, deliver, policy.mirror_ca_file, patient=is_awaited(config.broker))
    own, shelf = Path(config.state_dir) / "blobs", Path(config.factory) / "blobs"
    return Fetcher(own, topics, link, disk=disk, shelf=shelf, mirror=mirror, policy=policy, device=config.device)


def mqtt_link(config: DeviceConfig, inbox: Inbox, will: LastWill) -> Transport:
    """Make the link to the broker that the configuration names; a device that is not enrolled yet serves meanwhile."""
    settings = config.broker
    if is_awaited(settings):
        LOG.warning("no certificate yet at %s: serving alone until this device is enrolled", settings.cert_file)
        notify("STATUS=serving alone: not enrolled yet")
    return mqtt_transport(settings, f"{config.fleet}-{config.device}", inbox, will, patient=True)
