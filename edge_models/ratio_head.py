"""The head that answers a round of a classifier: how much likelier is a proxy among my own samples of a class?

Owns the fit; owns no trunk, no vote. A device that holds one class has nothing to tell apart, and one that holds three
of six answers nonsense about the others. So it tells its own samples from the proxies: with q_c the share of class c
among its own, exp(logit_c - logit_background) / q_c estimates p(x | c, device) / p(x | proxies), a density ratio
(Sugiyama, Suzuki & Kanamori 2012; Gutmann & Hyvärinen 2010), which the server can add up over devices. Cross-fitted: a
proxy is answered by a head that did not see it as background (Chernozhukov et al. 2018).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from edge_models.head_fits import Tick, no_tick

F4 = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class RatioSettings:
    """How the head is fitted.

    Attributes:
        hidden: width of its one hidden layer.
        steps: of AdamW, for each half of the proxies.
        learning_rate: at the start; falls to 0 along a cosine.
        weight_decay: of AdamW.
        batch: own samples, and as many proxies, in a step.
    """

    hidden: int = 64
    steps: int = 300
    learning_rate: float = 5e-3
    weight_decay: float = 1e-2
    batch: int = 256


def own_odds(
    own: F4,
    labels: npt.NDArray[np.int64],
    asked: F4,
    classes: int,
    *,
    seed: int,
    settings: RatioSettings | None = None,
    tick: Tick = no_tick,
) -> F4:
    """Answer the proxies.

    Args:
        own: (V, M, K) float32 features of V views of the device's own samples, M ≥ 1.
        labels: (M,) int64 in [0, classes).
        asked: (W, N, K) float32 features of W views of the proxies; answers are means over views of a proxy.
        classes: C.
        seed: of halves, start and batches.
        settings: how.
        tick: called after every step.

    Returns:
        (N, C) float32: odds of "an own sample of class c" against "a proxy"; 0 for classes without a sample.
    """
    settings = settings or RatioSettings()
    generator = torch.Generator().manual_seed(seed)
    names, member = np.unique(labels, return_inverse=True)
    inside, outside = torch.from_numpy(own), torch.from_numpy(asked)
    everything = torch.cat([inside.flatten(0, 1), outside.flatten(0, 1)])
    centre, spread = everything.mean(0), everything.std(0) + 1e-3
    inside, outside = (inside - centre) / spread, (outside - centre) / spread
    samples, truth = inside.flatten(0, 1), torch.from_numpy(member).repeat(len(own))
    half = torch.randperm(asked.shape[1], generator=generator) % 2
    logits = torch.zeros(asked.shape[1], len(names) + 1)
    for side in (0, 1):
        background = outside[:, half != side].flatten(0, 1)
        if not len(background):
            background = outside.flatten(0, 1)
        head = _fit(samples, truth, background, len(names), settings, generator, tick)
        with torch.inference_mode():
            logits[half == side] = head(outside[:, half == side]).mean(0)
    odds = np.zeros((asked.shape[1], classes), np.float32)
    odds[:, names] = (logits[:, :-1] - logits[:, -1:]).clamp(-MAX_LOG_ODDS, MAX_LOG_ODDS).exp().numpy()
    return odds


MAX_LOG_ODDS = 8.0
"""Odds are told as between e^-8 and e^8: no finite sample says more."""


def _fit(
    samples: Tensor,
    truth: Tensor,
    background: Tensor,
    held: int,
    settings: RatioSettings,
    generator: torch.Generator,
    tick: Tick,
) -> nn.Module:
    """Tell the classes held from each other and from the background; half of each batch is background."""
    head = nn.Sequential(nn.Linear(samples.shape[1], settings.hidden), nn.ReLU(), nn.Linear(settings.hidden, held + 1))
    _start(head, generator)
    optimiser = torch.optim.AdamW(
        head.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay, foreach=True
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, settings.steps)
    nowhere = torch.full((settings.batch,), held)
    for _ in range(settings.steps):
        mine = torch.randint(len(samples), (settings.batch,), generator=generator)
        theirs = torch.randint(len(background), (settings.batch,), generator=generator)
        logits = head(torch.cat([samples[mine], background[theirs]]))
        loss = functional.cross_entropy(logits, torch.cat([truth[mine], nowhere]))
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        schedule.step()
        tick()
    return head.eval()


def _start(head: nn.Sequential, generator: torch.Generator) -> None:
    """Draw the first layer from the generator, so that a seed fixes the answer; the last one begins at 0."""
    first, last = head[0], head[-1]
    assert isinstance(first, nn.Linear)
    assert isinstance(last, nn.Linear)
    bound = first.in_features**-0.5
    with torch.no_grad():
        first.weight.uniform_(-bound, bound, generator=generator)
        first.bias.uniform_(-bound, bound, generator=generator)
        last.weight.zero_()
        last.bias.zero_()
