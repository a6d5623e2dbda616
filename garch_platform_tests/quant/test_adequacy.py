"""Model adequacy: size on true models, what each test sees, and bad input."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy.stats import chi2
from statsmodels.regression.linear_model import OLS
from statsmodels.stats.diagnostic import acorr_ljungbox, het_arch
from statsmodels.stats.multitest import multipletests
from statsmodels.tools import add_constant

from garch_platform.errors import ConfigurationError
from garch_platform.quant.adequacy import ADEQUACY_SCHEMA, holm, model_adequacy
from garch_platform.quant.timeseries.generator import simulate_garch
from garch_platform.quant.volatility import fit_garch_batch

RESIDUALS = np.random.default_rng(4).standard_t(6, (800, 12)) / math.sqrt(1.5)


def standardised(returns: np.ndarray, params: pl.DataFrame) -> np.ndarray:
    """Residuals of the fitted models, the variance started at its sample mean."""
    mu, omega, alpha, beta = (params[name].to_numpy() for name in ("mu", "omega", "alpha", "beta"))
    errors = returns - mu
    variance, result = errors.var(axis=0), np.empty_like(errors)
    for t, error in enumerate(errors):
        result[t] = error / np.sqrt(variance)
        variance = omega + alpha * error**2 + beta * variance
    return result


def test_pvalues_are_those_of_statsmodels() -> None:
    report = model_adequacy(RESIDUALS)
    assert dict(report.schema) == ADEQUACY_SCHEMA
    for row, z in zip(report.iter_rows(named=True), RESIDUALS.T, strict=True):
        expected = {
            "ljung_box_pvalue": acorr_ljungbox(z, lags=[10])["lb_pvalue"].iloc[0],
            "ljung_box_squares_pvalue": acorr_ljungbox(z**2, lags=[10])["lb_pvalue"].iloc[0],
            "arch_lm_pvalue": het_arch(z, nlags=5, result_object=True).lmpval,
        }
        for name, value in expected.items():
            np.testing.assert_allclose(row[name], value, rtol=1e-10, err_msg=name)
        rejected = multipletests(list(expected.values()), alpha=0.05, method="holm")[0]
        assert row["verdict"] == ("inadequate" if rejected.any() else "adequate")
        names = [
            name.removesuffix("_pvalue") for name, wrong in zip(expected, rejected, strict=True) if wrong
        ]
        assert row["failing"] == (", ".join(names) or None)


@settings(max_examples=5, deadline=None)
@given(st.lists(st.floats(0.0, 1.0), min_size=3, max_size=6))
def test_holm_is_that_of_statsmodels(pvalues: list[float]) -> None:
    np.testing.assert_allclose(holm(np.array(pvalues)), multipletests(pvalues, method="holm")[1], rtol=1e-12)


def test_sign_bias_is_the_regression_of_engle_and_ng() -> None:
    z = RESIDUALS[:, 0]
    before, squares = z[:-1], z[1:] ** 2
    negative = (before < 0.0).astype(float)
    regressors = {
        "sign_bias": negative,
        "negative_size_bias": negative * before,
        "positive_size_bias": (1.0 - negative) * before,
    }
    row = model_adequacy(z).row(0, named=True)
    for name, values in regressors.items():
        fit = OLS(squares, add_constant(values)).fit()
        np.testing.assert_allclose(row[f"{name}_pvalue"], fit.pvalues[1], rtol=1e-9)
    joint = OLS(squares, add_constant(np.column_stack(list(regressors.values())))).fit()
    expected = chi2.sf(len(squares) * joint.rsquared, 3)
    np.testing.assert_allclose(row["joint_sign_bias_pvalue"], expected, rtol=1e-9)


def test_true_garch_is_adequate_in_all_but_a_few_percent() -> None:
    shocks = np.random.default_rng(1).standard_normal((800, 300))
    returns = simulate_garch(shocks, omega=0.02, alpha=0.08, beta=0.90)
    report = model_adequacy(standardised(returns, fit_garch_batch(returns).params))
    tested = report.filter(pl.col("verdict") != "untested")
    assert tested.height >= 290
    size = (tested["verdict"] == "inadequate").mean()
    assert size <= 0.07 + 1.645 * math.sqrt(0.07 * 0.93 / tested.height)
    assert (report["joint_sign_bias_pvalue"] < 0.05).mean() <= 0.08
    assert (report["cusum_squares_pvalue"] < 0.05).mean() <= 0.08


def test_a_missing_model_is_named_by_the_tests_that_see_it() -> None:
    shocks = np.random.default_rng(2).standard_normal((1500, 20))
    unmodelled = simulate_garch(shocks, omega=0.02, alpha=0.15, beta=0.83)
    report = model_adequacy(unmodelled / unmodelled.std(axis=0))
    assert (report["verdict"] == "inadequate").all()
    assert report["failing"].str.contains("ljung_box_squares").mean() > 0.9
    autocorrelated = shocks[1:] + 0.3 * shocks[:-1]
    assert model_adequacy(autocorrelated)["failing"].str.contains("ljung_box").all()


def test_asymmetry_and_breaks_are_reported_where_the_verdict_is_silent() -> None:
    rng = np.random.default_rng(3)
    z = rng.standard_normal((2000, 30))
    asymmetric = z.copy()
    for t in range(1, len(z)):
        asymmetric[t] *= np.sqrt(1.0 + 0.4 * np.where(asymmetric[t - 1] < 0.0, 1.0, -1.0))
    report = model_adequacy(asymmetric)
    assert (report["joint_sign_bias_pvalue"] < 0.05).mean() > 0.9
    assert (report["verdict"] == "inadequate").mean() < 0.5
    broken = z * np.where(np.arange(2000) < 1200, 1.0, 1.25)[:, np.newaxis]
    report = model_adequacy(broken)
    assert (report["cusum_squares_pvalue"] < 0.05).mean() > 0.9
    assert abs(report["cusum_break_row"].median() - 1199) < 150


def test_series_that_cannot_be_judged_have_a_reason_and_no_numbers() -> None:
    panel = np.full((300, 5), np.nan)
    panel[:50, 0] = RESIDUALS[:50, 0]
    panel[:, 1] = 0.0
    panel[:, 2] = 1.0
    panel[:, 3] = np.tile([1.0, -1.0], 150)
    panel[:, 4] = RESIDUALS[:300, 0]
    report = model_adequacy(panel)
    assert report["verdict"].to_list()[:4] == ["untested"] * 4
    assert report["reason"].to_list() == [
        "insufficient_data: 50 residuals, 100 needed",
        *["constant_residuals"] * 3,
        None,
    ]
    numbers = report.head(4).select(name for name in ADEQUACY_SCHEMA if name.endswith("pvalue"))
    assert numbers.null_count().sum_horizontal()[0] == numbers.height * numbers.width
    with pytest.raises(ConfigurationError, match="significance is 5"):
        model_adequacy(panel, significance=5.0)


def test_gaps_scale_order_and_workers_do_not_matter() -> None:
    gappy = np.insert(RESIDUALS, [3, 400, 799], np.nan, axis=0)
    report = model_adequacy(RESIDUALS)
    assert model_adequacy(gappy).drop("cusum_break_row").equals(report.drop("cusum_break_row"))
    assert model_adequacy(RESIDUALS, workers=3).equals(report)
    order = np.random.default_rng(0).permutation(RESIDUALS.shape[1])
    assert model_adequacy(RESIDUALS[:, order]).equals(report[order])
    scaled = model_adequacy(RESIDUALS * 2.0**-40)
    assert scaled.equals(report)


@settings(max_examples=40, deadline=None)
@given(arrays(np.float64, st.tuples(st.integers(0, 130), st.integers(1, 2)), elements=st.floats(width=64)))
def test_any_residuals_get_a_row_without_nan(values: np.ndarray) -> None:
    report = model_adequacy(values)
    assert report.height == values.shape[1]
    floats = report.select(pl.selectors.float())
    assert not floats.select(pl.any_horizontal(pl.all().is_nan() | pl.all().is_infinite()).any()).item()
