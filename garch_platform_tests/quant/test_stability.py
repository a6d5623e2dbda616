"""Stability tests and the gate."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.stats.diagnostic import acorr_ljungbox, het_arch

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.stability import (
    STABILITY_SCHEMA,
    StabilityGate,
    apply_gate,
    arch_lm,
    ljung_box,
    rolling_std_variation,
    stability_tests,
)
from garch_platform.quant.timeseries.generator import simulate_garch

STRICT = StabilityGate(arch_pvalue=0.05, rolling_std_cv=0.5, ljung_box_pvalue=0.05)
RELAXED = StabilityGate(arch_pvalue=1e-100, rolling_std_cv=2.0, ljung_box_pvalue=0.001)


def run_tests(returns: np.ndarray) -> pl.DataFrame:
    return stability_tests(returns, test_window=30, arch_lags=5, ljung_box_lags=10, min_observations=60)


def noise(count: int, seed: int = 0) -> np.ndarray:
    return 0.01 * np.random.default_rng(seed).standard_normal(count)


def test_statistics_are_those_of_statsmodels_and_pandas() -> None:
    returns = noise(750) + 0.001
    row = run_tests(returns[:, np.newaxis]).row(0, named=True)
    rolling = pd.Series(returns).rolling(30).std().dropna()
    assert row["record_count"] == 750
    expected = {
        "arch_test_pvalue": het_arch(returns - returns.mean(), nlags=5, result_object=True).lmpval,
        "rolling_std_cv": rolling.std() / rolling.mean(),
        "ljung_box_pvalue": acorr_ljungbox(returns, lags=[10])["lb_pvalue"].iloc[0],
    }
    for name, value in expected.items():
        np.testing.assert_allclose(row[name], value, rtol=1e-8, err_msg=name)
    assert row["reason"] is None


@pytest.mark.parametrize("factor", [100.0, 1e-5])
def test_the_scale_of_the_returns_does_not_matter(factor: float) -> None:
    returns = noise(500, 3)[:, np.newaxis]
    names = ["arch_test_pvalue", "rolling_std_cv", "ljung_box_pvalue"]
    np.testing.assert_allclose(
        run_tests(returns * factor).select(names).to_numpy(),
        run_tests(returns).select(names).to_numpy(),
        rtol=1e-8,
    )


def test_absent_returns_are_dropped() -> None:
    returns = noise(300, 1)
    gappy = np.insert(returns, [5, 100, 299], np.nan)
    assert run_tests(gappy[:, np.newaxis]).equals(run_tests(returns[:, np.newaxis]))


def test_each_series_has_its_row_and_reason() -> None:
    panel = np.full((200, 5), np.nan)
    panel[:, 0] = noise(200)
    panel[:40, 1] = noise(40)
    panel[:, 2] = 0.0
    panel[:, 3] = 0.0123
    result = run_tests(panel)
    assert dict(result.schema) == STABILITY_SCHEMA
    assert result["reason"].to_list() == [
        None,
        "insufficient_data",
        "constant_series",
        "constant_series",
        "insufficient_data",
    ]
    assert result["record_count"].to_list() == [200, 40, 200, 200, 0]
    assert result["arch_test_pvalue"].null_count() == 4


def test_a_failing_test_is_a_row_and_spares_the_others() -> None:
    alternating = np.tile([0.01, -0.01], 50)
    result = apply_gate(run_tests(np.column_stack([alternating, noise(100, 2)])), RELAXED)
    assert result["reason"].to_list() == ["test_failed: arch_test_pvalue is not finite", None]
    assert result["is_stable"].to_list() == [False, True]
    assert result["arch_test_pvalue"].to_list()[0] is None
    assert result["rolling_std_cv"].to_list()[0] is None


def reference(series: np.ndarray) -> tuple[float, float, float, float, float]:
    """ARCH-LM(5), Ljung-Box(10) with p-values, and CV(30), of the series scaled to unit variance."""
    present = series[np.isfinite(series)]
    moved = present - np.median(present)
    moved = moved / np.max(np.abs(moved))
    standard = (moved - moved.mean()) / moved.std()
    lm = het_arch(standard, nlags=5, result_object=True)
    lb = acorr_ljungbox(standard, lags=[10])
    rolling = np.lib.stride_tricks.sliding_window_view(standard, 30).std(axis=1, ddof=1)
    variation = rolling.std(ddof=1) / rolling.mean()
    return lm.lm, lm.lmpval, lb["lb_stat"].iloc[0], lb["lb_pvalue"].iloc[0], variation


def hard_panel() -> np.ndarray:
    rng = np.random.default_rng(8)
    count = 700
    gaps = rng.standard_t(3, count)
    gaps[rng.random(count) < 0.2] = np.nan
    first, last = rng.standard_normal(count), rng.standard_normal(count)
    first[0], last[-1] = 1e5, -1e5
    slow = np.sqrt(1.0 + 1e-6 * np.cumsum(np.cumsum(rng.standard_normal(count)))) * rng.choice([-1, 1], count)
    cycle = np.tile([1.0, 2.0, 5.0], 234)[:count] + 1e-9 * rng.standard_normal(count)
    short = np.full(count, np.nan)
    short[200:290] = rng.standard_normal(90)
    garch = simulate_garch(rng.standard_normal((count, 1)), omega=0.02, alpha=0.3, beta=0.69)[:, 0]
    return np.column_stack(
        [
            rng.standard_normal(count),
            rng.standard_normal(count) * 1e-12,
            rng.standard_normal(count) * 1e12 + 3e12,
            rng.standard_normal(count) * 1e-170,
            rng.standard_normal(count) * 1e170,
            1.0 + 1e-9 * rng.standard_normal(count),
            gaps,
            first,
            last,
            slow,
            cycle,
            short,
            garch,
            np.cumsum(rng.standard_normal(count)),
        ]
    )


def test_the_batch_equals_statsmodels_and_numpy_to_ten_digits() -> None:
    panel = hard_panel()
    lm = arch_lm(panel, lags=5, centred=True)
    lb = ljung_box(panel, lags=10)
    rows = run_tests(panel)
    for column in range(panel.shape[1]):
        expected = reference(panel[:, column])
        got = lm.statistic[column], lm.pvalue[column], lb.statistic[column], lb.pvalue[column]
        np.testing.assert_allclose(got, expected[:4], rtol=1e-10, err_msg=f"series {column}")
        variation = rows["rolling_std_cv"][column]
        np.testing.assert_allclose(variation, expected[4], rtol=1e-10, atol=1e-15, err_msg=f"series {column}")
    assert rows["arch_test_pvalue"].to_list() == lm.pvalue.tolist()
    assert rows["ljung_box_pvalue"].to_list() == lb.pvalue.tolist()


def test_collinear_lags_are_solved_as_statsmodels_does() -> None:
    periodic = np.tile([1.0, -2.0], 100)
    expected = het_arch(periodic / periodic.std(), nlags=4, result_object=True)
    result = arch_lm(periodic, lags=4)
    np.testing.assert_allclose(result.statistic, [expected.lm], rtol=1e-10)
    np.testing.assert_allclose(result.pvalue, [expected.lmpval], rtol=1e-10)


@pytest.mark.parametrize("lags", [1, 2, 12])
def test_residuals_and_their_squares(lags: int) -> None:
    residuals = np.random.default_rng(5).standard_t(5, (400, 3)) + 0.3
    for column, series in enumerate(residuals.T):
        lm = het_arch(series, nlags=lags, result_object=True)
        lb = acorr_ljungbox(series**2, lags=[lags + 2], model_df=2)
        ours = arch_lm(residuals, lags=lags), ljung_box(residuals, lags=lags + 2, squared=True, fitted=2)
        np.testing.assert_allclose(ours[0].statistic[column], lm.lm, rtol=1e-10, atol=1e-12)
        np.testing.assert_allclose(ours[1].statistic[column], lb["lb_stat"].iloc[0], rtol=1e-10)
        np.testing.assert_allclose(ours[1].pvalue[column], lb["lb_pvalue"].iloc[0], rtol=1e-10)


def test_the_rolling_variation_does_not_drift_after_a_large_move() -> None:
    series = noise(5000, 6)
    series[100] = 1e6
    exact = np.lib.stride_tricks.sliding_window_view(series, 30).std(axis=1, ddof=1)
    assert rolling_std_variation(series, 30)[0] == pytest.approx(exact.std(ddof=1) / exact.mean(), rel=1e-10)


def test_permuted_series_and_more_workers_give_the_same_bits() -> None:
    panel = hard_panel()
    order = np.random.default_rng(1).permutation(panel.shape[1])
    assert run_tests(panel[:, order]).equals(run_tests(panel)[order])
    options = {"test_window": 30, "arch_lags": 5, "ljung_box_lags": 10, "min_observations": 60}
    for workers in (2, 3, 40):
        assert stability_tests(panel, workers=workers, **options).equals(run_tests(panel))


@settings(max_examples=60, deadline=None)
@given(
    values=arrays(np.float64, st.tuples(st.integers(0, 90), st.integers(1, 3)), elements=st.floats(width=64)),
    scale=st.sampled_from([1.0, 1e-12, 1e12, 1e-300, 0.0]),
)
def test_any_panel_gets_rows_without_nan(values: np.ndarray, scale: float) -> None:
    with np.errstate(all="ignore"):
        panel = values * scale
    result = apply_gate(run_tests(panel), STRICT)
    assert result.height == panel.shape[1]
    numbers = result.select("arch_test_pvalue", "rolling_std_cv", "ljung_box_pvalue")
    assert not numbers.select(pl.any_horizontal(pl.all().is_nan() | pl.all().is_infinite()).any()).item()
    usable = np.isfinite(panel).sum(axis=0) >= 60
    assert not result.filter(pl.Series(~usable))["is_stable"].any()


def test_settings_that_make_no_sense_are_named() -> None:
    with pytest.raises(ConfigurationError, match="lags is 0; use at least 1"):
        arch_lm(noise(100), lags=0)
    with pytest.raises(ConfigurationError, match="lags is 2; use at least 3"):
        ljung_box(noise(100), lags=2, fitted=2)
    with pytest.raises(ConfigurationError, match="window is 1; use at least 2"):
        rolling_std_variation(noise(100), 1)
    with pytest.raises(DataError, match="3 dimensions"):
        arch_lm(np.zeros((2, 2, 2)), lags=1)


def test_first_failing_gate_names_the_reason() -> None:
    rows = [
        (100, 0.5, 0.1, 0.5, None),
        (100, 0.05, 0.9, 0.01, None),
        (100, 0.5, 0.5, 0.01, None),
        (100, 0.5, 0.1, 0.05, None),
        (10, None, None, None, "insufficient_data"),
        (100, math.nan, 0.1, 0.5, None),
        (100, 0.5, None, 0.5, None),
    ]
    result = apply_gate(pl.DataFrame(rows, schema=STABILITY_SCHEMA, orient="row"), STRICT)
    assert result["filter_reason"].to_list() == [
        None,
        "arch_test_failed",
        "high_volatility",
        "autocorrelation_detected",
        "insufficient_data",
        "arch_test_failed",
        "high_volatility",
    ]
    assert result["is_stable"].to_list() == [True] + [False] * 6


def test_the_strict_gate_rejects_what_garch_is_for() -> None:
    rng = np.random.default_rng(11)
    shocks = rng.standard_t(6, size=(750, 40)) / math.sqrt(1.5)
    garch = simulate_garch(shocks, omega=0.02, alpha=0.08, beta=0.90)
    independent = rng.standard_normal((750, 40))
    share = {
        name: apply_gate(run_tests(returns), STRICT)["is_stable"].mean()
        for name, returns in (("garch", garch), ("independent", independent))
    }
    assert share["garch"] < 0.3
    assert share["independent"] > 0.6


def test_planted_faults_are_found() -> None:
    rng = np.random.default_rng(2)
    autocorrelated = np.convolve(rng.standard_normal(601), [1.0, 0.6], mode="valid")
    bursts = rng.standard_normal(600) * np.where(np.arange(600) < 500, 0.1, 5.0)
    result = apply_gate(run_tests(np.column_stack([autocorrelated, bursts])), RELAXED)
    loose = apply_gate(result.drop("is_stable", "filter_reason"), StabilityGate(-1.0, 0.5, -1.0))
    assert result["filter_reason"][0] == "autocorrelation_detected"
    assert loose["filter_reason"].to_list() == [None, "high_volatility"]
