"""Confirmation on later bars: the bootstrap's statistic and size, and the false discovery rate."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import false_discovery_control
from statsmodels.stats.multitest import multipletests
from statsmodels.tsa.stattools import adfuller

from garch_platform.quant.pairs.confirmation import (
    BOOTSTRAP_DRAWS,
    confirm_spreads,
    false_discovery_qvalues,
)
from garch_platform.quant.pairs.confirmation_kernels import wild_exceedances
from garch_platform.quant.timeseries import simulate_garch


@pytest.mark.parametrize("lags", [0, 1, 4])
def test_the_bootstrap_counts_the_statistic_of_statsmodels(lags: int) -> None:
    rng = np.random.default_rng(lags)
    level = np.cumsum(rng.standard_normal(120))
    observed = float(adfuller(level, maxlag=lags, regression="n", autolag=None, result_object=False)[0])
    flat = level - level[0]
    assert wild_exceedances(level, lags, np.inf, 50, 1) == 50
    assert wild_exceedances(level, lags, -np.inf, 50, 1) == 0
    same_signs = wild_exceedances(np.array([0.0, 0.0, *flat[1:]]), lags, -1e9, 10, 1)
    assert same_signs == 0
    draws = 2_000
    share = wild_exceedances(level, lags, observed, draws, 5) / draws
    pvalue = float(adfuller(level, maxlag=lags, regression="n", autolag=None, result_object=False)[1])
    assert share == pytest.approx(pvalue, abs=0.08)


def test_the_same_seed_gives_the_same_count_and_another_seed_another() -> None:
    level = np.cumsum(np.random.default_rng(0).standard_normal(200))
    counts = [wild_exceedances(level, 1, -1.5, 5_000, seed) for seed in (3, 3, 4)]
    assert counts[0] == counts[1] != counts[2]


def test_a_planted_spread_is_confirmed_and_a_random_walk_is_not() -> None:
    rng = np.random.default_rng(1)
    shocks = rng.standard_normal((300, 60))
    walks = np.cumsum(shocks, axis=0)
    reverting = np.zeros_like(shocks)
    for t in range(1, 300):
        reverting[t] = 0.9 * reverting[t - 1] + shocks[t]
    _, of_walks = confirm_spreads(walks, lags=1)
    _, of_reverting = confirm_spreads(reverting, lags=1)
    assert (of_walks <= 0.05).mean() <= 0.15
    assert (of_reverting <= 0.05).mean() >= 0.95


def test_deep_tails_are_held_by_the_bootstrap() -> None:
    rng = np.random.default_rng(2)
    reverting = np.zeros(400)
    for t in range(1, 400):
        reverting[t] = 0.5 * reverting[t - 1] + rng.standard_normal()
    _, pvalue = confirm_spreads(reverting[:, np.newaxis], lags=1)
    assert pvalue[0] == 1.0 / (1 + BOOTSTRAP_DRAWS)


def test_the_bootstrap_keeps_its_size_where_the_asymptotic_tail_does_not() -> None:
    rng = np.random.default_rng(5)
    shocks = rng.standard_t(4, (300, 4_000)) / np.sqrt(2.0)
    walks = np.cumsum(simulate_garch(shocks, omega=0.02, alpha=0.18, beta=0.80), axis=0)
    _, pvalue = confirm_spreads(walks, lags=1)
    assert (pvalue <= 1e-3).mean() <= 2.5e-3


def test_absent_and_short_spreads_have_no_pvalue() -> None:
    spreads = np.full((50, 3), np.nan)
    spreads[:5, 1] = np.arange(5.0)
    spreads[:, 2] = 1.0
    statistic, pvalue = confirm_spreads(spreads, lags=1)
    assert np.isnan(pvalue).all()
    assert np.isnan(statistic).all()


@pytest.mark.parametrize("method", ["bh", "by"])
def test_adjusted_pvalues_equal_statsmodels(method: str) -> None:
    pvalues = np.random.default_rng(0).uniform(size=40) ** 3
    reference = multipletests(pvalues, method=f"fdr_{method}")[1]
    np.testing.assert_allclose(false_discovery_qvalues(pvalues, method=method), reference, rtol=1e-12)  # type: ignore[arg-type]
    np.testing.assert_allclose(false_discovery_control(pvalues, method=method), reference, rtol=1e-12)


def test_no_survivor_no_qvalue() -> None:
    assert false_discovery_qvalues(np.empty(0), method="bh").shape == (0,)
