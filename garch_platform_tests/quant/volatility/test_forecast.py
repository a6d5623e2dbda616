"""Variance paths with frozen parameters, and QLIKE."""

from __future__ import annotations

import math

import numpy as np
import pytest
from arch import arch_model

from garch_platform.errors import ConfigurationError
from garch_platform.quant.timeseries.generator import simulate_garch
from garch_platform.quant.volatility.forecast import ewma_variance, garch_variance, qlike


def test_recursion_by_hand() -> None:
    path = garch_variance(
        np.array([0.5, -1.0, 9.0]), mu=0.1, omega=0.2, alpha=0.3, beta=0.4, initial_variance=2.0
    )
    second = 0.2 + 0.3 * 0.4**2 + 0.4 * 2.0
    np.testing.assert_allclose(path, [2.0, second, 0.2 + 0.3 * 1.1**2 + 0.4 * second], rtol=1e-15)


def test_path_is_that_of_arch() -> None:
    returns = simulate_garch(np.random.default_rng(1).standard_normal(800), omega=0.05, alpha=0.1, beta=0.85)
    result = arch_model(returns, rescale=False).fit(disp="off")
    mu, omega, alpha, beta = result.params
    variance = result.conditional_volatility**2
    path = garch_variance(returns, mu=mu, omega=omega, alpha=alpha, beta=beta, initial_variance=variance[0])
    np.testing.assert_allclose(path, variance, rtol=1e-12)


def test_an_absent_return_leaves_the_expected_variance() -> None:
    path = garch_variance(
        np.array([np.nan, 1.0]), mu=0.0, omega=0.1, alpha=0.2, beta=0.7, initial_variance=3.0
    )
    np.testing.assert_allclose(path[1], 0.1 + 0.9 * 3.0, rtol=1e-15)


def test_a_negative_shock_adds_gamma() -> None:
    path = garch_variance(
        np.array([-1.0, 1.0, 0.0]), mu=0.0, omega=0.1, alpha=0.2, gamma=0.3, beta=0.4, initial_variance=1.0
    )
    np.testing.assert_allclose(path, [1.0, 0.1 + 0.5 + 0.4, 0.1 + 0.2 + 0.4], rtol=1e-15)


def test_ewma_is_the_weighted_mean_of_the_past() -> None:
    returns = np.random.default_rng(0).standard_normal(500)
    path = ewma_variance(returns)
    weights = 0.06 * 0.94 ** np.arange(499)
    expected = weights @ returns[:-1][::-1] ** 2 + 0.94**499 * returns[0] ** 2
    assert path[-1] == pytest.approx(expected, rel=1e-12)
    assert path[0] == returns[0] ** 2
    held = ewma_variance(np.array([1.0, np.nan, 3.0]), decay=0.5, initial_variance=4.0)
    np.testing.assert_allclose(held, [4.0, 2.5, 2.5], rtol=1e-15)
    assert np.isnan(ewma_variance(np.full(3, np.nan))).all()
    with pytest.raises(ConfigurationError, match=r"decay 1\.0 is not between 0 and 1"):
        ewma_variance(returns, decay=1.0)


def test_the_future_does_not_move_the_path() -> None:
    rng = np.random.default_rng(4)
    returns = rng.standard_normal(200)
    scrambled = returns.copy()
    scrambled[120:] = 50.0 * rng.standard_normal(80)
    frozen = {"mu": 0.0, "omega": 0.1, "alpha": 0.1, "beta": 0.8, "initial_variance": 1.0}
    before, after = garch_variance(returns, **frozen), garch_variance(scrambled, **frozen)
    np.testing.assert_array_equal(before[:121], after[:121])
    assert not np.array_equal(before[121:], after[121:])


def test_qlike_is_least_at_the_true_variance() -> None:
    squared = 4.0 * np.random.default_rng(0).standard_normal(20_000) ** 2
    losses = [qlike(h, squared) for h in (2.0, 3.0, 4.0, 5.0, 8.0)]
    assert int(np.argmin(losses)) == 2
    np.testing.assert_allclose(losses[2], math.log(4.0) + squared.mean() / 4.0, rtol=1e-12)


def test_qlike_differences_do_not_depend_on_the_unit() -> None:
    squared = np.random.default_rng(0).standard_normal(500) ** 2
    a, b = np.full(500, 0.7), np.linspace(0.5, 2.0, 500)
    percent = qlike(1e4 * a, 1e4 * squared) - qlike(1e4 * b, 1e4 * squared)
    np.testing.assert_allclose(percent, qlike(a, squared) - qlike(b, squared), rtol=1e-9)


def test_qlike_accepts_zero_returns_and_skips_absent_ones() -> None:
    assert qlike([2.0, 1.0], [0.0, np.nan]) == math.log(2.0)
    assert math.isnan(qlike([1.0], [np.nan]))
