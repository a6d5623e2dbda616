"""Engle-Granger and Dickey-Fuller: parity with statsmodels, and the inputs that would give p = 0."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from statsmodels.tools.sm_exceptions import CollinearityWarning
from statsmodels.tsa.stattools import adfuller, coint

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.pairs import scan_kernels
from garch_platform.quant.pairs.cointegration import (
    MIN_OBSERVATIONS,
    REASONS,
    CointegrationTest,
    dickey_fuller_frozen,
    engle_granger,
    engle_granger_pairs,
)
from garch_platform.quant.pairs.null_distributions import SMALLEST_PVALUE
from garch_platform.quant.pairs.scan import scan_pairs


def walk(count: int = 500, seed: int = 0) -> np.ndarray:
    return 4.0 + 0.01 * np.cumsum(np.random.default_rng(seed).standard_normal(count))


def noise(count: int = 500, seed: int = 99) -> np.ndarray:
    return 0.01 * np.random.default_rng(seed).standard_normal(count)


def assert_untested(test: CointegrationTest, reason: str) -> None:
    assert math.isnan(test.pvalue)
    assert math.isnan(test.statistic)
    assert test.reason == reason


@pytest.mark.parametrize("lags", [0, 1, 5])
def test_parity_with_statsmodels(lags: int) -> None:
    x = walk()
    y = 1.3 * x + 0.2 * walk(seed=5) + noise()
    test = engle_granger(y, x, lags=lags)
    statistic, pvalue, _ = coint(y, x, maxlag=lags, autolag=None)
    assert test.statistic == pytest.approx(statistic, rel=1e-11)
    assert test.pvalue == pytest.approx(pvalue, rel=1e-10)
    assert test.reason is None
    assert_allclose((test.hedge_ratio, test.intercept), np.polyfit(x, y, 1), rtol=1e-9)


def test_a_planted_pair_is_found_and_independent_walks_are_not() -> None:
    x = walk()
    planted = engle_granger(0.8 * x + noise(), x, lags=1)
    assert planted.pvalue < 1e-6
    assert planted.hedge_ratio == pytest.approx(0.8, abs=0.03)
    pvalues = [engle_granger(walk(seed=k), walk(seed=1000 + k), lags=1).pvalue for k in range(100)]
    assert np.mean(np.array(pvalues) < 0.05) < 0.15


def test_size_grows_among_pairs_with_correlated_prices() -> None:
    """A third to a sixth of independent walks that pass the correlation gate pass the test at 5 %."""
    panel = np.cumsum(np.random.default_rng(0).standard_normal((250, 120)), axis=0)
    scan = scan_pairs(panel, tests=())
    passed = scan.filter(scan["price_correlation"] > 0.8)
    assert len(passed) > 200
    assert (passed["pvalue_1_on_2"] < 0.05).mean() > 0.08


def test_a_proxy_of_the_other_leg_has_no_pvalue() -> None:
    x = walk()
    with pytest.warns(CollinearityWarning):
        assert coint(x, x.copy(), maxlag=1, autolag=None)[1] == 0.0, "what statsmodels says"
    for proxy in (x, x + math.log(3.0), 2.0 * x - 1.0):
        assert_untested(engle_granger(proxy, x, lags=1), "collinear")


def test_absent_bars_are_dropped_in_either_leg() -> None:
    x = walk()
    y = x + noise()
    gappy_y, gappy_x = y.copy(), x.copy()
    gappy_y[[0, 17, 300]] = np.nan
    gappy_x[[3, 17, 499]] = np.nan
    with np.errstate(all="ignore"), pytest.warns(CollinearityWarning):
        assert coint(gappy_y, x, maxlag=1, autolag=None)[1] == 0.0, "what statsmodels says"
    common = np.isfinite(gappy_y) & np.isfinite(gappy_x)
    found, expected = (
        engle_granger(first, second, lags=1) for first, second in ((gappy_y, gappy_x), (y[common], x[common]))
    )
    assert found.statistic == pytest.approx(expected.statistic, rel=1e-11)
    assert (found.hedge_ratio, found.intercept) == pytest.approx(
        (expected.hedge_ratio, expected.intercept), rel=1e-11
    )


def test_a_constant_leg_has_no_pvalue() -> None:
    assert_untested(engle_granger(np.full(500, 4.6), walk(), lags=1), "constant_series")
    assert_untested(engle_granger(walk(), np.full(500, 4.6), lags=1), "constant_series")


def test_too_few_common_bars_have_no_pvalue() -> None:
    x = walk(29)
    assert_untested(engle_granger(x + noise(29), x, lags=1), "insufficient_data: 29 common bars")
    assert_untested(engle_granger(np.full(500, np.nan), walk(), lags=1), "insufficient_data: 0 common bars")


def test_a_residual_that_repeats_itself_has_no_pvalue() -> None:
    """Residuals that alternate exactly: each change is minus the one before."""
    x = np.arange(100) // 2 % 2 + 0.0
    y = np.arange(100) % 2 + 0.0
    assert_untested(engle_granger(y, x, lags=5), "singular")


def test_a_pvalue_is_never_zero() -> None:
    x = walk(5000)
    y = x + noise(5000)
    assert coint(y, x, maxlag=1, autolag=None)[1] == 0.0, "beyond the end of the response surface"
    test = engle_granger(y, x, lags=1)
    assert test.statistic < -18.86
    assert test.pvalue == SMALLEST_PVALUE


def test_the_unit_of_the_prices_does_not_matter() -> None:
    x = walk()
    y = x + noise() + 0.3 * walk(seed=4)
    cents = engle_granger(y + math.log(100.0), x + math.log(100.0), lags=1)
    assert cents.pvalue == pytest.approx(engle_granger(y, x, lags=1).pvalue, rel=1e-8)


def test_a_list_of_pairs_is_the_scan_in_the_directions_asked_for() -> None:
    panel = np.column_stack([walk(seed=seed) for seed in range(5)] + [np.full(500, 1.0)])
    panel[::11, 3] = np.nan
    scan = scan_pairs(panel, lags=2, tests=())
    pairs = np.array([[int(one), int(two)] for one, two in scan.select("symbol_1", "symbol_2").rows()])
    for side, name in ((1, "1_on_2"), (-1, "2_on_1")):
        tests = engle_granger_pairs(panel, pairs[:, ::side], lags=2)
        for field in ("statistic", "pvalue", "hedge_ratio", "intercept"):
            expected = scan[f"{field}_{name}"].fill_null(math.nan).to_numpy()
            assert_array_equal(getattr(tests, field), expected)
        assert [REASONS.get(code) for code in tests.code] == scan["reason"].to_list()
        assert_array_equal(tests.observations, scan["n_observations"].to_numpy())


def test_pairs_that_are_not_there_are_refused() -> None:
    panel = np.column_stack([walk(), walk(seed=1)])
    with pytest.raises(DataError, match=r"pairs name \[0, 2\]; give two different columns of 0 to 1"):
        engle_granger_pairs(panel, np.array([[0, 1], [0, 2]]), lags=1)
    with pytest.raises(ConfigurationError, match="lags -1"):
        engle_granger_pairs(panel, np.array([[0, 1]]), lags=-1)
    assert len(engle_granger_pairs(panel, np.empty((0, 2), int), lags=1).pvalue) == 0


@pytest.mark.parametrize("lags", [0, 1, 4])
@pytest.mark.parametrize("unit", [1.0, 1e-12, 1e12])
def test_frozen_spreads_equal_statsmodels(lags: int, unit: float) -> None:
    rng = np.random.default_rng(1)
    spreads = unit * np.column_stack([np.cumsum(rng.standard_normal(200)), rng.standard_normal(200) + 0.3])
    spreads[[0, 50, 51, 199], 1] = np.nan
    statistic, pvalue = dickey_fuller_frozen(spreads, lags=lags)
    for column in range(2):
        present = spreads[np.isfinite(spreads[:, column]), column]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = adfuller(present / unit, lags, regression="n", autolag=None)
        assert statistic[column] == pytest.approx(expected[0], rel=1e-9)
        assert pvalue[column] == pytest.approx(expected[1], rel=1e-9, abs=1e-28)
        alone = dickey_fuller_frozen(spreads[:, column], lags=lags)
        assert alone == (statistic[column], pvalue[column])


def test_frozen_spreads_without_a_test() -> None:
    spreads = np.column_stack([np.zeros(50), np.full(50, 0.3), np.full(50, np.nan), walk(50)])
    spreads[MIN_OBSERVATIONS - 1 :, 3] = np.nan
    statistic, pvalue = dickey_fuller_frozen(spreads, lags=1)
    assert np.isnan(statistic).all()
    assert np.isnan(pvalue).all()
    assert dickey_fuller_frozen(np.empty((0, 3)), lags=1)[0].shape == (3,)
    with pytest.raises(ConfigurationError, match="lags -1"):
        dickey_fuller_frozen(spreads, lags=-1)


def test_the_kernels_share_the_limits_of_the_module() -> None:
    assert scan_kernels.FEWEST == MIN_OBSERVATIONS
    codes = (scan_kernels.SHORT, scan_kernels.CONSTANT, scan_kernels.COLLINEAR, scan_kernels.SINGULAR)
    assert tuple(REASONS) == codes
