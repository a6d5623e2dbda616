"""Tests on the scores of a GARCH fit: constancy of the parameters, symmetry."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from garch_platform.errors import DataError
from garch_platform.quant.score_tests import SCORE_TEST_SCHEMA, nyblom_pvalue, score_tests
from garch_platform.quant.timeseries.generator import simulate_garch
from garch_platform.quant.volatility import fit_garch_batch


@pytest.mark.parametrize(
    ("parameters", "critical"),
    [(1, (0.353, 0.470, 0.748)), (2, (0.610, 0.749, 1.07)), (4, (1.07, 1.24, 1.60)), (5, (1.28, 1.47, 1.88))],
)
def test_pvalues_of_nyblom_agree_with_hansens_table(parameters: int, critical: tuple[float, ...]) -> None:
    levels = [nyblom_pvalue(value, parameters) for value in critical]
    np.testing.assert_allclose(levels, [0.10, 0.05, 0.01], rtol=0.12)
    assert nyblom_pvalue(1e-4, parameters) == pytest.approx(1.0, abs=1e-6)
    assert nyblom_pvalue(20.0, parameters) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("dist", ["normal", "t"])
def test_parameters_that_change_are_seen_and_those_that_hold_are_not(dist: str) -> None:
    rng = np.random.default_rng(5)
    shocks = rng.standard_normal((1500, 24)) if dist == "normal" else rng.standard_t(6, (1500, 24)) / 1.2247
    steady = simulate_garch(shocks, omega=0.05, alpha=0.08, beta=0.87)
    first = simulate_garch(shocks[:750], omega=0.05, alpha=0.05, beta=0.90)
    second = simulate_garch(shocks[750:], omega=0.05, alpha=0.35, beta=0.60)
    for returns, low, high in ((steady, 0.0, 0.2), (np.vstack([first, second]), 0.7, 1.0)):
        fits = fit_garch_batch(returns, dist=dist)  # type: ignore[arg-type]
        result = score_tests(returns, fits.params)
        assert dict(result.schema) == SCORE_TEST_SCHEMA
        assert low <= (result["nyblom_pvalue"] < 0.05).mean() <= high


def test_scores_are_the_derivatives_of_the_likelihood() -> None:
    from garch_platform.quant.score_tests import _derivatives

    returns = np.random.default_rng(6).standard_normal(300)
    weights = 0.94 ** np.arange(75)

    def log_likelihood(theta: np.ndarray, nu: float | None) -> np.ndarray:
        mu, omega, alpha, beta, gamma = theta
        error = returns - mu
        squares = error**2
        start = np.sum(weights * (returns[:75] - 0.03) ** 2) / weights.sum()
        h = np.empty(300)
        h[0] = omega + (alpha + beta + 0.5 * gamma) * start
        for t in range(1, 300):
            h[t] = omega + (alpha + gamma * (error[t - 1] < 0.0)) * squares[t - 1] + beta * h[t - 1]
        if nu is None:
            return -0.5 * (np.log(h) + squares / h)
        return -0.5 * np.log(h) - 0.5 * (nu + 1.0) * np.log1p(squares / h / (nu - 2.0))

    theta = np.array([0.03, 0.1, 0.07, 0.85, 0.0])
    for nu in (None, 7.0):
        surprise, slopes, of_gamma, of_mean, _ = _derivatives(returns, *theta[:4], nu)
        scores = 0.5 * surprise[:, np.newaxis] * np.column_stack([slopes, of_gamma])
        scores[:, 0] += of_mean
        for k in range(5):
            step = np.zeros(5)
            step[k] = 1e-6
            numeric = (log_likelihood(theta + step, nu) - log_likelihood(theta - step, nu)) / 2e-6
            np.testing.assert_allclose(scores[:, k], numeric, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("dist", ["normal", "t"])
def test_an_asymmetric_response_is_seen_and_a_symmetric_one_is_not(dist: str) -> None:
    rng = np.random.default_rng(7)
    shocks = rng.standard_normal((1800, 60)) if dist == "normal" else rng.standard_t(6, (1800, 60)) / 1.2247
    for gamma, low, high in ((0.0, 0.0, 0.14), (0.12, 0.85, 1.0)):
        variance, returns = np.ones(60), np.empty_like(shocks)
        for t, shock in enumerate(shocks):
            returns[t] = np.sqrt(variance) * shock
            variance = 0.03 + (0.07 - gamma / 2 + gamma * (shock < 0.0)) * returns[t] ** 2 + 0.90 * variance
        result = score_tests(returns[300:], fit_garch_batch(returns[300:], dist=dist).params)  # type: ignore[arg-type]
        assert low <= (result["asymmetry_pvalue"] < 0.05).mean() <= high


def test_score_tests_without_a_fit_or_data_have_a_reason() -> None:
    params = pl.DataFrame({"mu": [0.0, None, 0.0], "omega": [0.1] * 3, "alpha": [0.1] * 3, "beta": [0.8] * 3})
    returns = np.random.default_rng(0).standard_normal((100, 3))
    returns[40:, 0], returns[:, 2] = np.nan, 0.5
    result = score_tests(returns, params)
    assert result["reason"].to_list() == [
        "insufficient_data: 40 returns, 50 needed",
        "no_fit",
        "constant_series",
    ]
    assert result["nyblom"].null_count() == 3
    with pytest.raises(DataError, match="3 rows for 2 series"):
        score_tests(returns[:, :2], params)
