"""Carries the brain's effects out on the device's parts; owns which files are needed and what serves, no decision."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from typing import TypeAlias

from typing_extensions import assert_never

from edge_client import effects as e
from edge_client.candidate import Candidate
from edge_client.fetcher import Outcome
from edge_client.gate import Admission
from edge_client.hands import Hands, state_of
from edge_client.installed import HeadChoice
from edge_client.latency_probe import LatencyProbe
from edge_client.lessons import Fitted
from edge_client.notify import notify
from edge_client.offers import Installed, InstallFailed, hashes_of
from edge_client.pipelines import Bundle
from edge_client.plan_effects import BuildPlan, Exchange
from edge_protocol.delta import apply_delta
from edge_protocol.effects import Drop, Send
from edge_protocol.errors import DigestError, RoadcastError, StoreError
from edge_protocol.manifest import Artifact
from edge_protocol.messages import Label, Measured, ReleaseOffer
from edge_protocol.topics import ChunkTopic, MetadataTopic, ReleaseTopic
from edge_protocol.vote_codec import UNKNOWN_BASE

LOG = logging.getLogger(__name__)
Feed: TypeAlias = Callable[[e.Event, float], None]
_MAX_DROP_KEYS = 200


class Carry:
    """Does what the brain wants done; used by the pump alone.

    Args:
        hands: the parts.

    Attributes:
        serving: files of the release that answers frames.
    """

    def __init__(self, hands: Hands) -> None:
        self._hands = hands
        self._choice: HeadChoice | None = None
        self._wanted: set[str] = set()
        self.serving: Artifact | None = None
        self._latency = LatencyProbe(hands.spec, hands.inference, hands.config.threads)

    def perform(self, effects: Iterable[e.Effect], now: float, feed: Feed) -> None:
        """Carry effects out in order; what comes of one at once is fed back before the next."""
        for effect in effects:
            for event in self._do(effect, now):
                feed(event, now)

    def outcomes(self, outcomes: Iterable[Outcome], now: float) -> list[e.Event]:
        """Sort what the fetcher says: events for the brain, the rest is done here."""
        events: list[e.Event] = []
        for outcome in outcomes:
            if isinstance(outcome, e.Fetched | e.FetchFailed | e.FetchHeld):
                events.append(outcome)
            else:
                events += self._do(outcome, now)
        return events

    def chunk(self, topic: ChunkTopic, payload: bytes, now: float) -> list[e.Event]:
        """Give the fetcher a chunk."""
        return self.outcomes(self._hands.fetcher.chunk(topic, payload, now), now)

    def metadata(self, topic: MetadataTopic, payload: bytes, now: float) -> list[e.Event]:
        """Give the gate signed metadata."""
        return self._admitted(self._hands.gate.metadata(topic.name, payload, now))

    def offered(self, topic: ReleaseTopic, offer: ReleaseOffer, now: float) -> list[e.Event]:
        """Give the gate a release that this device is to run."""
        return self._admitted(self._hands.gate.offer(topic, offer.manifest, now))

    def poll(self, now: float) -> list[e.Event]:
        """Say what has come of fetching and training by `now` (s)."""
        hands = self._hands
        self._tell(self._latency.poll(now, busy=hands.busy), now)
        fetched, admitted = self.outcomes(hands.fetcher.tick(now), now), self._admitted(hands.gate.tick(now))
        return [*fetched, *admitted, *hands.lessons.poll(now), *hands.drift.poll(now)]

    def relink(self) -> None:
        """The link is new: what was asked for and what was not acknowledged is due again."""
        notify("STATUS=linked to the broker")
        self._hands.fetcher.relink()
        self._hands.outbox.relink()

    def deadlines(self) -> list[float]:
        """Times at which something is due (s)."""
        hands = self._hands
        resend = hands.outbox.next_deadline() if hands.transport.connected else None
        return [at for at in (hands.fetcher.next_deadline(), resend) if at is not None]

    def drop(self, reason: str, detail: str) -> None:
        """Count something that was refused; the number of reasons is bounded."""
        drops = self._hands.drops
        drops[reason if reason in drops or len(drops) < _MAX_DROP_KEYS else "other"] += 1
        LOG.warning("dropped (%s): %s", reason, detail)

    def serve(self, candidate: Candidate, fitted: Fitted | None) -> None:
        """Answer frames with a loaded release from the next one on; `fitted` is this device's head for it."""
        personal = fitted.head if fitted is not None and fitted.choice.chosen == "personal" else None
        self._choice = fitted.choice if fitted is not None else None
        self.serving = candidate.artifact
        self._hands.drift.serving(candidate.release)
        self._hands.installer.serves(candidate)
        self._hands.inference.swap(Bundle(candidate.release, candidate.runner, personal))

    def remember(self, label: Label) -> None:
        """Keep a sample that somebody named."""
        hands = self._hands
        if label.label not in hands.spec.labels:
            self.drop("unknown-label", f"{label.label!r} is not a class of {hands.spec.name!r}")
            return
        target = hands.spec.labels.index(label.label)
        if not hands.seen.labelled(label.sample, target) and not hands.replay.relabel(label.sample, target):
            self.drop("unknown-sample", f"sample {label.sample!r} is not remembered any more")

    def keep_samples(self) -> None:
        """Move what was seen to the replay store; a full disk costs samples, which are counted."""
        self._hands.replay.add(self._hands.seen.drain())

    def close(self) -> None:
        """End training, and close every file."""
        hands = self._hands
        self._latency.stop()
        hands.lessons.close()
        hands.installer.stop()
        hands.drift.save()
        self.keep_samples()
        hands.fetcher.close()
        hands.replay.close()
        hands.outbox.close()

    def _admitted(self, outcomes: Iterable[Admission]) -> list[e.Event]:
        """Sort what the gate says: events for the brain, what was refused is counted."""
        events: list[e.Event] = []
        for outcome in outcomes:
            if isinstance(outcome, Drop):
                self.drop(outcome.reason, outcome.detail)
            else:
                events.append(outcome)
        return events

    def _do(self, effect: e.Effect, now: float) -> list[e.Event]:  # noqa: C901, PLR0911, PLR0912 - one case per effect
        hands = self._hands
        match effect:
            case Send():
                hands.uplink.send(effect, now)
            case Drop():
                self.drop(effect.reason, effect.detail)
            case e.Fetch():
                self._wanted.add(effect.ref.sha256)
                return self.outcomes(hands.fetcher.fetch(effect.ref, now), now)
            case e.Patch():
                return [self._patch(effect)]
            case e.Abandon():
                self._wanted.discard(effect.sha256)
                hands.fetcher.abandon(effect.sha256)
            case e.Check():
                return self._check(effect)
            case BuildPlan() | e.Probe():
                hands.installer.ask(effect)
            case Exchange():
                self._exchange(effect.release)
            case e.Train():
                self.keep_samples()
                return [*hands.lessons.start(effect, now)]
            case e.Stop():
                hands.lessons.stop(effect.job)
            case e.Install():
                return [self._install(effect)]
            case e.Discard():
                self._discard(effect)
            case e.Adopt():
                self._adopt()
            case e.Forget():
                return self._forget(effect, now)
            case e.Remember():
                self.remember(effect.label)
            case e.ReportState():
                hands.uplink.send(Send(state_of(self._hands, effect, self._choice, now)), now)
            case e.MeasureLatency():
                self._tell(self._latency.start(effect, now, busy=hands.busy), now)
            case _:
                assert_never(effect)
        return []

    def _tell(self, measured: Measured | None, now: float) -> None:
        if measured is not None:
            self._hands.uplink.send(Send(measured, durable=True), now)

    def _patch(self, effect: e.Patch) -> e.Event:
        """Make a payload from a base and a delta; it gets its name only when its hash is right."""
        fetcher, wanted = self._hands.fetcher, effect.ref.sha256
        self._wanted.discard(effect.delta)
        self._wanted.add(wanted)
        try:
            made = apply_delta(fetcher.path(effect.base).read_bytes(), fetcher.path(effect.delta).read_bytes())
            if sha256(made).hexdigest() != wanted:
                raise DigestError("delta: other weights came out; its base is damaged, or not the one it was made for")
            fetcher.put(wanted, made)
        except (RoadcastError, OSError) as error:
            fetcher.drop(effect.delta)  # the whole payload comes next, and a full disk needs the room
            return e.PatchFailed(wanted, str(error))
        return e.Fetched(wanted)

    def _check(self, effect: e.Check) -> list[e.Event]:
        try:
            self._hands.installed.begin_attempt(effect.release)
        except StoreError as error:
            return [e.CheckFailed(effect.release, str(error), disk=True)]
        self._hands.installer.ask(effect)
        return []

    def _install(self, effect: e.Install) -> e.Event:
        """The pointer is written before the swap: what serves and what the disk says are never two releases."""
        hands, release = self._hands, effect.release
        candidate = hands.installer.candidate
        assert candidate is not None
        fitted, bundle = hands.lessons.refitted(release), hands.inference.bundle
        try:
            if fitted is not None:
                hands.installed.save_head(release, fitted.head, fitted.choice)
            hands.installed.end_attempts()
            running = bundle.release if bundle else 0
            hands.installed.commit(release, candidate.artifact, effect.manifest, effect.proof, running=running)
        except StoreError as error:
            self.drop("pointer-failed", str(error))
            return InstallFailed(release, str(error))
        with suppress(StoreError):  # the next boot raises it
            hands.trust.raise_floor(release)
        hands.installer.take(release)
        self.serve(candidate, fitted)
        hands.fetcher.collect(hands.installed.named_blobs() | hashes_of(candidate.artifact) | self._wanted)
        self._wanted.clear()
        return Installed(release)

    def _exchange(self, release: int) -> None:
        """The same release with the same head, answered by its plan from the next frame on."""
        hands = self._hands
        bundle, renewed = hands.inference.bundle, hands.installer.exchange(release)
        if bundle is not None and renewed is not None and bundle.release == release:
            hands.installer.serves(renewed)
            hands.inference.swap(Bundle(release, renewed.runner, bundle.head))

    def _discard(self, effect: e.Discard) -> None:
        hands = self._hands
        with suppress(StoreError):  # one attempt too many is counted
            hands.installed.end_attempt(effect.release)
        candidate = hands.installer.take(effect.release)
        if candidate is not None:
            candidate.runner.close()
        if not effect.keep_files:
            serving = hashes_of(self.serving) if self.serving else set()
            hands.fetcher.collect(hands.installed.named_blobs() | serving | self._wanted)

    def _adopt(self) -> None:
        hands = self._hands
        bundle = hands.inference.bundle
        fitted = hands.lessons.refitted(bundle.release) if bundle else None
        if bundle is None or fitted is None:
            return
        try:
            hands.installed.save_head(fitted.release, fitted.head, fitted.choice)
        except StoreError as error:
            self.drop("head-failed", str(error))
        self._choice = fitted.choice
        personal = fitted.head if fitted.choice.chosen == "personal" else None
        hands.inference.swap(Bundle(bundle.release, bundle.runner, personal))

    def _forget(self, effect: e.Forget, now: float) -> list[e.Event]:
        hands, message = self._hands, effect.message_id
        try:
            if effect.accepted:
                hands.outbox.votes.accepted(message)
            elif effect.reason == UNKNOWN_BASE and (report := hands.outbox.votes.unknown(message)):
                self.drop(UNKNOWN_BASE, f"the report of round {report.round} is told again in full")
                hands.uplink.send(Send(report, durable=True), now)  # takes the refused one's place in the outbox
                return []
            known, number = hands.outbox.clear(message)
        except StoreError as error:
            self.drop("outbox-failed", str(error))
            return []
        if known and not effect.accepted:
            self.drop(f"refused-{effect.reason}"[:64], f"the server refused a message: {effect.reason}")
        return [e.Delivered(number)] if known else []
