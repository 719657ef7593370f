"""Every message of the wire contract; a message that exists is legal. Owns no bytes (see `codec`) and no topic (see `topics`).

Structs travel as MessagePack arrays: fields are positional, new ones are appended with a default.
"""

from __future__ import annotations

from math import isfinite
from typing import Annotated, Literal, TypeAlias

import msgspec
import numpy as np
from msgspec import Meta

from edge_protocol.arrays import Array, unpack
from edge_protocol.blobs import BlobRef
from edge_protocol.errors import LocalProtocolError

Name = Annotated[str, Meta(max_length=64)]
Text = Annotated[str, Meta(max_length=512)]
Count = Annotated[int, Meta(ge=0, le=2**53)]
Values = Annotated[dict[Name, float], Meta(max_length=1024)]
Counts = Annotated[dict[Name, Count], Meta(max_length=256)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]
MAX_SAMPLES = 20_000


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
    time_s: float
    clock_trusted: bool


class RunningTask(msgspec.Struct, frozen=True, array_like=True):
    """What a device runs for one task: tier, student and release (0: the factory model or none)."""

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
        _check_finite(self.values)


class ClassVotes(msgspec.Struct, frozen=True, array_like=True, tag="classes"):
    """Soft labels of a classifier, three bytes a sample.

    Attributes:
        classes: (N,) uint8, most likely class.
        confidence: (N,) uint8, its probability × 255.
        density: (N,) uint8, in-distribution p-value of the sample's features on this device × 255.
        held: (C,) uint8, 1 for classes the device has examples of.
    """

    classes: Array
    confidence: Array
    density: Array
    held: Array

    def __post_init__(self) -> None:
        samples = _check_votes(self.classes, "u1", 1)
        for array, what in ((self.confidence, "confidence"), (self.density, "density")):
            if array.dtype != "u1" or array.shape != (samples,):
                raise LocalProtocolError(
                    "wrong-shape",
                    f"{what} must be u1[{samples}] like the classes, not {array.dtype}{list(array.shape)}",
                )
        if self.held.dtype != "u1" or len(self.held.shape) != 1 or not self.held.shape[0]:
            raise LocalProtocolError(
                "wrong-shape", f"held must be u1[classes], not {self.held.dtype}{list(self.held.shape)}"
            )
        if samples and int(unpack(self.classes).max()) >= self.held.shape[0]:
            raise LocalProtocolError(
                "wrong-shape", f"a vote names class {int(unpack(self.classes).max())} of {self.held.shape[0]}"
            )

    @property
    def samples(self) -> int:
        """N, the number of proxy samples answered."""
        return self.classes.shape[0]


class ForecastVotes(msgspec.Struct, frozen=True, array_like=True, tag="forecasts"):
    """Soft answers of a forecaster, in units of the proxy sample's own spread.

    Attributes:
        mean: (N, H) float16, change against the window's last reading.
        spread: (N, H) float16, standard deviation, > 0.
        density: (N,) uint8, as in `ClassVotes`.
    """

    mean: Array
    spread: Array
    density: Array

    def __post_init__(self) -> None:
        samples = _check_votes(self.mean, "f2", 2)
        if self.spread.dtype != "f2" or self.spread.shape != self.mean.shape:
            raise LocalProtocolError(
                "wrong-shape",
                f"spread must be f2{list(self.mean.shape)} like the mean, not {self.spread.dtype}{list(self.spread.shape)}",
            )
        if self.density.dtype != "u1" or self.density.shape != (samples,):
            raise LocalProtocolError(
                "wrong-shape", f"density must be u1[{samples}], not {self.density.dtype}{list(self.density.shape)}"
            )
        mean, spread = unpack(self.mean), unpack(self.spread)
        if not (np.isfinite(mean).all() and np.isfinite(spread).all()):
            raise LocalProtocolError("not-finite", "a forecast holds NaN or infinity")
        if samples and not (spread > 0).all():  # type: ignore[operator]
            raise LocalProtocolError("wrong-shape", "a forecast's spread must be above 0")

    @property
    def samples(self) -> int:
        """N, the number of proxy samples answered."""
        return self.mean.shape[0]


class KnowledgeReport(msgspec.Struct, frozen=True, array_like=True, tag="knowledge"):
    """A device's soft labels on the proxy set of a round.

    Attributes:
        release: counter of the release whose trunk and head the report model started from.
        proxy: hash of the proxy set answered.
        examples: labelled samples the report model was trained on.
    """

    task: Name
    label_space: Name
    round: Count
    release: Count
    proxy: Sha256
    examples: Count
    votes: ClassVotes | ForecastVotes


class Telemetry(msgspec.Struct, frozen=True, array_like=True, tag="telemetry"):
    """Readings of the board itself; a reading that could not be taken is absent, never 0."""

    values: Values

    def __post_init__(self) -> None:
        _check_finite(self.values)


class Deployment(msgspec.Struct, frozen=True, array_like=True, tag="deployment"):
    """Where a release stands on this device.

    Attributes:
        state: state of the deployment table.
        running: counter of the release that answers frames now.
        weights: hash of the weights payload that answers frames now ("" when none).
        reason: why it was rejected, failed or rolled back.
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
    start_s: float
    end_s: float
    coverage: Annotated[float, Meta(ge=0, le=1)]
    values: Values

    def __post_init__(self) -> None:
        _check_finite(self.values)


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
    """

    task: Name
    label_space: Name
    number: Count
    release: Count
    proxy: BlobRef
    deadline_s: float
    open: bool


class SignedManifest(msgspec.Struct, frozen=True, array_like=True, tag="release"):
    """A release manifest and its signature (Ed25519, RFC 8032) over exactly these bytes."""

    manifest: Annotated[bytes, Meta(max_length=256 * 1024)]
    key_id: Name
    signature: Annotated[bytes, Meta(min_length=64, max_length=64)]


class Presence(msgspec.Struct, frozen=True, array_like=True, tag="presence"):
    """Retained, and the last will: whether this boot of the device is connected."""

    online: bool


Up: TypeAlias = Birth | DeviceState | KnowledgeReport | Telemetry | Deployment | Need | IntervalResult
Down: TypeAlias = Ack | Rebirth | Label
All: TypeAlias = RoundCall | SignedManifest | Presence
Body: TypeAlias = (
    Birth
    | DeviceState
    | KnowledgeReport
    | Telemetry
    | Deployment
    | Need
    | IntervalResult
    | Ack
    | Rebirth
    | Label
    | RoundCall
    | SignedManifest
    | Presence
)
Kind = Literal[
    "birth",
    "state",
    "knowledge",
    "telemetry",
    "deployment",
    "need",
    "result",
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


def _check_finite(values: dict[str, float]) -> None:
    for name, value in values.items():
        if not isfinite(value):
            raise LocalProtocolError("not-finite", f"{name!r} is {value}; leave out what was not measured")


def _check_votes(array: Array, dtype: str, dimensions: int) -> int:
    if array.dtype != dtype or len(array.shape) != dimensions:
        raise LocalProtocolError(
            "wrong-shape", f"votes must be {dtype} of {dimensions} dimensions, not {array.dtype}{list(array.shape)}"
        )
    if array.shape[0] > MAX_SAMPLES:
        raise LocalProtocolError("oversized", f"{array.shape[0]} votes exceed {MAX_SAMPLES}")
    return array.shape[0]
