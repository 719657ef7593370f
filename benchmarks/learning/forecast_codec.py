"""What a forecaster's report costs on the wire, and what its steps cost the teacher: eight devices through the product.

The fleet is that of `shared_trunks`, without trunks (METR-LA, one week). After each round the answers that devices
worked out are fused a second time as they would be in half precision, and both teachers are judged on the proxies.
"""

from __future__ import annotations

import lzma
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from safetensors.numpy import load_file

from benchmarks.harness import Options, Outcome, Own, Target, run, spread
from benchmarks.learning.shared_trunks import FLEET, QUICK, SPEC, Budget, Fleet, sensors
from broker_server.bench import Bench, open_bench
from broker_server.distiller import inputs_of
from broker_server.hearing import hear
from broker_server.strategies import Strategy, make_strategy
from edge_models.samples import F4
from edge_models.tasks import plugin_of
from edge_protocol.arrays import pack
from edge_protocol.codec import encode
from edge_protocol.ids import DeviceId
from edge_protocol.messages import CodedReport, Header
from edge_protocol.vote_codec import encode_votes
from edge_protocol.votes import ForecastVotes, forecast_votes

PERCENT = 0.5
"""Most of its error that steps may add to the teacher: the half point that classes get."""
TOLD, HALF, LZMA = "steps, range coder, whole message", "half precision", "half precision, LZMA"


class Ledger:
    """Books every round: bytes of each way to tell a forecast, and errors of both teachers."""

    def __init__(self) -> None:
        self.sizes: dict[str, dict[int, list[int]]] = {TOLD: {}, HALF: {}, LZMA: {}}
        self.errors: list[tuple[float, float]] = []
        self._last: dict[DeviceId, ForecastVotes] = {}

    def book(self, home: Path, number: int) -> int:
        """Take in the round that has just been distilled in a fleet's folder; return how many windows were asked."""
        bench = open_bench(home / "jobs" / f"{SPEC.name}-{number}")
        strategy = hear(bench, inputs_of(bench.asked.samples, SPEC)).strategy
        assert strategy is not None
        halves = make_strategy(strategy.settings, strategy.shared, strategy.anchors)
        for device in FLEET:
            halves.add(device, self.tell(device, number, load_file(home / "devices" / device / "votes.safetensors")))
        self.errors.append((teacher_error(strategy, bench), teacher_error(halves, bench)))
        return len(bench.asked.samples)

    def tell(self, device: DeviceId, number: int, exact: Mapping[str, F4]) -> ForecastVotes:
        """Book what a device worked out in a round, 1 or later, told each way; return it in half precision.

        Args:
            device: whose.
            number: of the round.
            exact: ``mean`` and ``spread`` (N, H), as the training job leaves them.
        """
        votes = forecast_votes(exact["mean"], exact["spread"])
        half = ForecastVotes(*(pack(exact[part].astype(np.float16)) for part in ("mean", "spread")))
        header = Header("roadside", device, bytes(16), bytes(8), number, 1.79e9, True)  # noqa: FBT003 - the wire's order
        coded = encode_votes(votes, self._last.get(device), number - 1)
        report = CodedReport(SPEC.name, SPEC.label_space, number, number, bytes(8), 500, coded)
        plain = half.mean.data + half.spread.data
        sizes = {TOLD: len(encode(header, report)), HALF: len(plain), LZMA: len(lzma.compress(plain, preset=9))}
        for way, size in sizes.items():
            self.sizes[way].setdefault(number, []).append(size)
        self._last[device] = votes
        return half

    def of(self, way: str, *, first: bool) -> float:
        """Mean bytes of a report told this way, in the first round or in later ones."""
        return float(np.mean([sizes for number, sizes in self.sizes[way].items() if (number == 1) == first]))


def teacher_error(strategy: Strategy, bench: Bench) -> float:
    """Mean absolute error of its teacher on the proxies, in mph."""
    rows, samples = bench.asked.proxies, bench.asked.samples
    teacher = strategy.teacher().take(rows)
    assert teacher.spread is not None
    said = np.hstack([teacher.value, np.log(teacher.spread)])
    plugin = plugin_of(SPEC)
    return plugin.score(SPEC, said, samples.targets[rows], samples.scale[rows])[plugin.headline]


def measured(options: Options, *, rounds: int) -> Outcome:
    """Bytes of a forecaster's report, and what its steps cost; forecasters of --quick know too little to judge."""
    torch.set_num_threads(1)
    budget = replace(QUICK, rounds=2) if options.quick else replace(Budget(), rounds=rounds)
    ledger, windows = Ledger(), 0
    with TemporaryDirectory(prefix="forecast-codec-") as home:
        fleet = Fleet(Path(home), sensors(), 0, budget, None)
        fleet.round(0)
        for number in range(1, budget.rounds + 1):
            fleet.round(number)
            windows = ledger.book(Path(home), number)
    horizons = len(SPEC.horizons)
    rows: list[list[object]] = [["way", "first report, bytes", "later", "bytes a window, later", "a number, later"]]
    found = {way: [ledger.of(way, first=first) for first in (True, False)] for way in ledger.sizes}
    for way, (first, later) in found.items():
        window = later / windows
        rows.append([way, f"{first:.0f}", f"{later:.0f}", f"{window:.2f}", f"{window / (2 * horizons):.2f}"])
    worse = [100 * (told / half - 1) for told, half in ledger.errors]
    figures = {"bytes": found, "errors": ledger.errors, "percent": worse, "windows": windows, "horizons": horizons}
    headline = (
        f"speed, {len(FLEET)} devices, {budget.rounds} rounds: {found[TOLD][1] / windows:.2f} bytes a window of "
        f"{horizons} horizons later, {found[HALF][1] / found[TOLD][1]:.1f} times less than half precision; "
        f"steps change the teacher's error by {spread(worse)} %"
    )
    targets = [] if options.quick else [Target("percent of its error that steps add", float(np.median(worse)), PERCENT)]
    return Outcome(headline, figures, targets, rows)


if __name__ == "__main__":
    raise SystemExit(run(measured, rounds=Own(Budget().rounds, "how many")))
