"""Every message of the wire contract; a message that exists is legal. Owns no bytes (`codec`) and no topic (`topics`).

Structs travel as MessagePack arrays: fields are positional, new ones are appended with a default.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from edge_protocol.blobs import BlobRef
from edge_protocol.fields import Count, Counts, Name, Seconds, Sha256, Text, Values, check_finite
from edge_protocol.measuring import Measure, Measured
from edge_protocol.prototypes import PrototypeCall, PrototypeReport
from edge_protocol.trunks import TrunkAsk, TrunkChange
from edge_protocol.vote_codec import CodedVotes
from edge_protocol.votes import MAX_SAMPLES, ClassVotes, ForecastVotes

__all__ = [
    "MAX_SAMPLES",
    "Ack",
    "All",
    "Birth",
    "Body",
    "Call",
    "ClassVotes",
    "CodedReport",
    "CodedVotes",
    "Deployment",
    "DeviceState",
    "Down",
    "Envelope",
    "ForecastVotes",
    "FullReport",
    "Header",
    "IntervalResult",
    "Kind",
    "KnowledgeReport",
    "Label",
    "Measure",
    "Measured",
    "Need",
    "Presence",
    "PrototypeCall",
    "PrototypeReport",
    "Rebirth",
    "ReleaseOffer",
    "Report",
    "RoundCall",
    "RunningTask",
    "Telemetry",
    "Up",
]

PROXY_BYTES = 8
"""How much of a proxy set's hash a coded report names."""


class Header(msgspec.Struct, frozen=True, array_like=True):
    """Who says this, when, and the how-manieth it is.

    Attributes:
        fleet: fleet of the sender.
        sender: device, or ``server``.
        message_id: 16 random bytes; a message sent again keeps its id.
        boot_id: 8 random bytes, drawn at each start of the sender's process.
        sequence: counts up from 0 within a boot.
        time_s: seconds since 1970 by the sender's clock.
        clock_trusted: whether that clock has been synchronised.
    """

    fleet: Name
    sender: Name
    message_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    boot_id: Annotated[bytes, Meta(min_length=8, max_length=8)]
    sequence: Count
    time_s: Seconds
    clock_trusted: bool


class RunningTask(msgspec.Struct, frozen=True, array_like=True):
    """What a device runs for one task: tier, student and release (0: none)."""

    task: Name
    label_space: Name
    tier: Name
    student: Name
    release: Count


class Birth(msgspec.Struct, frozen=True, array_like=True, tag="birth"):
    """First message after each connection: who the device is and what it runs."""

    board: Name
    software: Name
    runtime: Name
    cores: Count
    memory_bytes: Count
    tasks: Annotated[tuple[RunningTask, ...], Meta(max_length=16)]


class DeviceState(msgspec.Struct, frozen=True, array_like=True, tag="state"):
    """How a device's task is doing; the newest replaces the one before.

    Attributes:
        session: state of the session table.
        release: counter of the release that answers frames now.
        counts: frames, skipped, dropped, bytes_up, bytes_down, and drops by reason.
        values: latency_p50_ms, latency_p95_ms, accuracy_shared, accuracy_personal (or mae_…); absent when not measured.
    """

    task: Name
    session: Name
    release: Count
    counts: Counts
    values: Values

    def __post_init__(self) -> None:
        check_finite(self.values)


class KnowledgeReport(msgspec.Struct, frozen=True, array_like=True, tag="knowledge"):
    """A device's soft labels on the proxy set of a round.

    Attributes:
        release: counter of the release whose trunk and head the report model started from.
        proxy: hash of the proxy set answered.
        examples: labelled samples the report model was trained on.
        trunk: how the device's samples change the trunk, where the round asked.
    """

    task: Name
    label_space: Name
    round: Count
    release: Count
    proxy: Sha256
    examples: Count
    votes: ClassVotes | ForecastVotes
    trunk: TrunkChange | None = None


class CodedReport(msgspec.Struct, frozen=True, array_like=True, tag="coded"):
    """A `KnowledgeReport` in few bytes; the same fields, but for two.

    Attributes:
        proxy: first 8 bytes of the hash of the proxy set answered.
        votes: coded, alone or beside those of an earlier round.
    """

    task: Name
    label_space: Name
    round: Count
    release: Count
    proxy: Annotated[bytes, Meta(min_length=PROXY_BYTES, max_length=PROXY_BYTES)]
    examples: Count
    votes: CodedVotes
    trunk: TrunkChange | None = None


class Telemetry(msgspec.Struct, frozen=True, array_like=True, tag="telemetry"):
    """Readings of the board itself; a reading that could not be taken is absent, never 0."""

    values: Values

    def __post_init__(self) -> None:
        check_finite(self.values)


class Deployment(msgspec.Struct, frozen=True, array_like=True, tag="deployment"):
    """Where a release stands on this device.

    Attributes:
        state: state of the deployment table.
        running: counter of the release that answers frames now.
        weights: hash of the weights payload that answers frames now ("" when none).
        reason: why it was rejected, failed or rolled back; committed, why ONNX Runtime serves although TensorRT was to.
    """

    task: Name
    release: Count
    state: Name
    running: Count
    weights: Annotated[str, Meta(pattern="^([0-9a-f]{64})?$")]
    reason: Text = ""


class Need(msgspec.Struct, frozen=True, array_like=True, tag="need"):
    """Chunks that the broker did not deliver; the server publishes them again."""

    sha256: Sha256
    indices: Annotated[tuple[Annotated[int, Meta(ge=0, lt=2**20)], ...], Meta(max_length=256)]


class IntervalResult(msgspec.Struct, frozen=True, array_like=True, tag="result"):
    """What a device answered over an interval. Missing is missing: a key that was not observed is absent, never 0.

    Attributes:
        source: name of the camera or series.
        coverage: share of the interval in which frames were seen, 0 to 1.
        values: ``line/direction/class`` → count, or ``sensor/+15min`` → forecast.
    """

    task: Name
    source: Name
    start_s: Seconds
    end_s: Seconds
    coverage: Annotated[float, Meta(ge=0, le=1)]
    values: Values

    def __post_init__(self) -> None:
        check_finite(self.values)


class Ack(msgspec.Struct, frozen=True, array_like=True, tag="ack"):
    """The server has stored (or refused for good) a message; the device may forget it."""

    message_id: Annotated[bytes, Meta(min_length=16, max_length=16)]
    accepted: bool
    reason: Text = ""


class Rebirth(msgspec.Struct, frozen=True, array_like=True, tag="rebirth"):
    """The server does not know this device (any more): send a Birth."""


class Label(msgspec.Struct, frozen=True, array_like=True, tag="label"):
    """An operator says what a sample is."""

    task: Name
    sample: Name
    label: Name


class RoundCall(msgspec.Struct, frozen=True, array_like=True, tag="round"):
    """The open round of a task; retained, so a device that was away finds it.

    Attributes:
        release: counter of the release that a report should start from.
        proxy: the proxy set to answer.
        deadline_s: seconds since 1970 by the server's clock.
        open: False once the round is over.
        trunk: how to train the trunk whose change a report may hold; None: no change is wanted.
    """

    task: Name
    label_space: Name
    number: Count
    release: Count
    proxy: BlobRef
    deadline_s: Seconds
    open: bool
    trunk: TrunkAsk | None = None


class ReleaseOffer(msgspec.Struct, frozen=True, array_like=True, tag="release"):
    """The release that a device is to run, as its manifest: worth what signed metadata say of exactly these bytes."""

    manifest: Annotated[bytes, Meta(max_length=256 * 1024)]


class Presence(msgspec.Struct, frozen=True, array_like=True, tag="presence"):
    """Retained, and the last will: whether this boot of the device is connected."""

    online: bool


FullReport: TypeAlias = KnowledgeReport | PrototypeReport
Report: TypeAlias = FullReport | CodedReport
Call: TypeAlias = RoundCall | PrototypeCall
Up: TypeAlias = Birth | DeviceState | Report | Telemetry | Deployment | Need | IntervalResult | Measured
Down: TypeAlias = Ack | Rebirth | Label | Measure
All: TypeAlias = Call | ReleaseOffer | Presence
Body: TypeAlias = Up | Down | All
Kind = Literal[
    "birth",
    "state",
    "knowledge",
    "telemetry",
    "deployment",
    "need",
    "result",
    "measured",
    "ack",
    "command",
    "round",
    "release",
    "online",
]


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """A header and a body: what one MQTT payload holds."""

    header: Header
    body: Body
