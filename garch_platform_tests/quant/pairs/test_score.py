"""The composite score: each component by its definition, its bounds, scale and order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logsumexp

from garch_platform.quant.pairs.rules import SelectionRules
from garch_platform.quant.pairs.score import SCORE_COLUMNS, WEIGHTS, score_spreads
from garch_platform.quant.pairs.spread import autoregression
from garch_platform.quant.volatility import fit_garch_batch

RULES = SelectionRules(cost_bps=1.0)
SPLIT = 700


def spreads(kind: str, columns: int, *, seed: int, bars: int = 1_000) -> np.ndarray:
    """(T, P) AR(1) spreads with a half-life of 10 bars, or random walks."""
    shocks = 0.01 * np.random.default_rng(seed).standard_normal((bars, columns))
    phi = 0.5 ** (1 / 10) if kind == "reverting" else 1.0
    path = np.zeros_like(shocks)
    for t in range(1, bars):
        path[t] = phi * path[t - 1] + shocks[t]
    return path


def score(paths: np.ndarray, split: int = SPLIT, **options: object) -> dict[str, np.ndarray]:
    formation = paths[:split]
    table = score_spreads(
        paths,
        formation_end=split,
        mean=formation.mean(axis=0),
        std=formation.std(axis=0, ddof=1),
        hedge_ratio=np.ones(paths.shape[1]),
        rules=RULES,
        **options,  # type: ignore[arg-type]
    )
    assert dict(table.schema) == SCORE_COLUMNS
    return {name: table[name].to_numpy() for name in table.columns}


def test_reverting_spreads_score_high_and_random_walks_low() -> None:
    reverting, walking = (score(spreads(kind, 60, seed=1)) for kind in ("reverting", "walking"))
    assert (reverting["score"] > 0.7).mean() >= 0.8
    assert (walking["score"] > 0.7).mean() <= 0.2
    for name in WEIGHTS:
        for values in (reverting, walking):
            assert ((values[f"{name}_score"] >= 0.0) & (values[f"{name}_score"] <= 1.0)).all()


def test_the_score_is_the_weighted_sum() -> None:
    values = score(spreads("reverting", 5, seed=2))
    total = sum(WEIGHTS[name] * values[f"{name}_score"] for name in WEIGHTS)
    np.testing.assert_allclose(values["score"], total, rtol=1e-12)


def test_fit_averages_the_predictive_likelihood_over_what_formation_leaves_open() -> None:
    """By hand for one spread: three Gauss-Hermite points for each of phi and the mean."""
    path = spreads("reverting", 1, seed=3)[:, 0]
    mean, phi = path[:SPLIT].mean(), autoregression(path[:SPLIT])
    innovations = (path[1:] - mean) - phi * (path[:-1] - mean)
    formed = innovations[: SPLIT - 1]
    fit = fit_garch_batch(formed[:, np.newaxis], dist="t").table.row(0, named=True)
    shocks = innovations[SPLIT - 1 :] - fit["mu"]
    variance = [fit["forecast_variance"]]
    for shock in shocks[:-1]:
        variance.append(fit["omega"] + fit["alpha"] * shock**2 + fit["beta"] * variance[-1])
    scale = np.sqrt(np.array(variance) * (fit["nu"] - 2.0) / fit["nu"])

    def likelihood(moves: np.ndarray) -> float:
        return float(stats.t.logpdf(moves, fit["nu"], scale=scale).sum())

    count = len(formed)
    known = phi + 1.5 * (1.0 + 3.0 * phi) / count
    widths = 1.5 / np.sqrt(count) * np.array([np.sqrt(1 - known**2), formed.std() / (1 - known)])
    before, now = path[SPLIT - 1 : -1], path[SPLIT:]
    terms = []
    for node, weight in ((-np.sqrt(3.0), 1 / 6), (0.0, 2 / 3), (np.sqrt(3.0), 1 / 6)):
        for shift, other in ((-np.sqrt(3.0), 1 / 6), (0.0, 2 / 3), (np.sqrt(3.0), 1 / 6)):
            slope, level = known + node * widths[0], mean + shift * widths[1]
            terms.append(np.log(weight * other) + likelihood(now - level - slope * (before - level)))
    ratio = logsumexp(terms) - likelihood(np.diff(path)[SPLIT - 1 :])
    assert score(path[:, np.newaxis])["fit_score"][0] == pytest.approx(expit(ratio), rel=1e-6)


def test_volatility_scores_a_garch_spread_above_its_rivals_and_noise_in_the_middle() -> None:
    rng = np.random.default_rng(4)
    variance, shock, clustered = 1.0, 0.0, []
    for draw in rng.standard_normal(6_000):
        variance = 0.1 + 0.25 * shock**2 + 0.65 * variance
        shock = np.sqrt(variance) * draw
        clustered.append(shock)
    path = np.zeros(6_000)
    for t in range(1, 6_000):
        path[t] = 0.9 * path[t - 1] + clustered[t]
    assert score(path[:, np.newaxis], split=3_000)["volatility_score"][0] > 0.95
    noise = score(spreads("reverting", 80, seed=6))["volatility_score"]
    assert 0.1 < np.median(noise) < 0.95


def test_scale_changes_nothing_but_the_cost_of_trading() -> None:
    paths = spreads("reverting", 4, seed=7)
    small, large = score(paths), score(paths * 1e3)
    for name in ("fit", "volatility", "diagnostics"):
        np.testing.assert_allclose(small[f"{name}_score"], large[f"{name}_score"], rtol=1e-5, atol=1e-9)


def test_bars_after_the_window_do_not_reach_the_formation_fit() -> None:
    paths = spreads("reverting", 3, seed=8)
    other = paths.copy()
    other[SPLIT:] = np.random.default_rng(0).normal(size=other[SPLIT:].shape)
    before, after = score(paths), score(other)
    for name in ("diagnostics_score", "aic", "bic"):
        np.testing.assert_array_equal(before[name], after[name])


def test_what_cannot_be_scored_says_why() -> None:
    paths = spreads("reverting", 4, seed=9)
    paths[:, 1] = np.nan
    paths[:, 2] = 0.0
    paths[SPLIT + 5 :, 3] = np.nan
    values = score(paths)
    assert values["score_reason"][0] is None
    assert values["score_reason"][1].startswith("garch insufficient")
    assert values["score_reason"][2].startswith("garch ")
    assert values["score_reason"][3] == "out_of_sample_bars 5 < 20"
    assert np.isnan(values["score"][1:].astype(float)).all()


def test_no_spread_no_rows() -> None:
    assert score_spreads(
        np.empty((10, 0)),
        formation_end=5,
        mean=np.empty(0),
        std=np.empty(0),
        hedge_ratio=np.empty(0),
        rules=RULES,
    ).is_empty()
