"""Models that only arch fits, in the units of the returns and with the same health."""

from __future__ import annotations

import math

import numpy as np
import pytest
from arch.univariate import EGARCH, ConstantMean, GeneralizedError, SkewStudent

from garch_platform.quant.timeseries.generator import simulate_garch
from garch_platform.quant.volatility import arch_bridge, fit_garch_batch
from garch_platform.quant.volatility.batch import HEALTH_SCHEMA


@pytest.fixture(scope="module")
def returns() -> np.ndarray:
    shocks = np.random.default_rng(11).standard_normal((600, 2))
    return 0.02 * simulate_garch(shocks, omega=0.05, alpha=0.10, beta=0.85)


@pytest.mark.parametrize("model", sorted(arch_bridge.ARCH_PROCESSES))
def test_every_process_gives_a_whole_result(model: str, returns: np.ndarray) -> None:
    fit = fit_garch_batch(returns[:, :1], model=model, dist="ged" if model in {"GARCH", "GJR"} else "normal")
    row = fit.table.row(0, named=True)
    assert row["status"] == "weak", row["reason"]
    assert row["omega"] is not None
    assert dict(fit.health.schema) == HEALTH_SCHEMA
    assert row["start"] == "arch"
    volatility = fit.conditional_volatility[:, 0]
    assert 0.5 < np.sqrt(np.mean(volatility**2)) / returns[:, 0].std() < 2.0
    assert row["last_variance"] == pytest.approx(volatility[-1] ** 2)
    ahead = fit.forecast(4)
    assert ahead.shape == (4, 1)
    assert ahead[0, 0] == pytest.approx(row["forecast_variance"], rel=1e-9)
    assert 0.8 < fit.standardised_residuals[:, 0].std() < 1.2
    assert np.isfinite(fit.forecast(4)).all()
    np.testing.assert_array_equal(fit.forecast(4), ahead)


@pytest.mark.parametrize("model", ["EGARCH", "APARCH", "TARCH", "FIGARCH", "HARCH"])
def test_the_scale_of_the_returns_is_undone(model: str, returns: np.ndarray) -> None:
    """The variance path, computed by arch from the parameters in the returns' own units."""
    percent = 100.0 * returns[:, 0]
    fit = fit_garch_batch(percent, model=model)
    params = fit.params.row(0)
    process, orders = arch_bridge.ARCH_PROCESSES[model]
    from arch import univariate

    peer = ConstantMean(percent, volatility=getattr(univariate, process)(**orders), rescale=False).fix(params)
    np.testing.assert_allclose(fit.conditional_volatility[:, 0], peer.conditional_volatility, rtol=1e-6)
    assert fit.health["log_likelihood"][0] == pytest.approx(peer.loglikelihood, rel=1e-9)
    small = fit_garch_batch(percent * 1e-6, model=model)
    assert small.health["persistence"].equals(fit.health["persistence"]) or np.isclose(
        small.health["persistence"][0], fit.health["persistence"][0], rtol=1e-3
    )


def test_standard_errors_follow_the_change_of_units(returns: np.ndarray) -> None:
    percent = 100.0 * returns[:, 0]
    fit = fit_garch_batch(percent, model="EGARCH", dist="ged")
    assert fit.params.columns == ["mu", "omega", "alpha", "gamma", "beta", "nu"]
    model = ConstantMean(percent, volatility=EGARCH(1, 1, 1), distribution=GeneralizedError(), rescale=False)
    start = np.array(fit.params.row(0))
    peer = model.fit(disp="off", tol=1e-12, show_warning=False, starting_values=start)
    assert fit.health["log_likelihood"][0] == pytest.approx(peer.loglikelihood, abs=1e-5)
    np.testing.assert_allclose(fit.standard_errors.row(0), peer.std_err.to_numpy(), rtol=0.01)


def test_thin_tails_get_a_second_start(returns: np.ndarray) -> None:
    percent = 100.0 * returns[:, 0]
    fit = fit_garch_batch(percent, model="EGARCH", dist="skewt")
    model = ConstantMean(percent, volatility=EGARCH(1, 1, 1), distribution=SkewStudent(), rescale=False)
    assert fit.params.columns == ["mu", "omega", "alpha", "gamma", "beta", "eta", "lambda"]
    default = model.fit(disp="off", show_warning=False)
    assert fit.health["log_likelihood"][0] > default.loglikelihood + 1e-3
    assert fit.health["boundary"][0] == "eta=300"


def test_same_estimate_as_the_compiled_one(returns: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    from garch_platform.quant.volatility import batch

    compiled = fit_garch_batch(returns, model="GJR", dist="t")
    monkeypatch.setattr(batch, "COMPILED", set())
    bridged = fit_garch_batch(returns, model="GJR", dist="t")
    assert bridged.table.columns == compiled.table.columns
    for name in ("mu", "omega", "alpha", "gamma", "beta"):
        distance = (bridged.params[name] - compiled.params[name]).abs() / compiled.standard_errors[
            f"{name}_se"
        ]
        assert distance.max() < 0.05, name
    names = ["log_likelihood", "aic", "bic", "forecast_variance", "ljung_box_pvalue", "arch_lm_pvalue"]
    np.testing.assert_allclose(bridged.health.select(names), compiled.health.select(names), rtol=0.02)


def test_a_fit_that_raises_is_recorded_and_spares_the_others(
    returns: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = arch_bridge._fit

    def breaks_on_the_first(series: np.ndarray, *rest: object) -> object:
        if series[0] == pytest.approx((returns[0, 0] - returns[:, 0].mean()) / returns[:, 0].std()):
            raise np.linalg.LinAlgError("Singular matrix")
        return real(series, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(arch_bridge, "_fit", breaks_on_the_first)
    fit = fit_garch_batch(returns, model="HARCH")
    assert fit.health["status"].to_list() == ["failed", "weak"]
    assert fit.health["reason"].to_list() == ["fit_failed: Singular matrix", None]
    assert fit.params["omega"].is_null().to_list() == [True, False]
    assert fit.health["fallback"].to_list() == ["har", None]


def test_an_optimiser_that_stops_early_is_recorded(
    returns: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arch_bridge, "MOST_ITERATIONS", 1)
    row = fit_garch_batch(returns[:, :1], dist="ged").table.row(0, named=True)
    assert row["status"] == "failed"
    assert row["reason"].startswith("not_converged: ")
    assert row["converged"] is False
    assert row["alpha"] is None


def test_a_given_backcast_reaches_arch(returns: np.ndarray) -> None:
    percent = 100.0 * returns[:, 0]
    fit = fit_garch_batch(percent, dist="ged", backcast=9.0)
    peer = ConstantMean(
        percent, volatility=arch_bridge._model(percent, "GARCH", "ged").volatility,
        distribution=GeneralizedError(), rescale=False,
    ).fit(disp="off", backcast=9.0, tol=1e-12, show_warning=False)  # fmt: skip
    assert fit.health["log_likelihood"][0] == pytest.approx(peer.loglikelihood, abs=1e-5)
    assert math.isfinite(fit.health["gradient_norm"][0])
