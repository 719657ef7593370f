"""What sharing trunks adds to rounds of speed forecasts, through the product's own code on devices and in the centre.

Eight devices of twelve sensors along a road each, four of tier `nano`, four of `small` (METR-LA, one week), dealt as in
the demo. Every round the devices run the training job that the agent starts, the reports go through the distiller as
the server starts it, and the judge decides. Both arms see the same data, seeds and rounds; the only difference is
``rounds.trunk``. Owns the loop; owns neither training nor rule.
"""

from __future__ import annotations

import shutil
from dataclasses import asdict, dataclass
from functools import partial
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

import msgspec
import numpy as np
import torch

from benchmarks.harness import Options, Outcome, Own, Target, run, spread
from benchmarks.learning.kept import CACHE, code_of, kept, mark_of
from broker_server import distil_worker, tier_training, trunks
from broker_server.distil_job import DistilJob, DistilResult, DistilSettings, TrunkSettings, write_job
from broker_server.judge import judge
from broker_server.proxy_set import build, load_samples, mingle
from broker_server.strategies import trunk_sharing
from devices.packs import SeriesPack, open_pack, save_pack
from devices.preprocess import PreprocessConfig
from edge_client import trainer, training_set, trunk, trunk_lesson
from edge_client.jobs import TrainJob, TrainResult
from edge_client.jobs import write_job as write_train_job
from edge_client.knowledge import read_report
from edge_client.labels import series_samples
from edge_client.replay import ReplayStore
from edge_models import local_training, trunk_changes
from edge_models.head_weights import HeadWeights
from edge_models.scales import Scale
from edge_models.tasks import load_task, plugin_of
from edge_protocol.blobs import cut
from edge_protocol.errors import DataError
from edge_protocol.ids import DeviceId
from edge_protocol.messages import KnowledgeReport, RoundCall
from edge_protocol.task import Tier
from roadcast.data.find import find_data_dir
from roadcast.demo.evaluate import Held, answer, held_out
from roadcast.demo.series_shares import SeriesSizes, share_series

SPEC: Final = load_task("speed")
PACK = "metrla_week_speed.npz"
SHARED: tuple[Tier, ...] = ("nano", "small")
FLEET: Final[dict[DeviceId, Tier]] = {DeviceId(f"road-{at}"): SHARED[at % 2] for at in range(8)}
ARMS: Final[dict[str, TrunkSettings | None]] = {"votes": None, "votes + trunks": TrunkSettings()}
_CODE = (
    *(distil_worker, tier_training, trunks, trunk_sharing),
    *(trainer, training_set, trunk, trunk_lesson, trunk_changes, local_training),
)


@dataclass(frozen=True)
class Budget:
    """How much is trained: rounds, samples of a device, steps of the distiller at first and in a round."""

    rounds: int = 4
    samples: int = 2000
    first_steps: int = 400
    steps: int = 150


LAST = 1000
"""Number of the round that personal heads are fitted for, after the last one that is distilled."""
QUICK = Budget(rounds=1, samples=200, first_steps=20, steps=8)


class Fleet:
    """One seed's centre and devices in a folder, going from round to round.

    Args:
        home: folder for everything.
        pack: all sensors.
        seed: of how they are dealt out, and of the training.
        budget: how much is trained.
        trunk: how trunks are shared; None for votes alone.
    """

    def __init__(self, home: Path, pack: SeriesPack, seed: int, budget: Budget, trunk: TrunkSettings | None) -> None:
        self.home, self.budget, self.trunk, self.seed = home, budget, trunk, seed
        shares = share_series(pack, list(FLEET), SeriesSizes(), np.random.default_rng(seed))
        for part in ("anchors", "proxies", "validation", "test", "past"):
            save_pack(home / f"{part}.npz", getattr(shares, part), title=part)
        for name, share in shares.devices.items():
            for part, own in (("history", share.history), ("test", share.test)):
                save_pack(home / f"{name}-{part}.npz", own, title=part)
            store = ReplayStore(home / f"{name}.db", 1 << 30)
            store.add(series_samples(share.history, SPEC, Scale.fit(share.history.values)))
            store.close()
        settings = DistilSettings(first_steps=budget.first_steps, steps=budget.steps, seed=seed)
        anchors, proxies, validation = (str(home / f"{part}.npz") for part in ("anchors", "proxies", "validation"))
        asked = mingle(*(load_samples(path, SPEC) for path in (proxies, anchors)), share=settings.trust_share, salt=b"")
        (home / "proxy").write_bytes(build(asked.samples))
        self._proxy = cut((home / "proxy").read_bytes())[0]
        self._job = DistilJob(
            task="speed",
            round=0,
            release=0,
            settings=settings,
            anchors=anchors,
            proxies=proxies,
            validation=validation,
            trunk=trunk,
        )
        self.release, self.refused, self.bytes = 0, 0, list[int]()

    def round(self, number: int) -> None:
        """Do a round: devices train and report, the centre distils, the judge decides."""
        reports = {name: self._report(name, tier, number) for name, tier in FLEET.items()} if number else {}
        folder = self.home / "jobs" / f"speed-{number}"
        current = str(self.home / str(self.release)) if self.release else None
        proxy = self._proxy.sha256 if number else ""
        job = msgspec.structs.replace(self._job, round=number, release=self.release, current=current, proxy=proxy)
        write_job(folder, job, reports)
        result = distil_worker.run_job(folder, lambda _: None)
        if refused := [why for why in {**result.devices, **result.trunks}.values() if why]:
            raise DataError(f"round {number}: {refused[0]}")
        self._decide(result, folder)

    def _decide(self, result: DistilResult, folder: Path) -> None:
        if not judge(result).accepted:
            self.refused += 1
            return
        self.release += 1
        place = self.home / str(self.release)
        place.mkdir()
        for tier in (*SHARED, "base"):
            for file in (folder / "candidate" / tier).glob("*.*"):
                kept_as = f"{tier}.{file.name}" if file.name != "state.safetensors" else f"{tier}.safetensors"
                shutil.copy(file, place / kept_as)

    def job(self, name: DeviceId, tier: Tier, number: int) -> TrainJob:
        """The job that the agent starts for a round."""
        place = self.home / str(self.release)
        return TrainJob(
            spec=SPEC,
            preprocess=PreprocessConfig(),
            template=str(place / f"{tier}.template.onnx"),
            weights=str(place / f"{tier}.weights.safetensors"),
            replay=str(self.home / f"{name}.db"),
            proxy=str(self.home / "proxy"),
            epochs=30,
            max_samples=self.budget.samples,
            nice=0,
            memory_mb=4096,
            seed=number,
            tier=tier,
            trunk=self.trunk.ask if self.trunk else None,
        )

    def train(self, name: DeviceId, job: TrainJob) -> tuple[Path, TrainResult]:
        """Run a job of a device; return its folder and what came of it."""
        folder = self.home / "devices" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        write_train_job(folder, job)
        return folder, trainer.run_job(folder)

    def _report(self, name: DeviceId, tier: Tier, number: int) -> KnowledgeReport:
        """Run a round's job, and read the report from its folder."""
        folder, result = self.train(name, self.job(name, tier, number))
        if result.no_trunk:
            raise DataError(f"{name}: {result.no_trunk}")
        call = RoundCall("speed", SPEC.label_space, number, self.release, self._proxy, 4e9, open=True)
        report = read_report(folder, result, spec=SPEC, call=call, release=self.release)
        if report.trunk is not None:
            self.bytes.append(len(report.trunk.data))
        return report

    def scores(self) -> dict[str, Any]:
        """Errors in mph: of each tier's shared student on sensors that nobody has, of each device on its own."""
        unseen = held_out(SPEC, self.home / "test.npz", self.home / "past.npz")
        found: dict[str, Any] = {tier: self.errors(tier, unseen, None) for tier in SHARED}
        for name, tier in FLEET.items():
            self._report(name, tier, LAST)
            head = (self.home / "devices" / name / "personal.safetensors").read_bytes()
            found[name] = self.errors(tier, self.own_test(name), HeadWeights.from_bytes(head))
        return found

    def own_test(self, name: DeviceId) -> Held:
        """What comes after a device's own history."""
        return held_out(SPEC, self.home / f"{name}-test.npz", self.home / f"{name}-history.npz")

    def errors(self, tier: Tier, held: Held, head: HeadWeights | None) -> list[float]:
        """Errors in mph of a head, None for the shared one: overall, then of each horizon in order of its key."""
        place = self.home / str(self.release)
        template, weights = (place / f"{tier}.{file}" for file in ("template.onnx", "weights.safetensors"))
        said = answer(template.read_bytes(), weights.read_bytes(), held.inputs)
        logits = said.logits if head is None else head.answer(said.features, held.samples)
        table = plugin_of(SPEC).score(SPEC, logits, held.samples.targets, held.samples.scale)
        return [table["mae"], *(table[name] for name in sorted(table) if name.startswith("mae_") and "min" in name)]


def rounds_of(arm: str, pack: SeriesPack, seed: int, budget: Budget) -> dict[str, Any]:
    """One arm of one seed, from the first release to the last round, and its errors before and after."""
    with TemporaryDirectory(prefix="shared-trunks-") as home:
        fleet = Fleet(Path(home), pack, seed, budget, ARMS[arm])
        fleet.round(0)
        found = {"before": fleet.scores()}
        for number in range(1, budget.rounds + 1):
            fleet.round(number)
        return found | {"after": fleet.scores(), "refused": fleet.refused, "bytes": fleet.bytes}


def sensors() -> SeriesPack:
    """The week of real sensors that is dealt out."""
    folder = find_data_dir().path
    if folder is None or not (folder / PACK).exists():
        raise DataError(f"this benchmark needs {PACK}; name its folder in $ROADCAST_DATA")
    pack = open_pack(folder / PACK)
    if not isinstance(pack, SeriesPack):
        raise DataError(f"{PACK} holds images; this benchmark needs a series")
    return pack


def measured(options: Options, *, cache: Path, seeds: int) -> Outcome:
    """Compare both arms; ``--quick`` does one short round of one seed and judges nothing."""
    torch.set_num_threads(1)
    pack = sensors()
    budget, seeds = (QUICK, 1) if options.quick else (Budget(), seeds)
    parts = (asdict(budget), sha256(pack.values.tobytes()).hexdigest(), code_of(_CODE))
    marks = {arm: f"trunks-{mark_of(*parts, repr(trunk))}" for arm, trunk in ARMS.items()}
    runs = {
        arm: [kept(cache, f"{mark}-s{at}", partial(rounds_of, arm, pack, at, budget)) for at in range(seeds)]
        for arm, mark in marks.items()
    }
    return outcome_of(runs, judge=not options.quick)


def outcome_of(runs: dict[str, list[dict[str, Any]]], *, judge: bool) -> Outcome:
    """Means over seeds, devices and tiers; the ratio is taken seed by seed."""
    means = {
        (arm, when, what): np.array([[np.mean([seed["made"][when][name][0] for name in names])] for seed in found])[
            :, 0
        ]
        for arm, found in runs.items()
        for when in ("before", "after")
        for what, names in (("unseen", SHARED), ("own", tuple(FLEET)))
    }
    plain, ours = ARMS
    ratio = {what: means[ours, "after", what] / means[plain, "after", what] for what in ("unseen", "own")}
    sizes = [size for seed in runs[ours] for size in seed["made"]["bytes"]]
    targets = [Target(f"error of {ours} / {plain}, {what}", float(each.max()), 1.0) for what, each in ratio.items()]
    targets.append(Target("bytes of the largest change", float(max(sizes)), 128 * 1024))
    rows: list[list[object]] = [["arm", "sensors that nobody has", "a device's own", "rounds refused"]]
    for arm, found in runs.items():
        shown = [
            f"{means[arm, 'before', w].mean():.3f} → {means[arm, 'after', w].mean():.3f}" for w in ("unseen", "own")
        ]
        rows.append([arm, *shown, sum(seed["made"]["refused"] for seed in found)])
    figures = {
        "mae": {"/".join(key): value.tolist() for key, value in means.items()},
        "ratio": {what: each.tolist() for what, each in ratio.items()},
        "bytes": spread([float(size) for size in sizes]),
        "cpu_s": {arm: [seed["cpu_s"] for seed in found] for arm, found in runs.items()},
        "runs": runs,
    }
    told = "; ".join(f"{what} {' / '.join(f'{value:.3f}' for value in each)}" for what, each in ratio.items())
    return Outcome(
        f"speed: error with shared trunks over without, by seed: {told}", figures, targets if judge else (), rows
    )


if __name__ == "__main__":
    raise SystemExit(run(measured, seeds=Own(3, "how many"), cache=CACHE))
