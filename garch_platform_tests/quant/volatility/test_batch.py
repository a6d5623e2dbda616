"""Fits of a panel: certified values, parity with arch, planted truth, scale, health and bad input."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from arch import arch_model
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from statsmodels.stats.diagnostic import acorr_ljungbox, het_arch

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.timeseries.generator import simulate_garch
from garch_platform.quant.volatility import GarchBatch, estimation, fit_garch_batch
from garch_platform.quant.volatility.batch import HEALTH_SCHEMA

DMBP = Path(__file__).resolve().parents[4] / "shared" / "data" / "benchmarks" / "dmbp.csv"
TRUE = {"mu": 0.0, "omega": 0.02, "alpha": 0.08, "beta": 0.90}
GARCH = ("mu", "omega", "alpha", "beta")
NUMBERS = pl.selectors.numeric()


@cache
def garch_panel(count: int, series: int, nu: float | None = None, gamma: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(count + series)
    if nu is None:
        shocks = rng.standard_normal((count, series))
    else:
        shocks = rng.standard_t(nu, (count, series)) * math.sqrt((nu - 2.0) / nu)
    if not gamma:
        return simulate_garch(shocks, omega=TRUE["omega"], alpha=TRUE["alpha"], beta=TRUE["beta"])
    variance, returns = np.ones(series), np.empty((count, series))
    for t in range(count):
        returns[t] = np.sqrt(variance) * shocks[t]
        weight = TRUE["alpha"] - gamma / 2.0 + gamma * (returns[t] < 0.0)
        variance = TRUE["omega"] + weight * returns[t] ** 2 + TRUE["beta"] * variance
    return returns


@cache
def long_fit() -> GarchBatch:
    return fit_garch_batch(garch_panel(4000, 12))


def close(left: pl.DataFrame, right: pl.DataFrame, rtol: float, atol: float = 0.0) -> None:
    np.testing.assert_allclose(
        left.select(NUMBERS).cast(pl.Float64).to_numpy(),
        right.select(NUMBERS).cast(pl.Float64).to_numpy(),
        rtol=rtol,
        atol=atol,
    )


@pytest.fixture(scope="module")
def exchange_rate() -> np.ndarray:
    if not DMBP.exists():
        pytest.skip("the DEM/GBP returns of Bollerslev and Ghysels are not beside the project")
    return pl.read_csv(DMBP)["ret_pct"].to_numpy()


def test_certified_estimates_to_ten_digits(exchange_rate: np.ndarray) -> None:
    """Fiorentini, Calzolari and Panattoni (1996), certified by McCullough and Renfro (1999)."""
    fit = fit_garch_batch(exchange_rate, backcast="sample")
    certified = [-0.006190408379994, 0.0107613978518, 0.153134061820, 0.805973670305]
    np.testing.assert_allclose(fit.params.select(GARCH).row(0), certified, rtol=1e-10)
    assert fit.health["log_likelihood"][0] == pytest.approx(-1106.607881041288, rel=1e-14)
    hessian = [0.00846212, 0.00285271, 0.0265228, 0.0335527]
    np.testing.assert_allclose(fit.hessian_standard_errors.row(0)[:4], hessian, rtol=2e-6)
    qmle = [0.0091893540, 0.006493186, 0.053531703, 0.07246145]
    np.testing.assert_allclose(fit.standard_errors.row(0)[:4], qmle, rtol=1e-7)
    assert fit.health["gradient_norm"][0] < 1e-6


def test_a_fixed_presample_variance_is_the_other_published_variant(exchange_rate: np.ndarray) -> None:
    fit = fit_garch_batch(exchange_rate, backcast=float(np.var(exchange_rate)))
    np.testing.assert_allclose(
        fit.params.select(GARCH).row(0), [-0.00617319, 0.010761, 0.153132, 0.805977], rtol=1e-4
    )
    assert fit.health["log_likelihood"][0] == pytest.approx(-1106.60665, abs=5e-6)
    default = fit_garch_batch(exchange_rate)
    assert default.health["log_likelihood"][0] == pytest.approx(-1104.5214, abs=5e-5)


@pytest.mark.parametrize("model", ["GARCH", "GJR"])
@pytest.mark.parametrize("dist", ["normal", "t"])
@pytest.mark.parametrize("count", [400, 2000])
def test_parity_with_arch(model: str, dist: str, count: int) -> None:
    panel = garch_panel(count, 3, 6.0, gamma=0.06 if model == "GJR" else 0.0)
    fit = fit_garch_batch(panel, dist=dist, model=model)
    names = [name for name in fit.params.columns if name != "nu" or dist == "t"]
    for column in range(panel.shape[1]):
        peer = arch_model(panel[:, column], dist=dist, o=int(model == "GJR"), rescale=False)
        default = peer.fit(disp="off", show_warning=False)
        params = np.array(fit.params.select(names).row(column))
        ours = peer.fix(params).loglikelihood
        assert ours >= default.loglikelihood - 1e-8 * abs(default.loglikelihood)
        assert fit.health["log_likelihood"][column] == pytest.approx(ours, rel=1e-12)
        if fit.health["at_boundary"][column]:
            continue
        tight = peer.fit(disp="off", tol=1e-15, starting_values=default.params.to_numpy(), show_warning=False)
        if ours > tight.loglikelihood + 1e-6:
            continue
        errors = tight.std_err.to_numpy()
        np.testing.assert_array_less(np.abs(params - tight.params.to_numpy()) / errors, 2e-3)
        ours_errors = fit.standard_errors.select(f"{name}_se" for name in names).row(column)
        np.testing.assert_allclose(ours_errors, errors, rtol=0.02)
        close(
            fit.health[[column]].select("aic", "bic"),
            pl.DataFrame([{"aic": tight.aic, "bic": tight.bic}]),
            1e-6,
        )
        variance = fit.health["last_variance"][column]
        assert variance == pytest.approx(tight.conditional_volatility[-1] ** 2, rel=1e-3)
        ahead = tight.forecast(horizon=5).variance.to_numpy()[-1]
        np.testing.assert_allclose(fit.forecast(5)[:, column], ahead, rtol=1e-3)
        assert fit.health["forecast_variance"][column] == fit.forecast(1)[0, column]


def test_pure_noise_is_not_fitted_worse_than_by_arch() -> None:
    noise = np.random.default_rng(5).standard_normal((600, 25))
    ours = fit_garch_batch(noise)
    below = 0
    for column in range(noise.shape[1]):
        peer = arch_model(noise[:, column], rescale=False)
        default = peer.fit(disp="off", show_warning=False)
        mine = peer.fix(np.array(ours.params.select(GARCH).row(column))).loglikelihood
        below += mine < default.loglikelihood - 1e-8 * abs(default.loglikelihood)
    assert below == 0
    single = fit_garch_batch(noise, starts="single").health["log_likelihood"]
    assert (ours.health["log_likelihood"] >= single - 1e-6).all()
    assert (ours.health["log_likelihood"] > single + 1e-3).any(), "the further starts find better tops"
    assert ours.health["gradient_norm"].max() < 1e-4


def test_planted_parameters_are_within_their_standard_errors() -> None:
    fit = long_fit()
    for name, value in TRUE.items():
        error = (fit.params[name] - value) / fit.standard_errors[f"{name}_se"]
        assert error.abs().max() < 4.0, name
        assert abs(error.mean()) < 1.5, name
    assert fit.health["status"].unique().to_list() == ["ok"]
    assert not fit.health["at_boundary"].any()
    assert fit.health["start"].unique().to_list() == ["grid"]


def test_health_follows_from_the_parameters() -> None:
    table = long_fit().table
    persistence = table["alpha"] + table["beta"]
    np.testing.assert_allclose(table["persistence"], persistence, rtol=1e-14)
    np.testing.assert_allclose(table["variance_half_life"], np.log(0.5) / np.log(persistence), rtol=1e-12)
    np.testing.assert_allclose(table["aic"], 8.0 - 2.0 * table["log_likelihood"], rtol=1e-12)
    np.testing.assert_allclose(table["bic"], 4.0 * math.log(4000) - 2.0 * table["log_likelihood"], rtol=1e-12)
    assert (table["ljung_box_pvalue"] > 0.05).mean() > 0.6, "a true model leaves clean residuals"
    assert (table["arch_lm_pvalue"] > 0.05).mean() > 0.6
    assert table["fallback"].null_count() == len(table)


def test_residual_tests_are_those_of_statsmodels() -> None:
    panel = garch_panel(700, 11, 6.0).copy()
    panel[:37, 4] = np.nan
    fit = fit_garch_batch(panel, dist="t")
    for column in range(panel.shape[1]):
        residuals = fit.standardised_residuals[:, column]
        residuals = residuals[np.isfinite(residuals)]
        boxed = acorr_ljungbox(residuals, lags=[10])["lb_pvalue"].iloc[0]
        assert fit.health["ljung_box_pvalue"][column] == pytest.approx(boxed, rel=1e-9)
        engle = het_arch(residuals, nlags=5, result_object=True).lmpval
        assert fit.health["arch_lm_pvalue"][column] == pytest.approx(engle, rel=1e-9)


@pytest.mark.parametrize("dist", ["normal", "t"])
@pytest.mark.parametrize("factor", [100.0, 5e-4, 1e-12, 1e12])
def test_the_scale_of_the_returns_is_undone(dist: str, factor: float) -> None:
    returns = garch_panel(1000, 5)
    plain = fit_garch_batch(returns, dist=dist)
    scaled = fit_garch_batch(returns * factor, dist=dist)
    powers = {"mu": 1, "omega": 2, "mu_se": 1, "omega_se": 2, "last_variance": 2, "forecast_variance": 2}
    restored = scaled.table.with_columns(
        *[pl.col(name) / factor**power for name, power in powers.items()],
        scale=pl.col("scale") * factor,
        log_likelihood=pl.col("log_likelihood") + 1000 * math.log(factor),
    )
    compared = [name for name in plain.table.columns if name not in {"aic", "bic", "gradient_norm"}]
    close(restored.select(compared), plain.table.select(compared), rtol=1e-6, atol=1e-9)
    assert restored["status"].equals(plain.health["status"])


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
    assert (normal.standard_errors["alpha_se"] > 1.1 * normal.hessian_standard_errors["alpha_se"]).all()


def test_gjr_finds_the_asymmetry() -> None:
    panel = garch_panel(4000, 6, None, gamma=0.1)
    fit = fit_garch_batch(panel, model="GJR")
    error = (fit.params["gamma"] - 0.1) / fit.standard_errors["gamma_se"]
    assert error.abs().max() < 4.0
    assert (fit.health["bic"] < fit_garch_batch(panel).health["bic"]).all()
    persistence = fit.params["alpha"] + 0.5 * fit.params["gamma"] + fit.params["beta"]
    np.testing.assert_allclose(fit.health["persistence"], persistence, rtol=1e-13)


def test_short_series_sit_on_boundaries_and_are_marked() -> None:
    short = fit_garch_batch(garch_panel(60, 40), min_observations=50)
    assert short.health["converged"].all(), "the optimiser itself sees nothing wrong"
    assert short.health["at_boundary"].sum() > 15
    assert short.health["boundary"].is_not_null().equals(short.health["at_boundary"])
    assert short.health["status"].unique().to_list() == ["weak"]


def test_every_series_has_a_row_whatever_its_fault() -> None:
    panel = np.full((400, 8), np.nan)
    panel[:, 0] = garch_panel(400, 1)[:, 0]
    panel[:10, 1] = 0.01 * garch_panel(400, 1)[:10, 0]
    panel[:, 2] = 0.0
    panel[:, 3] = 0.001
    panel[::2, 5] = garch_panel(200, 1)[:, 0]
    panel[:, 6] = np.where(np.arange(400) % 5 == 0, panel[:, 0], 0.0)
    panel[:, 7] = panel[:, 0] * 1e300
    fit = fit_garch_batch(panel, min_observations=250)
    insufficient = "insufficient_data: {} returns, 250 needed"
    assert fit.health.select("status", "reason").rows() == [
        ("weak", None),
        ("insufficient", insufficient.format(10)),
        ("failed", "constant_series"),
        ("failed", "constant_series"),
        ("insufficient", insufficient.format(0)),
        ("insufficient", insufficient.format(200)),
        ("failed", "stale_series: 80% of the returns are the same value"),
        ("failed", f"out_of_range: returns of size {np.abs(panel[:, 7]).max():g} cannot be squared"),
    ]
    assert fit.health["fallback"].to_list() == [None, None, None, None, None, "har", "har", None]
    assert fit.health["forecast_variance"].is_null().to_list() == [False, *[True] * 4, False, False, True]
    assert fit.params["alpha"].null_count() == 7
    assert dict(fit.health.schema) == HEALTH_SCHEMA
    assert fit.table.shape == (8, 10 + len(HEALTH_SCHEMA))
    assert np.isfinite(fit.conditional_volatility).sum() == 400
    assert np.isfinite(fit.forecast(3)).sum(axis=0).tolist() == [3, *[0] * 7]


def test_absent_returns_are_dropped() -> None:
    returns = garch_panel(400, 1)[:, 0]
    where = [0, 7, 200, 400]
    gappy = np.insert(returns, where, [np.nan, np.inf, np.nan, np.nan])
    with_gaps, without = fit_garch_batch(gappy), fit_garch_batch(returns)
    assert with_gaps.table.equals(without.table)
    present = np.isfinite(gappy)
    np.testing.assert_array_equal(with_gaps.conditional_volatility[present], without.conditional_volatility)
    assert np.isnan(with_gaps.conditional_volatility[~present]).all()


def test_series_do_not_depend_on_their_neighbours_order_or_threads() -> None:
    panel = garch_panel(500, 21, 6.0).copy()
    for column in range(0, 21, 2):
        panel[: 10 * column, column] = np.nan
    whole = fit_garch_batch(panel, dist="t").table
    order = np.random.default_rng(0).permutation(21)
    assert fit_garch_batch(panel[:, order], dist="t").table.equals(whole[order.tolist()])
    assert fit_garch_batch(panel, dist="t", workers=3).table.equals(whole)
    alone = pl.concat([fit_garch_batch(panel[:, [column]], dist="t").table for column in range(21)])
    assert alone.equals(whole)
    twice = fit_garch_batch(np.hstack([panel, panel[:, :3]]), dist="t").table
    assert twice[21:].equals(whole[:3])


def test_the_future_does_not_move_the_conditional_volatility() -> None:
    returns = garch_panel(1000, 1)[:, 0]
    fit = fit_garch_batch(returns)
    residuals = fit.standardised_residuals[:, 0] * fit.conditional_volatility[:, 0] + fit.params["mu"][0]
    np.testing.assert_allclose(residuals, returns, rtol=1e-12, atol=1e-13)
    level = fit.params["omega"][0] / (1.0 - fit.health["persistence"][0])
    assert fit.forecast(2000)[-1, 0] == pytest.approx(level, rel=1e-6)


def test_a_search_that_does_not_converge_keeps_no_estimates(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimation, "MOST_EVALUATIONS", 1)
    fit = fit_garch_batch(garch_panel(300, 1)).table.row(0, named=True)
    assert fit["status"] == "failed"
    assert fit["reason"].startswith("not_converged: ")
    assert fit["converged"] is False
    assert fit["iterations"] == 1
    assert fit["fallback"] == "har"
    assert fit["fallback_reason"] == fit["reason"]
    assert fit["forecast_variance"] > 0.0
    kept = {"scale", "n_observations", "iterations", "forecast_variance"}
    numbers = [name for name, kind in HEALTH_SCHEMA.items() if kind.is_numeric() and name not in kept]
    assert all(fit[name] is None for name in (*GARCH, "alpha_se", *numbers))


HARD = arrays(
    np.float64,
    st.tuples(st.integers(1, 400), st.integers(1, 4)),
    elements=st.floats(allow_nan=True, allow_infinity=True),
    fill=st.sampled_from([0.0, 1.0, math.nan, 1e-12]),
)


@settings(max_examples=40, deadline=None)
@given(panel=HARD, dist=st.sampled_from(["normal", "t"]), model=st.sampled_from(["GARCH", "GJR"]))
def test_no_panel_breaks_it_and_no_nan_comes_out(panel: np.ndarray, dist: str, model: str) -> None:
    fit = fit_garch_batch(panel, dist=dist, model=model, min_observations=2)
    assert len(fit.table) == panel.shape[1]
    floats = fit.table.select(pl.selectors.float())
    assert not any(series.is_nan().any() or series.is_infinite().any() for series in floats)
    unusable = ~fit.health["status"].is_in(["ok", "weak"])
    assert fit.health["reason"].is_not_null().equals(unusable)
    assert fit.params.filter(unusable)["alpha"].null_count() == unusable.sum()


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10_000), zeros=st.floats(0.0, 0.45), spikes=st.integers(0, 3))
def test_odd_but_varying_series_end_at_a_top_inside_the_constraints(
    seed: int, zeros: float, spikes: int
) -> None:
    rng = np.random.default_rng(seed)
    returns = rng.standard_t(2.5, 300) * (rng.random(300) >= zeros)
    returns[rng.integers(0, 300, spikes)] *= 1e4
    fit = fit_garch_batch(returns).table.row(0, named=True)
    assert fit["status"] == "weak", fit["reason"]
    assert fit["alpha"] >= 0.0
    assert fit["beta"] >= 0.0
    assert fit["omega"] > 0.0
    assert fit["persistence"] <= 1.0 + 1e-9
    assert fit["gradient_norm"] is not None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "GRACH"}, "model 'GRACH' is not known; use one of GARCH, GJR, TARCH, EGARCH"),
        ({"dist": "cauchy"}, "dist 'cauchy' is not known; use one of normal, t, skewt, ged"),
        ({"backcast": "zero"}, "backcast 'zero' is not known"),
        ({"backcast": -1.0}, "backcast -1.0 is not a variance"),
        ({"starts": "many"}, "starts 'many' is not known"),
        ({"model": "EGARCH", "backcast": "sample"}, "backcast 'sample' is not available for EGARCH"),
    ],
)
def test_unknown_options_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        fit_garch_batch(np.zeros((10, 1)), **options)


def test_a_horizon_and_a_shape_are_checked() -> None:
    with pytest.raises(ConfigurationError, match="horizon 0 is below 1"):
        long_fit().forecast(0)
    with pytest.raises(DataError, match="returns have 3 dimensions"):
        fit_garch_batch(np.zeros((2, 2, 2)))
    assert fit_garch_batch(np.zeros((0, 2))).health["status"].to_list() == ["insufficient"] * 2
    assert fit_garch_batch(np.zeros((9, 0))).table.shape == (0, 10 + len(HEALTH_SCHEMA))
