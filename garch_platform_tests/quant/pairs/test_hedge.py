"""Hedge ratio of a pair."""

from __future__ import annotations

import math

import numpy as np

from garch_platform.quant.pairs.hedge import hedge_ratio_ols


def test_matches_least_squares() -> None:
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.standard_normal(400))
    y = 1.7 * x - 0.3 + rng.standard_normal(400)
    np.testing.assert_allclose(hedge_ratio_ols(y, x), np.polyfit(x, y, 1), rtol=1e-10)


def test_an_exact_line_is_recovered_and_absent_bars_are_skipped() -> None:
    x = np.array([1.0, 2.0, np.nan, 4.0, 5.0])
    y = np.array([5.0, 7.0, 9.0, np.nan, 13.0])
    np.testing.assert_allclose(hedge_ratio_ols(y, x), (2.0, 3.0), rtol=1e-13)


def test_a_constant_or_absent_leg_has_no_ratio() -> None:
    assert all(math.isnan(value) for value in hedge_ratio_ols(np.arange(5.0), np.ones(5)))
    assert all(math.isnan(value) for value in hedge_ratio_ols(np.full(5, np.nan), np.arange(5.0)))
