"""Stability tests and the gate."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import polars as pl
import pytest
from statsmodels.stats.diagnostic import acorr_ljungbox, het_arch

from garch_platform.quant import stability
from garch_platform.quant.stability import STABILITY_SCHEMA, StabilityGate, apply_gate, stability_tests
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


def test_a_failing_test_is_a_row_and_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    panel = np.column_stack([noise(100, 1), noise(100, 2)])
    real, calls = stability.arch_lm_pvalue, []

    def fails_once(series: np.ndarray, *, lags: int) -> float:
        calls.append(lags)
        if len(calls) == 1:
            raise np.linalg.LinAlgError("SVD did not converge")
        return real(series, lags=lags)

    monkeypatch.setattr(stability, "arch_lm_pvalue", fails_once)
    result = apply_gate(run_tests(panel), RELAXED)
    assert result["reason"].to_list() == ["test_failed: SVD did not converge", None]
    assert result["is_stable"].to_list() == [False, True]
    assert result["filter_reason"][0] == "test_failed: SVD did not converge"


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
