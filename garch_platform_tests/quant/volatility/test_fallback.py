"""Forecasts where there is no GARCH fit: HAR, EWMA, or none, and why."""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.api import OLS, add_constant

from garch_platform.quant.timeseries.generator import simulate_garch
from garch_platform.quant.volatility.fallback import fallback_forecast, har_forecast
from garch_platform.quant.volatility.forecast import ewma_variance


@pytest.fixture(scope="module")
def returns() -> np.ndarray:
    shocks = np.random.default_rng(2).standard_normal((300, 1))
    return 0.01 * simulate_garch(shocks, omega=0.05, alpha=0.15, beta=0.80)[:, 0]


def test_har_is_the_regression_of_statsmodels(returns: np.ndarray) -> None:
    squares = returns**2
    rows = [[squares[t - 1], squares[t - 5 : t].mean(), squares[t - 22 : t].mean()] for t in range(22, 301)]
    fit = OLS(squares[22:], add_constant(np.array(rows[:-1]))).fit()
    expected = fit.predict(np.array([[1.0, *rows[-1]]]))[0]
    assert har_forecast(returns) == pytest.approx(expected, rel=1e-9)


def test_har_stays_within_what_was_seen() -> None:
    shocks = np.random.default_rng(0).standard_normal(200)
    shocks[-1] = 100.0
    assert 0.0 < har_forecast(shocks) <= 1e4
    assert np.isnan(har_forecast(np.zeros(200)))


@pytest.mark.parametrize(
    ("count", "source", "why"),
    [
        (19, None, "too few; 19 returns, EWMA needs 20"),
        (20, "ewma", "too few; 20 returns, HAR needs 100"),
        (99, "ewma", "too few; 99 returns, HAR needs 100"),
        (100, "har", "too few"),
    ],
)
def test_what_there_is_enough_for(returns: np.ndarray, count: int, source: str | None, why: str) -> None:
    ahead, found, reason = fallback_forecast(returns[:count], "too few")
    assert (found, reason) == (source, why)
    assert (ahead is None) == (source is None)
    if source == "ewma":
        shocks = returns[:count] - returns[:count].mean()
        assert ahead == pytest.approx(ewma_variance(np.append(shocks, 0.0))[-1], rel=1e-12)


@pytest.mark.parametrize("unit", [1e-12, 1e12])
def test_the_forecast_follows_the_unit(returns: np.ndarray, unit: float) -> None:
    plain, scaled = fallback_forecast(returns, "x")[0], fallback_forecast(returns * unit, "x")[0]
    assert plain is not None
    assert scaled == pytest.approx(plain * unit**2, rel=1e-9)


def test_no_variance_no_forecast() -> None:
    assert fallback_forecast(np.full(150, 0.01), "constant")[:2] == (None, None)
