"""The head that answers rounds: does it estimate density ratios?"""

from __future__ import annotations

import numpy as np
import pytest

from edge_models.ratio_head import RatioSettings, own_odds

QUICK = RatioSettings(steps=150)


def clouds(rng: np.random.Generator, centres: list[float], n: int) -> np.ndarray:
    """Draw n samples around each centre, (len(centres) · n, 8) float32."""
    return np.concatenate([rng.normal(centre, 1, (n, 8)) for centre in centres]).astype(np.float32)


@pytest.mark.parametrize("held", [[0], [0, 1]])
def test_own_samples_are_likelier_where_the_device_has_been(held: list[int]) -> None:
    """Among proxies of three classes, those of a class held get the highest odds of it, also when only one is held."""
    rng = np.random.default_rng(0)
    centres = [0.0, 2.0, -2.0]
    own = clouds(rng, [centres[c] for c in held], 60)
    asked = clouds(rng, centres, 50)
    odds = own_odds(own[None], np.repeat(held, 60), asked[None], 3, seed=1, settings=QUICK)
    truth = np.repeat([0, 1, 2], 50)
    for c in held:
        assert np.median(odds[truth == c, c]) > 4 * np.median(odds[truth != c, c])
    assert not odds[:, [c for c in range(3) if c not in held]].any()


def test_odds_estimate_the_density_ratio() -> None:
    """Own samples around 0 against proxies half around 0, half around 2: the log odds follow the true ones."""
    rng = np.random.default_rng(1)
    own, asked = clouds(rng, [0.0], 400), clouds(rng, [0.0, 1.0], 300)
    odds = own_odds(own[None], np.zeros(400, np.int64), asked[None], 1, seed=0)[:, 0]
    log_ratio = (asked**2 - (asked - 1) ** 2).sum(1) / -2
    true = -np.log(0.5 + 0.5 * np.exp(-log_ratio))
    assert np.corrcoef(np.log(odds), true)[0, 1] > 0.8


def test_a_seed_fixes_the_answer_and_one_proxy_is_no_error() -> None:
    """Same seed, same bits; a single sample and a single proxy still give a finite answer."""
    rng = np.random.default_rng(2)
    own, asked = clouds(rng, [0.0, 1.0], 5)[None], clouds(rng, [0.0], 6)[None]
    labels = np.repeat([0, 1], 5)
    pair = [own_odds(own, labels, asked, 2, seed=3, settings=QUICK) for _ in range(2)]
    np.testing.assert_array_equal(*pair)
    few = own_odds(own[:, :1], labels[:1], asked[:, :1], 2, seed=3, settings=QUICK)
    assert np.isfinite(few).all()


def test_every_step_of_both_halves_is_counted() -> None:
    """A caller that measures a training job hears of each."""
    rng = np.random.default_rng(3)
    own, asked, heard = clouds(rng, [0.0], 9)[None], clouds(rng, [0.0], 6)[None], list[int]()
    settings = RatioSettings(steps=4)
    own_odds(own, np.zeros(9, np.int64), asked, 1, seed=0, settings=settings, tick=lambda: heard.append(1))
    assert len(heard) == 8
