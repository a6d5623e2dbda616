"""GARCH fits: parity with arch, planted parameters, scale, health and recorded failures."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import polars as pl
import pytest
from arch import arch_model

from garch_platform.errors import ConfigurationError
from garch_platform.quant.timeseries.generator import simulate_garch
from garch_platform.quant.volatility import batch
from garch_platform.quant.volatility.batch import HEALTH_SCHEMA, PARAMETERS, GarchBatch, fit_garch_batch

TRUE = {"mu": 0.0, "omega": 0.02, "alpha": 0.08, "beta": 0.90}


@cache
def garch_panel(count: int, series: int, nu: float | None = None) -> np.ndarray:
    rng = np.random.default_rng(count + series)
    if nu is None:
        shocks = rng.standard_normal((count, series))
    else:
        shocks = rng.standard_t(nu, (count, series)) * math.sqrt((nu - 2.0) / nu)
    return simulate_garch(shocks, omega=TRUE["omega"], alpha=TRUE["alpha"], beta=TRUE["beta"])


@cache
def long_fit() -> GarchBatch:
    return fit_garch_batch(garch_panel(4000, 12))


@pytest.mark.parametrize("dist", ["normal", "t"])
def test_parity_with_arch(dist: str) -> None:
    returns = garch_panel(1500, 1, 6.0)[:, 0]
    fit = fit_garch_batch(returns[:, np.newaxis], dist=dist).table.row(0, named=True)
    result = arch_model(returns, dist=dist, rescale=False).fit(disp="off", tol=1e-10)
    params = dict(zip(PARAMETERS, result.params, strict=False))
    errors = dict(zip(PARAMETERS, result.std_err, strict=False))
    for name, value in params.items():
        assert fit[name] == pytest.approx(value, abs=0.01 * errors[name]), name
        assert fit[f"{name}_se"] == pytest.approx(errors[name], rel=0.02), name
    assert fit["log_likelihood"] == pytest.approx(result.loglikelihood, abs=1e-4)
    assert fit["log_likelihood"] >= result.loglikelihood - 1e-6
    assert fit["aic"] == pytest.approx(result.aic, abs=1e-3)
    assert fit["bic"] == pytest.approx(result.bic, abs=1e-3)
    assert fit["last_variance"] == pytest.approx(result.conditional_volatility[-1] ** 2, rel=1e-3)
    ahead = result.forecast(horizon=1).variance.iloc[-1, 0]
    assert fit["forecast_variance"] == pytest.approx(ahead, rel=1e-3)


def test_planted_parameters_are_within_their_standard_errors() -> None:
    fit = long_fit()
    for name, value in TRUE.items():
        error = (fit.params[name] - value) / fit.standard_errors[f"{name}_se"]
        assert error.abs().max() < 4.0, name
        assert abs(error.mean()) < 1.5, name
    assert fit.health["status"].unique().to_list() == ["ok"]
    assert not fit.health["at_boundary"].any()


def test_health_follows_from_the_parameters() -> None:
    table = long_fit().table
    persistence = table["alpha"] + table["beta"]
    np.testing.assert_allclose(table["persistence"], persistence, rtol=1e-14)
    np.testing.assert_allclose(table["variance_half_life"], np.log(0.5) / np.log(persistence), rtol=1e-12)
    np.testing.assert_allclose(table["aic"], 8.0 - 2.0 * table["log_likelihood"], rtol=1e-12)
    np.testing.assert_allclose(table["bic"], 4.0 * math.log(4000) - 2.0 * table["log_likelihood"], rtol=1e-12)
    assert (table["ljung_box_pvalue"] > 0.05).mean() > 0.6, "a true model leaves clean residuals"
    assert (table["arch_lm_pvalue"] > 0.05).mean() > 0.6


@pytest.mark.parametrize("dist", ["normal", "t"])
@pytest.mark.parametrize("factor", [100.0, 5e-4, 1e-7])
def test_the_scale_of_the_returns_is_undone(dist: str, factor: float) -> None:
    returns = garch_panel(1000, 3)
    plain = fit_garch_batch(returns, dist=dist).table
    scaled = fit_garch_batch(returns * factor, dist=dist).table
    spread = plain["alpha_se"]
    assert ((scaled["alpha"] - plain["alpha"]).abs() / spread).max() < 0.05
    np.testing.assert_allclose(scaled["omega"] / factor**2, plain["omega"], rtol=0.01)
    np.testing.assert_allclose(scaled["forecast_variance"] / factor**2, plain["forecast_variance"], rtol=1e-3)
    shift = 1000 * math.log(factor)
    np.testing.assert_allclose(scaled["log_likelihood"] + shift, plain["log_likelihood"], atol=0.05)
    assert scaled["status"].unique().to_list() == ["ok"]


def test_raw_minute_decimals_are_what_arch_alone_fails_on() -> None:
    returns = garch_panel(1000, 12) * 5e-4
    raw = [arch_model(series, rescale=False).fit(disp="off", show_warning=False) for series in returns.T]
    ours = fit_garch_batch(returns).health
    assert sum(result.convergence_flag != 0 for result in raw) >= 6
    assert ours["converged"].all()
    assert (ours["log_likelihood"] >= [result.loglikelihood - 1e-6 for result in raw]).all()


def test_student_t_finds_the_degrees_of_freedom() -> None:
    fit = fit_garch_batch(garch_panel(4000, 4, 6.0), dist="t")
    error = (fit.params["nu"] - 6.0) / fit.standard_errors["nu_se"]
    assert error.abs().max() < 4.0
    normal = fit_garch_batch(garch_panel(4000, 4, 6.0))
    assert (fit.health["bic"] < normal.health["bic"]).all()
    assert normal.params["nu"].null_count() == 4


def test_short_series_sit_on_boundaries_and_are_marked() -> None:
    short = fit_garch_batch(garch_panel(60, 40), min_observations=50)
    assert short.health["converged"].all(), "the optimiser itself sees nothing wrong"
    assert short.health["at_boundary"].sum() > 15
    assert short.health["boundary"].is_not_null().equals(short.health["at_boundary"])
    assert short.health["status"].unique().to_list() == ["weak"]


def test_every_series_has_a_row_whatever_its_fault() -> None:
    panel = np.full((400, 6), np.nan)
    panel[:, 0] = garch_panel(400, 1)[:, 0]
    panel[:10, 1] = 0.01
    panel[:, 2] = 0.0
    panel[:, 3] = 0.001
    panel[::2, 5] = garch_panel(200, 1)[:, 0]
    fit = fit_garch_batch(panel, min_observations=250)
    assert (
        fit.health["status"].to_list() == ["weak", "insufficient", "failed", "failed"] + ["insufficient"] * 2
    )
    assert fit.health["reason"].to_list() == [
        None,
        "insufficient_data: 10 returns, 250 needed",
        "constant_series",
        "constant_series",
        "insufficient_data: 0 returns, 250 needed",
        "insufficient_data: 200 returns, 250 needed",
    ]
    assert fit.params["alpha"].null_count() == 5
    assert dict(fit.health.schema) == HEALTH_SCHEMA
    assert fit.table.shape == (6, 2 * len(PARAMETERS) + len(HEALTH_SCHEMA))


def test_absent_returns_are_dropped() -> None:
    returns = garch_panel(400, 1)[:, 0]
    gappy = np.insert(returns, [0, 7, 200, 400], [np.nan, np.inf, np.nan, np.nan])
    assert fit_garch_batch(gappy[:, np.newaxis]).table.equals(fit_garch_batch(returns[:, np.newaxis]).table)


def test_a_fit_that_raises_is_recorded_and_spares_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    panel, real = garch_panel(300, 2), batch._maximise
    first = panel[0, 0] / panel[:, 0].std()

    def breaks_on_the_first(scaled: np.ndarray, dist: batch.Distribution) -> object:
        if scaled[0] == pytest.approx(first):
            raise np.linalg.LinAlgError("Singular matrix")
        return real(scaled, dist)

    monkeypatch.setattr(batch, "_maximise", breaks_on_the_first)
    fit = fit_garch_batch(panel)
    assert fit.health["status"].to_list() == ["failed", "weak"]
    assert fit.health["reason"].to_list() == ["fit_failed: Singular matrix", None]
    assert fit.params["omega"].is_null().to_list() == [True, False]


def test_a_fit_that_does_not_converge_keeps_no_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batch, "MAX_ITERATIONS", 1)
    fit = fit_garch_batch(garch_panel(300, 1)).table.row(0, named=True)
    assert fit["status"] == "failed"
    assert fit["reason"].startswith("not_converged: ")
    assert fit["converged"] is False
    assert fit["iterations"] == 1
    assert all(fit[name] is None for name in (*PARAMETERS, "log_likelihood", "alpha_se", "persistence"))


def test_a_series_does_not_depend_on_its_neighbours() -> None:
    panel = garch_panel(400, 3)
    together = fit_garch_batch(panel).table
    alone = pl.concat([fit_garch_batch(panel[:, [k]]).table for k in range(3)])
    assert together.equals(alone)


@pytest.mark.parametrize(("option", "value"), [("model", "EGARCH"), ("dist", "cauchy"), ("backcast", "zero")])
def test_unknown_options_are_refused(option: str, value: str) -> None:
    with pytest.raises(ConfigurationError, match=f"{option} '{value}' is not known"):
        fit_garch_batch(np.zeros((10, 1)), **{option: value})  # type: ignore[arg-type]
