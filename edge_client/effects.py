"""What the device's brain wants done, and what it is told in return; owns no doing.

Effects go from `core` to the shell, events come back. The server knows `Send` and `Drop` too (`edge_protocol.effects`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from edge_protocol.blobs import BlobRef
from edge_protocol.effects import Drop, Send
from edge_protocol.manifest import Artifact
from edge_protocol.messages import Envelope, KnowledgeReport, Label, RoundCall, SignedManifest


@dataclass(frozen=True, slots=True)
class Fetch:
    """Get a blob onto the disk; answered by `Fetched` or `FetchFailed`, at once when it is there already."""

    ref: BlobRef


@dataclass(frozen=True, slots=True)
class Patch:
    """Make a weights payload from the running one and a fetched delta; answered by `Fetched` or `PatchFailed`.

    Attributes:
        base: hash of the payload to begin with.
        delta: hash of the delta.
        ref: what must come out.
    """

    base: str
    delta: str
    ref: BlobRef


@dataclass(frozen=True, slots=True)
class Abandon:
    """Stop fetching a blob and free what was staged of it."""

    sha256: str


@dataclass(frozen=True, slots=True)
class Check:
    """Load a fetched release beside the running one, compare golden outputs; answered by `Checked` or `CheckFailed`."""

    release: int
    artifact: Artifact


@dataclass(frozen=True, slots=True)
class Train:
    """Run a training job in a subprocess; answered by `Trained` or `TrainFailed`.

    Attributes:
        job: names the job in the answer.
        release: whose trunk to train on.
        artifact: its files, when it is the candidate; None for the release that is running.
        call: the round to answer; None to refit the personal head only.
    """

    job: int
    release: int
    artifact: Artifact | None
    call: RoundCall | None


@dataclass(frozen=True, slots=True)
class Stop:
    """End a training job; it is not answered any more."""

    job: int


@dataclass(frozen=True, slots=True)
class Probe:
    """Run the checked candidate beside the running release; answered by `Passed` or `Failed`."""

    release: int


@dataclass(frozen=True, slots=True)
class Install:
    """Write the pointer down, swap the candidate in, and free what nothing names any more."""

    release: int
    signed: SignedManifest


@dataclass(frozen=True, slots=True)
class Discard:
    """Let the candidate go; the running release is untouched."""

    release: int


@dataclass(frozen=True, slots=True)
class Adopt:
    """Serve the personal head that a round's job has fitted on the running trunk."""

    job: int


@dataclass(frozen=True, slots=True)
class Forget:
    """The server has stored a message: clear it from the outbox; answered by `Delivered`."""

    message_id: bytes
    accepted: bool
    reason: str


@dataclass(frozen=True, slots=True)
class Remember:
    """An operator named a sample: keep it as a labelled one."""

    label: Label


@dataclass(frozen=True, slots=True)
class ReportState:
    """Measure, and publish a `DeviceState`."""

    session: str
    release: int


Effect: TypeAlias = (
    Send
    | Drop
    | Fetch
    | Patch
    | Abandon
    | Check
    | Train
    | Stop
    | Probe
    | Install
    | Discard
    | Adopt
    | Forget
    | Remember
    | ReportState
)


@dataclass(frozen=True, slots=True)
class Linked:
    """The broker can be reached; subscriptions stand."""


@dataclass(frozen=True, slots=True)
class Unlinked:
    """The broker cannot be reached; the transport goes on trying."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A blob is on the disk, whole and checked."""

    sha256: str


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """A blob could not be stored; `disk` when it was the disk that refused."""

    sha256: str
    reason: str
    disk: bool


@dataclass(frozen=True, slots=True)
class FetchHeld:
    """Fetching waits for an hour or another link, and why; "" when it goes on."""

    reason: str


@dataclass(frozen=True, slots=True)
class PatchFailed:
    """No payload of this hash came out of a delta: its base is damaged or another one, or the delta is."""

    sha256: str
    reason: str


@dataclass(frozen=True, slots=True)
class Checked:
    """The candidate is loaded and answers its golden inputs as it must."""

    release: int


@dataclass(frozen=True, slots=True)
class CheckFailed:
    """The candidate cannot be loaded, or answers its golden inputs otherwise."""

    release: int
    reason: str


@dataclass(frozen=True, slots=True)
class Trained:
    """A job ended well; `report` when it answered a round.

    Attributes:
        spent: the privacy budget allows no further report; without a report, it did not allow this one.
    """

    job: int
    report: KnowledgeReport | None
    spent: bool = False


@dataclass(frozen=True, slots=True)
class TrainFailed:
    """A job crashed, ran out of memory or time, or had nothing to read."""

    job: int
    reason: str


@dataclass(frozen=True, slots=True)
class Passed:
    """The candidate stood its probation."""

    release: int


@dataclass(frozen=True, slots=True)
class Failed:
    """The candidate did not stand its probation."""

    release: int
    reason: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The outbox held an acknowledged message, of this round when it was a report."""

    round: int | None


@dataclass(frozen=True, slots=True)
class Drifted:
    """What the device sees at an hour of the day (UTC), under a condition, is no longer what its head was fitted on."""

    hour: int
    condition: str


@dataclass(frozen=True, slots=True)
class Stopping:
    """The agent is about to end."""


Event: TypeAlias = (
    Envelope
    | Linked
    | Unlinked
    | Fetched
    | FetchFailed
    | FetchHeld
    | PatchFailed
    | Checked
    | CheckFailed
    | Trained
    | TrainFailed
    | Passed
    | Failed
    | Delivered
    | Drifted
    | Stopping
)
