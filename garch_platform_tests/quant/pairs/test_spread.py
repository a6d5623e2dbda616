"""Spread, half-life and shocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from garch_platform.quant.pairs.power import planted_pairs
from garch_platform.quant.pairs.spread import (
    autoregression,
    corrected_half_life,
    half_life,
    hurst_exponent,
    spread,
    spread_shocks,
)


def reverting(count: int, bars: float, seed: int) -> np.ndarray:
    phi = math.exp(-math.log(2.0) / bars)
    path = np.zeros(count)
    for t, shock in enumerate(np.random.default_rng(seed).standard_normal(count - 1), start=1):
        path[t] = phi * path[t - 1] + shock
    return path


def test_spread_by_hand() -> None:
    result = spread(np.array([3.0, np.nan]), np.array([2.0, 1.0]), hedge_ratio=0.5, intercept=0.25)
    np.testing.assert_array_equal(result, [1.75, np.nan])


@pytest.mark.parametrize("bars", [3.0, 10.0, 40.0])
def test_planted_half_life_is_recovered(bars: float) -> None:
    estimates = [half_life(7.0 + 0.01 * reverting(8000, bars, seed)) for seed in range(12)]
    assert np.mean(estimates) == pytest.approx(bars, rel=0.1)


def test_a_noiseless_decay_has_its_exact_half_life() -> None:
    assert half_life(2.0 ** -(np.arange(30) / 5.0)) == pytest.approx(5.0, rel=1e-9)


def test_no_half_life_without_a_return_to_the_mean() -> None:
    assert math.isnan(half_life(1.1 ** np.arange(50)))
    assert math.isnan(half_life((-1.0) ** np.arange(50)))
    assert math.isnan(half_life(np.ones(50)))
    assert math.isnan(half_life(np.array([1.0, np.nan, 2.0])))


def test_the_coefficient_is_scale_free_and_skips_absent_bars() -> None:
    path = reverting(500, 8.0, 1)
    assert autoregression(1e-6 * path) == pytest.approx(autoregression(path), rel=1e-10)
    assert autoregression(np.insert(path, 100, np.nan)) == autoregression(path)


def test_shocks_undo_the_autoregression() -> None:
    path = reverting(50, 8.0, 1)
    phi = math.exp(-math.log(2.0) / 8.0)
    shocks = spread_shocks(5.0 + path, mean=5.0, phi=phi)
    np.testing.assert_allclose(
        shocks[1:], np.random.default_rng(1).standard_normal(49), rtol=1e-9, atol=1e-12
    )
    assert math.isnan(shocks[0])


def test_a_session_begins_without_a_shock() -> None:
    path = np.array([1.0, 2.0, np.nan, 4.0, 8.0])
    shocks = spread_shocks(path, mean=0.0, phi=1.0, session_index=np.array([0, 0, 1, 1, 1]))
    np.testing.assert_array_equal(shocks, [np.nan, 1.0, np.nan, np.nan, 4.0])


def test_hurst_exponent_of_walk_noise_line_and_reversion() -> None:
    steps = np.random.default_rng(2).standard_normal(20_000)
    assert hurst_exponent(np.cumsum(steps)) == pytest.approx(0.5, abs=0.05)
    assert hurst_exponent(steps) == pytest.approx(0.0, abs=0.02)
    assert hurst_exponent(np.arange(100.0)) == pytest.approx(1.0)
    assert 0.05 < hurst_exponent(reverting(20_000, 10.0, 1)) < 0.35


def test_hurst_exponent_by_hand() -> None:
    path = np.random.default_rng(3).standard_normal(33)
    moves = [np.log(np.sqrt(np.mean((path[step:] - path[:-step]) ** 2))) for step in (1, 2, 4)]
    assert hurst_exponent(path) == pytest.approx(np.polyfit(np.log([1, 2, 4]), moves, 1)[0])
    assert hurst_exponent(np.insert(path, 9, np.nan)) == hurst_exponent(path)


def test_no_hurst_exponent_of_few_bars_or_a_constant() -> None:
    assert math.isnan(hurst_exponent(np.arange(15.0)))
    assert math.isnan(hurst_exponent(np.ones(100)))


@pytest.mark.parametrize(("bars", "true_half_life"), [(300, 4.0), (700, 7.0), (700, 10.0)])
def test_the_correction_takes_the_bias_out_of_the_half_life(bars: int, true_half_life: float) -> None:
    rng = np.random.default_rng(0)
    y, x = planted_pairs(bars, 2_000, half_life=true_half_life, rng=rng)
    xc, yc = x - x.mean(axis=0), y - y.mean(axis=0)
    residuals = yc - (xc * yc).sum(axis=0) / (xc * xc).sum(axis=0) * xc
    raw = np.array([half_life(column) for column in residuals.T])
    corrected = corrected_half_life(raw, np.full(len(raw), bars))
    assert np.nanmedian(raw) < 0.94 * true_half_life
    assert np.median(np.nan_to_num(corrected, nan=np.inf)) == pytest.approx(true_half_life, rel=0.05)


def test_a_half_life_beyond_the_sample_is_not_claimed() -> None:
    assert np.isnan(corrected_half_life(np.array([150.0, np.nan]), np.array([200.0, 200.0]))).all()
