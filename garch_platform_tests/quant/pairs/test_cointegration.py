"""Engle-Granger: parity with statsmodels, and the inputs that would give p = 0."""

from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.tools.sm_exceptions import CollinearityWarning
from statsmodels.tsa.stattools import coint

from garch_platform.quant.pairs import cointegration
from garch_platform.quant.pairs.cointegration import SMALLEST_PVALUE, CointegrationTest, engle_granger


def walk(count: int = 500, seed: int = 0) -> np.ndarray:
    return 4.0 + 0.01 * np.cumsum(np.random.default_rng(seed).standard_normal(count))


def noise(count: int = 500, seed: int = 99) -> np.ndarray:
    return 0.01 * np.random.default_rng(seed).standard_normal(count)


def assert_untested(test: CointegrationTest, reason: str) -> None:
    assert math.isnan(test.pvalue)
    assert math.isnan(test.statistic)
    assert test.reason is not None
    assert test.reason.startswith(reason)


@pytest.mark.parametrize("lags", [0, 1, 5])
def test_parity_with_statsmodels(lags: int) -> None:
    x = walk()
    y = 1.3 * x + 0.2 * walk(seed=5) + noise()
    test = engle_granger(y, x, lags=lags)
    statistic, pvalue, _ = coint(y, x, maxlag=lags, autolag=None)
    assert test.statistic == pytest.approx(statistic, rel=1e-12)
    assert test.pvalue == pytest.approx(pvalue, rel=1e-12)
    assert test.reason is None
    np.testing.assert_allclose((test.hedge_ratio, test.intercept), np.polyfit(x, y, 1), rtol=1e-9)


def test_a_planted_pair_is_found_and_independent_walks_are_not() -> None:
    x = walk()
    planted = engle_granger(0.8 * x + noise(), x, lags=1)
    assert planted.pvalue < 1e-6
    assert planted.hedge_ratio == pytest.approx(0.8, abs=0.03)
    pvalues = [engle_granger(walk(seed=k), walk(seed=1000 + k), lags=1).pvalue for k in range(100)]
    assert np.mean(np.array(pvalues) < 0.05) < 0.15


def test_size_grows_among_pairs_with_correlated_prices() -> None:
    """A third to a sixth of independent walks that pass the correlation gate pass the test at 5 %."""
    passed = []
    for k in range(1500):
        a, b = walk(250, 2 * k), walk(250, 2 * k + 1)
        if np.corrcoef(a, b)[0, 1] > 0.8:
            passed.append(engle_granger(a, b, lags=1).pvalue < 0.05)
    assert len(passed) > 50
    assert np.mean(passed) > 0.08


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
    assert engle_granger(gappy_y, gappy_x, lags=1) == engle_granger(y[common], x[common], lags=1)


def test_a_constant_leg_has_no_pvalue() -> None:
    assert_untested(engle_granger(np.full(500, 4.6), walk(), lags=1), "constant_series")
    assert_untested(engle_granger(walk(), np.full(500, 4.6), lags=1), "constant_series")


def test_too_few_common_bars_have_no_pvalue() -> None:
    x = walk(29)
    assert_untested(engle_granger(x + noise(29), x, lags=1), "insufficient_data: 29 common bars")
    assert_untested(engle_granger(np.full(500, np.nan), walk(), lags=1), "insufficient_data: 0 common bars")


def test_a_pvalue_is_never_zero() -> None:
    x = walk(5000)
    y = x + noise(5000)
    assert coint(y, x, maxlag=1, autolag=None)[1] == 0.0, "beyond the end of the response surface"
    test = engle_granger(y, x, lags=1)
    assert test.statistic < -18.86
    assert test.pvalue == SMALLEST_PVALUE


def test_a_failure_of_the_regression_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> tuple[float, float]:
        raise np.linalg.LinAlgError("SVD did not converge")

    monkeypatch.setattr(cointegration, "_statistic", fails)
    assert_untested(engle_granger(walk() + noise(), walk(), lags=1), "test_failed: SVD did not converge")


def test_the_unit_of_the_prices_does_not_matter() -> None:
    x = walk()
    y = x + noise() + 0.3 * walk(seed=4)
    cents = engle_granger(y + math.log(100.0), x + math.log(100.0), lags=1)
    assert cents.pvalue == pytest.approx(engle_granger(y, x, lags=1).pvalue, rel=1e-8)
