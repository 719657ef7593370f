"""What an installer decides about one device: the `DeviceConfig` that its YAML fills; owns no file."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from devices.preprocess import PreprocessConfig
from devices.provision.places import FACTORY_DIR
from edge_client.drift import DriftConfig
from edge_client.fetch_policy import FetchConfig
from edge_client.governor import PauseConfig
from edge_client.moving_objects.config import Line
from edge_models.head_weights import HeadType
from edge_protocol.errors import ConfigError
from edge_protocol.ids import SERVER, DeviceId, FleetId, check_id
from edge_protocol.task import Serving, Tier
from edge_protocol.transport.settings import BrokerSettings
from edge_protocol.trunks import MAX_STEPS
from edge_protocol.trust import MAX_METADATA

Text = Annotated[str, Meta(min_length=1, max_length=4096)]
RunnerChoice: TypeAlias = Literal["auto", "onnxruntime", "tensorrt"]


class SourceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A camera, clip, pack or series.

    Attributes:
        name: its name in results.
        uri: see `devices.sources`.
        rate_hz: frames a second; None for the source's own pace.
        loop: begin again at its end.
        serving: how a frame becomes an answer; None as the task says.
        lines: counting lines, for moving objects.
    """

    name: Text
    uri: Text
    rate_hz: Annotated[float, Meta(gt=0)] | None = None
    loop: bool = False
    serving: Serving | None = None
    lines: tuple[Line, ...] = ()

    def __post_init__(self) -> None:
        check_id(self.name, "source")


class LabelsConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where labels come from beside operators' messages.

    Attributes:
        commissioning: pack of labelled samples that the installer gathered, or of a sensor's history.
        file: CSV of ``sample,label`` lines that may grow; relative to the state directory; None: none is read.
    """

    commissioning: Text | None = None
    file: Text | None = "labels.csv"


class ReplayConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The store of samples to learn from.

    Attributes:
        budget_bytes: what it may take on disk.
        every_s: seconds between two unlabelled images that are kept.
    """

    budget_bytes: Annotated[int, Meta(ge=100_000, le=1 << 40)] = 20_000_000
    every_s: Annotated[float, Meta(ge=0)] = 1.0


class TrainConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How training may load the board.

    Attributes:
        epochs: passes over the samples at most.
        max_samples: that one job learns from: labelled ones first, of the fullest classes fewer, each spread evenly
            over time; an eighth is for unlabelled ones. With noise a report is of every labelled one all the same.
        memory_mb: of the training subprocess; it is refused more. A job with the other defaults fits into the least.
        nice: its priority, 19 is the lowest.
        timeout_s: after which it is killed; pauses do not count.
        pause: when it waits for a board that is hot or busy.
        watts: what the board draws while it trains, for the energy estimate; not needed where it has a power sensor.
        trunk_steps: that a round may have the trunk trained; 0, the default: no change of a trunk leaves the device.
    """

    epochs: Annotated[int, Meta(ge=1, le=10_000)] = 30
    max_samples: Annotated[int, Meta(ge=16, le=1_000_000)] = 4000
    memory_mb: Annotated[int, Meta(ge=512)] = 1024
    nice: Annotated[int, Meta(ge=0, le=19)] = 10
    timeout_s: Annotated[float, Meta(gt=0)] = 600.0
    pause: PauseConfig = PauseConfig()
    watts: Annotated[float, Meta(gt=0)] | None = None
    trunk_steps: Annotated[int, Meta(ge=0, le=MAX_STEPS)] = 0


class PersonalConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The device's own head.

    Attributes:
        heads: types to choose from by validation on the device's own samples; the first of equals wins.
            With `bias` among them, a device with too few labels to choose by moves its biases alone.
    """

    heads: Annotated[tuple[HeadType, ...], Meta(min_length=1, max_length=4)] = ("bias", "linear")

    def __post_init__(self) -> None:
        if len(set(self.heads)) < len(self.heads):
            raise ConfigError("personal.heads: name each type once")


class PrivacyConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What reports may tell of single samples: (ε, δ)-differential privacy; classifiers only (``docs/privacy.md``).

    Attributes:
        epsilon_per_report: null, the default, for reports without noise.
        epsilon_total: of all reports together, the budget. When the next one would exceed it, the device reports no
            more and goes on with everything else.
        delta: well below one over the number of samples.
        prototype_k: rounds may ask for class means, and a class of which there are fewer samples is not told; null, the
            default, to answer no such round. `train.max_samples` must have room for so many of each class. No noise.
    """

    epsilon_per_report: Annotated[float, Meta(gt=0, le=1000)] | None = None
    epsilon_total: Annotated[float, Meta(gt=0, le=1e6)] = 8.0
    delta: Annotated[float, Meta(gt=0, lt=0.01)] = 1e-5
    prototype_k: Annotated[int, Meta(ge=3, le=100_000)] | None = None

    def __post_init__(self) -> None:
        one, total = self.epsilon_per_report, self.epsilon_total
        if one is not None and one > total:
            raise ConfigError(f"privacy: epsilon_per_report {one:g} exceeds epsilon_total {total:g}")
        if one is not None and self.prototype_k is not None:
            raise ConfigError("privacy: class means have no noise; leave out prototype_k, or epsilon_per_report")


class ProbationConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new release must stand beside the running one.

    Attributes:
        frames: live samples that both answer; what does not come in time is taken from the replay store.
        latency_factor: the new p95 may be so many times the old one.
        latency_floor_ms: a p95 up to this is fast enough, whatever the old one was.
        agreement: least share of the samples on which both have the same likeliest class; 0 for any. A newer release
            is meant to answer some of them otherwise: this stops one that hardly ever answers alike.
        memory_mb: that the agent may grow by while it holds the new release beside the old one.
        wait_s: how long to wait for live samples.
        settle_s: how long a release must have served after a start until no later crash is laid to it.
    """

    frames: Annotated[int, Meta(ge=1, le=10_000)] = 20
    latency_factor: Annotated[float, Meta(ge=1)] = 3.0
    latency_floor_ms: Annotated[float, Meta(ge=0)] = 25.0
    agreement: Annotated[float, Meta(ge=0, le=1)] = 0.1
    memory_mb: Annotated[int, Meta(ge=1)] = 512
    wait_s: Annotated[float, Meta(ge=0)] = 10.0
    settle_s: Annotated[float, Meta(ge=0, le=86_400)] = 300.0


class TensorrtConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How plans are built, where the runner is TensorRT.

    Attributes:
        precision: ``file`` computes in the number types of the release, ``fp16`` lets TensorRT up to 10 use FP16 too.
        build_timeout_s: after which a build is killed.
        needed_mb: memory that must be free before one begins.
        workspace_mb: that one layer may use beside its weights.
        spare_mb: memory that must stay free; below it one is killed.
        watch_s: seconds between two looks whether the power mode changed.
    """

    precision: Literal["file", "fp16"] = "file"
    build_timeout_s: Annotated[float, Meta(gt=0, le=86_400)] = 1800.0
    needed_mb: Annotated[int, Meta(ge=0, le=1 << 20)] = 1024
    workspace_mb: Annotated[int, Meta(ge=1, le=1 << 20)] = 256
    spare_mb: Annotated[int, Meta(ge=0, le=1 << 20)] = 256
    watch_s: Annotated[float, Meta(gt=0, le=86_400)] = 60.0


class DeviceConfig(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One device; ``roadcast client schema`` prints it for editors.

    Attributes:
        fleet, device: its names in topics.
        tier: which student fits it.
        task: name or path of a task.
        broker: where the broker is.
        trusted_root: root metadata that its trust begins with: a file, or the JSON itself.
        state_dir: where it keeps everything.
        factory: folder of the model that the board came with, never written; see ``roadcast release factory``.
        sources: what it looks at.
        labels, preprocess, replay, train, personal, drift, privacy, probation, tensorrt, fetch: see there.
        runner: what answers frames: ``auto`` takes TensorRT on boards with a GPU for it. ONNX Runtime serves until a
            plan is there, and whenever there is none.
        report_interval_s: seconds between two reports of its state and its board.
        metrics_file: Prometheus file to write the board's readings to, for node_exporter's textfile collector.
        precision: ``int8`` takes a release's INT8 variant for its runner, where there is one and it answers rightly.
        threads: that one inference may use.
        queue: frames that may wait; the oldest gives way.
    """

    fleet: str
    device: str
    tier: Tier
    task: Text
    trusted_root: Annotated[str, Meta(min_length=1, max_length=MAX_METADATA)]
    state_dir: Text
    factory: Text = FACTORY_DIR
    sources: Annotated[tuple[SourceConfig, ...], Meta(min_length=1, max_length=16)]
    broker: BrokerSettings = BrokerSettings()
    labels: LabelsConfig = LabelsConfig()
    preprocess: PreprocessConfig = PreprocessConfig()
    replay: ReplayConfig = ReplayConfig()
    train: TrainConfig = TrainConfig()
    personal: PersonalConfig = PersonalConfig()
    drift: DriftConfig = DriftConfig()
    privacy: PrivacyConfig = PrivacyConfig()
    probation: ProbationConfig = ProbationConfig()
    runner: RunnerChoice = "auto"
    tensorrt: TensorrtConfig = TensorrtConfig()
    fetch: FetchConfig = FetchConfig()
    report_interval_s: Annotated[float, Meta(gt=0, le=86_400)] = 10.0
    metrics_file: Text | None = None
    precision: Literal["plain", "int8"] = "plain"
    threads: Annotated[int, Meta(ge=1, le=64)] = 1
    queue: Annotated[int, Meta(ge=1, le=10_000)] = 8

    def __post_init__(self) -> None:
        check_id(self.fleet, "fleet")
        if check_id(self.device, "device") == SERVER:
            raise ConfigError(f"device: {SERVER!r} is the server's own name; choose another")
        if len({source.name for source in self.sources}) < len(self.sources):
            raise ConfigError("sources: two of them have the same name")
        if self.train.trunk_steps and self.privacy.epsilon_per_report is not None:
            raise ConfigError("train.trunk_steps: no noise covers a trunk's change; set it to 0, or leave privacy off")

    @property
    def fleet_id(self) -> FleetId:
        """The fleet's name."""
        return FleetId(self.fleet)

    @property
    def device_id(self) -> DeviceId:
        """The device's name."""
        return DeviceId(self.device)
