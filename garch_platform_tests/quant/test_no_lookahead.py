"""Scrambling what comes after a bar leaves what was computed up to it, bit for bit."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garch_platform.quant.features import FeatureWindows, compute_features
from garch_platform.quant.returns import log_returns
from garch_platform.quant.stability import stability_tests
from garch_platform.quant.volatility import fit_garch_batch, garch_variance

BARS, SESSION = 120, 13
WINDOWS = FeatureWindows(rolling_window=10, min_periods=8, ma_short=3, ma_long=12, rsi_window=7)


def bars(prices: np.ndarray) -> pl.DataFrame:
    days = [k // SESSION for k in range(BARS)]
    start = datetime(2024, 1, 8, 14, 30, tzinfo=UTC)
    one = pl.DataFrame(
        {
            "timestamp": [start + timedelta(days=d, minutes=k % SESSION) for k, d in enumerate(days)],
            "session_date": [date(2024, 1, 8) + timedelta(days=d) for d in days],
        },
        schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
    )
    return pl.concat(
        one.with_columns(pl.lit(f"S{k}").alias("symbol"), pl.Series("close", prices[:, k])) for k in range(2)
    )


@settings(max_examples=30, deadline=None)
@given(cut=st.integers(1, BARS - 1), seed=st.integers(0, 2**16), intraday=st.booleans())
def test_features(cut: int, seed: int, intraday: bool) -> None:
    rng = np.random.default_rng(seed)
    prices = 50.0 * np.exp(0.01 * np.cumsum(rng.standard_normal((BARS, 2)), axis=0))
    prices[rng.random(prices.shape) < 0.05] = np.nan
    scrambled = prices.copy()
    scrambled[cut:] = rng.uniform(1e-3, 1e6, (BARS - cut, 2))
    options = {"windows": WINDOWS, "bars_per_year": 98_280.0, "intraday": intraday}
    results = [
        compute_features(bars(p), **options).group_by("symbol", maintain_order=True).head(cut)
        for p in (prices, scrambled)
    ]
    assert results[0].equals(results[1])
    absent = bars(prices).group_by("symbol", maintain_order=True).head(cut)
    assert compute_features(absent, **options).equals(results[0])


def test_returns_and_variances() -> None:
    rng = np.random.default_rng(0)
    closes = np.cumsum(rng.standard_normal((BARS, 3)), axis=0)
    scrambled = closes.copy()
    scrambled[60:] = 99.0
    sessions = np.arange(BARS) // SESSION
    before, after = (log_returns(c, session_index=sessions) for c in (closes, scrambled))
    np.testing.assert_array_equal(before[:60], after[:60])
    frozen = {"mu": 0.0, "omega": 0.1, "alpha": 0.1, "beta": 0.8, "initial_variance": 1.0}
    np.testing.assert_array_equal(
        garch_variance(before[:, 0], **frozen)[:61], garch_variance(after[:, 0], **frozen)[:61]
    )


@pytest.mark.parametrize("later", [np.nan, np.inf])
def test_bars_outside_the_window_do_not_reach_estimates(later: float) -> None:
    returns = np.random.default_rng(0).standard_normal((400, 2))
    padded = np.vstack([returns, np.full((50, 2), later)])
    options = {"test_window": 30, "arch_lags": 5, "ljung_box_lags": 10, "min_observations": 60}
    assert stability_tests(padded, **options).equals(stability_tests(returns, **options))
    assert fit_garch_batch(padded).table.equals(fit_garch_batch(returns).table)
