"""Tests of one series by name, against the libraries that they come from."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
from arch.unitroot import PhillipsPerron, VarianceRatio
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats
from statsmodels.tsa import stattools

from garch_platform.errors import ConfigurationError
from garch_platform.quant.series_tests import SERIES_TESTS, hurst_exponent, kpss, series_test, shapiro_wilk

WALK = np.cumsum(np.random.default_rng(0).standard_normal(500))
NOISE = np.random.default_rng(1).standard_t(5, 500)


def reference(name: str, values: np.ndarray) -> tuple[float, float]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        match name:
            case "adf":
                return stattools.adfuller(values, result_object=False)[:2]
            case "kpss":
                return stattools.kpss(values, nlags="auto", result_object=False)[:2]
            case "phillips_perron":
                test = PhillipsPerron(values)
                return test.stat, test.pvalue
            case "jarque_bera":
                return tuple(stats.jarque_bera(values))
            case "shapiro_wilk":
                return tuple(stats.shapiro(values))
            case _:
                test = VarianceRatio(values)
                return test.stat, test.pvalue


@pytest.mark.parametrize(
    "values", [WALK, NOISE, 1e-12 * WALK, 1e12 * NOISE], ids=["walk", "noise", "tiny", "huge"]
)
@pytest.mark.parametrize("name", sorted(set(SERIES_TESTS) - {"hurst"}))
def test_results_are_those_of_the_libraries(name: str, values: np.ndarray) -> None:
    scale = np.max(np.abs(values))
    result = series_test(name, np.insert(values, 7, np.nan))
    np.testing.assert_allclose((result.statistic, result.pvalue), reference(name, values / scale), rtol=1e-8)
    assert result.count == 500
    assert result.reason is None
    assert result.null_hypothesis


def test_verdicts_on_a_walk_and_on_noise() -> None:
    pvalue = {
        (name, k): series_test(name, v).pvalue for name in SERIES_TESTS for k, v in enumerate((WALK, NOISE))
    }
    assert pvalue["adf", 0] > 0.1 > 0.01 > pvalue["adf", 1]
    assert pvalue["phillips_perron", 0] > 0.1 > 0.01 > pvalue["phillips_perron", 1]
    assert pvalue["kpss", 0] < 0.05 < pvalue["kpss", 1]
    assert pvalue["variance_ratio", 0] > 0.05 > pvalue["variance_ratio", 1]
    assert pvalue["jarque_bera", 1] < 0.01
    assert pvalue["hurst", 0] is None


@pytest.mark.parametrize("exponent", [0.3, 0.5, 0.7])
def test_hurst_recovers_fractional_noise(exponent: float) -> None:
    count = 1024
    lags = np.arange(count)
    autocovariance = 0.5 * (
        np.abs(lags + 1) ** (2 * exponent) - 2 * lags ** (2 * exponent) + np.abs(lags - 1) ** (2 * exponent)
    )
    root = np.linalg.cholesky(autocovariance[np.abs(lags[:, None] - lags)])
    paths = np.cumsum(root @ np.random.default_rng(2).standard_normal((count, 20)), axis=0)
    assert np.mean([hurst_exponent(path).statistic for path in paths.T]) == pytest.approx(exponent, abs=0.04)


def test_hurst_by_hand() -> None:
    line = hurst_exponent(np.arange(64.0))
    assert line.statistic == pytest.approx(1.0, abs=1e-12)
    assert line.lags is None


def test_notes_say_where_a_pvalue_is_not_exact() -> None:
    assert kpss(NOISE).note == "the p-value is at least 0.1"
    assert kpss(5.0 * WALK).note is None or "at most 0.01" in str(kpss(WALK).note)
    assert shapiro_wilk(NOISE).note is None
    assert "above 5000" in str(shapiro_wilk(np.random.default_rng(0).standard_normal(5001)).note)


@pytest.mark.parametrize("name", sorted(SERIES_TESTS))
def test_what_cannot_be_tested_has_a_reason(name: str) -> None:
    for values, reason in (
        (np.arange(5.0), "insufficient_data: 5 values, 20 needed"),
        (np.full(100, 0.3), "constant_series"),
        (np.zeros(100), "constant_series"),
        (np.full(100, np.nan), "insufficient_data: 0 values, 20 needed"),
    ):
        result = series_test(name, values)
        assert (result.statistic, result.pvalue, result.reason) == (None, None, reason)


@settings(max_examples=25, deadline=None)
@given(
    arrays(np.float64, st.integers(0, 40), elements=st.floats(width=64)),
    st.sampled_from(sorted(SERIES_TESTS)),
)
def test_any_series_gets_a_result(values: np.ndarray, name: str) -> None:
    result = series_test(name, values)
    assert (result.statistic is None) == (result.reason is not None)
    assert result.statistic is None or math.isfinite(result.statistic)


def test_an_unknown_name_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="series test 'dfgls' is not known; use one of adf, hurst"):
        series_test("dfgls", WALK)
