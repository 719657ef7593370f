"""The device's parts that effects are carried out on, and what they have counted; owns neither decision nor effect."""

from __future__ import annotations

from collections import Counter

import msgspec

from edge_client.account import Account
from edge_client.config import DeviceConfig
from edge_client.drift_watch import DriftWatch
from edge_client.effects import ReportState
from edge_client.fetcher import Fetcher
from edge_client.gate import Gate
from edge_client.inference import Inference
from edge_client.installed import HeadChoice, InstalledStore
from edge_client.installer import Installer
from edge_client.lessons import Lessons
from edge_client.outbox import Outbox
from edge_client.replay import ReplayStore
from edge_client.seen import Seen
from edge_client.trust_store import TrustStore
from edge_client.uplink import Uplink
from edge_models.tasks import plugin_of
from edge_protocol.messages import DeviceState
from edge_protocol.task import TaskSpec
from edge_protocol.transport.base import Transport


class Hands(msgspec.Struct, frozen=True, kw_only=True, eq=False):
    """The parts that effects are carried out on."""

    config: DeviceConfig
    spec: TaskSpec
    outbox: Outbox
    replay: ReplayStore
    seen: Seen
    drift: DriftWatch
    fetcher: Fetcher
    inference: Inference
    installer: Installer
    installed: InstalledStore
    trust: TrustStore
    gate: Gate
    lessons: Lessons
    account: Account
    transport: Transport
    uplink: Uplink
    drops: Counter[str]

    @property
    def busy(self) -> str:
        """What the device does beside its frames that takes processor or GPU; "" for nothing."""
        if self.lessons.busy:
            return "trains"
        if self.installer.candidate is not None:
            return "installs a release"
        return "builds a plan" if self.installer.planner.values() else ""


def state_of(hands: Hands, asked: ReportState, choice: HeadChoice | None, now: float) -> DeviceState:
    """What the device says of itself at `now` (s): counts since the start, figures; no single samples under privacy."""
    counted = hands.inference.counters
    counts = {
        "frames": counted.frames,
        "answered": counted.answered,
        "swap_skipped": counted.swap_skipped,
        "queue_dropped": counted.queue_dropped,
        "missing": counted.missing,
        "train_pauses": hands.lessons.pauses,
        **({} if hands.account.on else {"replay_samples": len(hands.replay), "drift_alarms": hands.drift.total}),
        "bytes_up": hands.transport.traffic.bytes_up,
        "bytes_down": hands.transport.traffic.bytes_down,
        **hands.fetcher.counts(now),
        "raw_bytes": hands.uplink.raw_bytes,
        **hands.installer.planner.counts,
        **{f"bytes:{kind}": count for kind, count in hands.uplink.sent.items()},
        "drop:frame-failed": counted.failed,
        "drop:source-failed": counted.source_failures,
        "drop:replay-full": hands.replay.dropped,
        "drop:replay-overrun": hands.seen.overrun,
        **{f"drop:{reason}"[:64]: count for reason, count in hands.drops.items()},
    }
    values = hands.inference.latency_ms() | hands.account.values() | hands.installer.planner.values()
    if hands.installer.planner.wanted and (bundle := hands.inference.bundle):
        values["on_tensorrt"] = float(bundle.runner.provider.startswith("TensorRT"))
    if hands.lessons.cost and not hands.account.on:
        values |= hands.lessons.cost.values()
    headline = plugin_of(hands.spec).headline
    scored = choice is not None and not hands.account.on  # scores depend on single samples, without noise
    for which in ("shared", "personal") if scored else ():
        score = getattr(choice, which).get(headline)
        if score is not None:
            values[f"{which}_{headline}"] = score
    shown = {name: count for name, count in counts.items() if count or not name.startswith("drop:")}
    return DeviceState(hands.spec.name, asked.session, asked.release, shown, values)
