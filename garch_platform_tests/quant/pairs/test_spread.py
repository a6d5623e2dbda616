"""Spread, half-life and shocks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from garch_platform.quant.pairs.spread import autoregression, half_life, spread, spread_shocks


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
