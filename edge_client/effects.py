"""What the device's brain wants done, and what it is told in return; owns no doing.

Effects go from `core` to the shell, events come back. The server knows `Send` and `Drop` too (`edge_protocol.effects`).
"""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from edge_client.offers import Installed, InstallFailed, Offered, Unproven
from edge_client.plan_effects import BuildPlan, Exchange, Planned
from edge_protocol.blobs import BlobRef
from edge_protocol.effects import Drop, Send
from edge_protocol.manifest import Artifact
from edge_protocol.messages import Call, Envelope, FullReport, Label
from edge_protocol.trust import Proof


class Fetch(msgspec.Struct, frozen=True):
    """Get a blob onto the disk; answered by `Fetched` or `FetchFailed`, at once when it is there already."""

    ref: BlobRef


class Patch(msgspec.Struct, frozen=True):
    """Make a weights payload from the running one and a fetched delta; answered by `Fetched` or `PatchFailed`.

    Attributes:
        base: hash of the payload to begin with.
        delta: hash of the delta.
        ref: what must come out.
    """

    base: str
    delta: str
    ref: BlobRef


class Abandon(msgspec.Struct, frozen=True):
    """Stop fetching a blob and free what was staged of it."""

    sha256: str


class Check(msgspec.Struct, frozen=True):
    """Load a fetched release beside the running one, compare golden outputs; answered by `Checked` or `CheckFailed`."""

    release: int
    artifact: Artifact


class Train(msgspec.Struct, frozen=True):
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
    call: Call | None


class Stop(msgspec.Struct, frozen=True):
    """End a training job; it is not answered any more."""

    job: int


class Probe(msgspec.Struct, frozen=True):
    """Run the checked candidate beside the running release; answered by `Passed` or `Failed`."""

    release: int


class Install(msgspec.Struct, frozen=True):
    """Write the pointer, swap the candidate in, free what nothing names; answered by `Installed` or `InstallFailed`."""

    release: int
    manifest: bytes
    proof: Proof


class Discard(msgspec.Struct, frozen=True):
    """Let the candidate go, and its files unless they are kept to try again; the running release is untouched."""

    release: int
    keep_files: bool = False


class Adopt(msgspec.Struct, frozen=True):
    """Serve the personal head that a round's job has fitted on the running trunk."""

    job: int


class Forget(msgspec.Struct, frozen=True):
    """The server has stored a message: clear it from the outbox; answered by `Delivered`."""

    message_id: bytes
    accepted: bool
    reason: str


class Remember(msgspec.Struct, frozen=True):
    """An operator named a sample: keep it as a labelled one."""

    label: Label


class ReportState(msgspec.Struct, frozen=True):
    """Measure, and publish a `DeviceState`."""

    session: str
    release: int


class MeasureLatency(msgspec.Struct, frozen=True):
    """Measure the serving student beside the frames, and answer; `asked` is the id of the message that wants it."""

    asked: bytes
    seconds: float


Effect: TypeAlias = (
    Send
    | Drop
    | Fetch
    | Patch
    | Abandon
    | Check
    | Train
    | Stop
    | BuildPlan
    | Exchange
    | Probe
    | Install
    | Discard
    | Adopt
    | Forget
    | Remember
    | ReportState
    | MeasureLatency
)


class Linked(msgspec.Struct, frozen=True):
    """The broker can be reached; subscriptions stand."""


class Unlinked(msgspec.Struct, frozen=True):
    """The broker cannot be reached; the transport goes on trying."""


class Fetched(msgspec.Struct, frozen=True):
    """A blob is on the disk, whole and checked."""

    sha256: str


class FetchFailed(msgspec.Struct, frozen=True):
    """A blob could not be stored; `disk` when it was the disk that refused."""

    sha256: str
    reason: str
    disk: bool


class FetchHeld(msgspec.Struct, frozen=True):
    """Fetching waits for an hour or another link, and why; "" when it goes on."""

    reason: str


class PatchFailed(msgspec.Struct, frozen=True):
    """No payload of this hash came out of a delta: its base is damaged or another one, or the delta is."""

    sha256: str
    reason: str


class Checked(msgspec.Struct, frozen=True):
    """The candidate is loaded and answers its golden inputs as it must."""

    release: int


class CheckFailed(msgspec.Struct, frozen=True):
    """The candidate cannot be loaded, or answers its golden inputs otherwise; `disk` when the disk refused."""

    release: int
    reason: str
    disk: bool = False


class Trained(msgspec.Struct, frozen=True):
    """A job ended well; `report` when it answered a round.

    Attributes:
        spent: the privacy budget allows no further report; without a report, it did not allow this one.
    """

    job: int
    report: FullReport | None
    spent: bool = False


class TrainFailed(msgspec.Struct, frozen=True):
    """A job crashed, ran out of memory or time, or had nothing to read."""

    job: int
    reason: str


class Passed(msgspec.Struct, frozen=True):
    """The candidate stood its probation."""

    release: int


class Failed(msgspec.Struct, frozen=True):
    """The candidate did not stand its probation."""

    release: int
    reason: str


class Delivered(msgspec.Struct, frozen=True):
    """The outbox held an acknowledged message, of this round when it was a report."""

    round: int | None


class Drifted(msgspec.Struct, frozen=True):
    """What the device sees at an hour of the day (UTC), under a condition, is no longer what its head was fitted on."""

    hour: int
    condition: str


class Stopping(msgspec.Struct, frozen=True):
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
    | Planned
    | Passed
    | Failed
    | Installed
    | InstallFailed
    | Delivered
    | Drifted
    | Offered
    | Unproven
    | Stopping
)
