"""Log prices, one-bar returns and annualisation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from garch_platform.errors import DataError
from garch_platform.quant.returns import annualised_volatility, log_prices, log_returns


def test_log_prices_makes_unusable_prices_absent() -> None:
    prices = np.array([100.0, 0.0, -3.0, np.nan, np.inf, 1.0])
    np.testing.assert_array_equal(log_prices(prices), [math.log(100.0)] + [np.nan] * 4 + [0.0])


def test_a_return_links_consecutive_present_bars() -> None:
    log_close = np.log([100.0, np.nan, 110.0, 121.0])
    np.testing.assert_allclose(
        log_returns(log_close), [np.nan, np.nan, math.log(1.1), math.log(1.1)], rtol=1e-13
    )


def test_a_session_begins_without_a_return() -> None:
    log_close = np.array([[1.0], [2.0], [np.nan], [5.0], [6.0]])
    sessions = np.array([0, 0, 1, 1, 1])
    np.testing.assert_array_equal(
        log_returns(log_close, session_index=sessions)[:, 0], [np.nan, 1.0, np.nan, np.nan, 1.0]
    )
    np.testing.assert_array_equal(log_returns(log_close)[:, 0], [np.nan, 1.0, np.nan, 3.0, 1.0])


def test_sessions_must_match_the_bars() -> None:
    with pytest.raises(DataError, match="3 entries for 2 bars"):
        log_returns(np.zeros(2), session_index=np.zeros(3, dtype=np.int64))


def test_annualisation_follows_the_bar_and_not_the_day() -> None:
    per_minute = 0.01 / math.sqrt(390.0)
    minute = annualised_volatility(np.array([per_minute]), bars_per_year=252.0 * 390.0)
    daily = annualised_volatility(np.array([0.01]), bars_per_year=252.0)
    np.testing.assert_allclose(minute, daily, rtol=1e-14)
    np.testing.assert_allclose(daily, 0.158745078663875, rtol=1e-14)
