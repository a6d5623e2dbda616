"""Volatility models of a whole panel: parameters, errors and one health row a series.

The model is r_t = mu + e_t, e_t = sqrt(h_t) z_t with h_t = omega + alpha e_{t-1}^2 + beta h_{t-1} (GARCH
[1]_), or with alpha + gamma 1[e_{t-1} < 0] in place of alpha (GJR [2]_), and z normal or standardised
Student-t [3]_, by maximum likelihood in compiled kernels; other models and distributions go through the
package `arch` [4]_. Every series is fitted at variance 1 and converted back, so that percent returns and
1-minute decimals give the same fit.

References
----------
.. [1] Bollerslev, T. (1986), Journal of Econometrics 31, 307-327.
.. [2] Glosten, L. R., Jagannathan, R. and Runkle, D. E. (1993), Journal of Finance 48, 1779-1801.
.. [3] Bollerslev, T. (1987), Review of Economics and Statistics 69, 542-547.
.. [4] Sheppard, K., arch, https://bashtage.github.io/arch/univariate/univariate.html
.. [5] Fiorentini, G., Calzolari, G. and Panattoni, L. (1996), "Analytic derivatives and the computation
   of GARCH estimates", Journal of Applied Econometrics 11, 399-417.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.volatility.arch_bridge import (
    ARCH_DISTRIBUTIONS,
    ARCH_PROCESSES,
    estimate_with_arch,
)
from garch_platform.quant.volatility.estimates import Estimates
from garch_platform.quant.volatility.estimation import NormalisedPanel, estimate, normalised_panel
from garch_platform.quant.volatility.fallback import fallback_forecast
from garch_platform.quant.volatility.health import CONSTANT_TOLERANCE
from garch_platform.quant.volatility.specification import specification

__all__ = ["HEALTH_SCHEMA", "GarchBatch", "fit_garch_batch"]

Floats = NDArray[np.float64]

COMPILED: Final = {(model, dist) for model in ("GARCH", "GJR") for dist in ("normal", "t")}
LEAST_OBSERVATIONS: Final = 25
"""Returns below which nothing is fitted, whatever is asked for."""
CONSTANT: Final = "constant_series"
OUT_OF_RANGE: Final = "out_of_range"
LARGEST_SHARE_OF_ONE_VALUE: Final = 0.5
"""A series of which more than this share is one and the same value has no variance to model."""

HEALTH_SCHEMA: Final[dict[str, pl.DataType]] = {
    "status": pl.String(),
    "reason": pl.String(),
    "n_observations": pl.Int64(),
    "scale": pl.Float64(),
    "start": pl.String(),
    "converged": pl.Boolean(),
    "iterations": pl.Int64(),
    "gradient_norm": pl.Float64(),
    "log_likelihood": pl.Float64(),
    "aic": pl.Float64(),
    "bic": pl.Float64(),
    "persistence": pl.Float64(),
    "variance_half_life": pl.Float64(),
    "at_boundary": pl.Boolean(),
    "boundary": pl.String(),
    "ljung_box_pvalue": pl.Float64(),
    "arch_lm_pvalue": pl.Float64(),
    "last_variance": pl.Float64(),
    "forecast_variance": pl.Float64(),
    "fallback": pl.String(),
    "fallback_reason": pl.String(),
}
"""Columns of `GarchBatch.health`.

``status`` is ``ok``, ``weak`` (few observations), ``insufficient`` (too few, not fitted) or ``failed``,
with a ``reason``. ``scale`` is the factor that brought the returns to variance 1. ``start`` names the start
that won: ``grid`` (best point of the coarse grid), the others that are tried where the likelihood is flat
(`specification.START_NAMES`), or ``arch`` for what that package starts from. ``iterations`` counts
evaluations of the likelihood with its derivatives (`arch`: of its optimiser). ``gradient_norm`` is Newton's
decrement, the length of the gradient along the constraints in the metric of the inverse Hessian, which is
the distance from the optimum in standard errors (`arch`: the norm of the mean gradient). ``persistence`` is
alpha + gamma/2 + beta and ``variance_half_life`` its half-life in bars (null from 1 on). The p-values are of
the standardised residuals (Ljung-Box 10 lags, ARCH-LM 5 lags). Variances are per bar, in squared units of
the returns: ``last_variance`` at the last observation, ``forecast_variance`` one bar later. Where there is
no usable fit but enough returns, ``forecast_variance`` is HAR's (from 100 returns) or EWMA's (from 20):
``fallback`` is then ``har`` or ``ewma``, and ``fallback_reason`` says why.
"""


@dataclass(frozen=True)
class GarchBatch:
    """Fits of a panel; row i belongs to series i in every frame, column i in every matrix.

    Attributes:
        params: ``mu``, ``omega``, ``alpha``, ``gamma`` (GJR), ``beta``, ``nu`` per bar in the units of the
            returns, or what the other models have; null where there is no usable fit (``nu`` also for the
            normal distribution).
        standard_errors: robust standard errors ``mu_se`` ...; null where not finite.
        hessian_standard_errors: those from the Hessian alone, of the same names.
        health: the columns of `HEALTH_SCHEMA`.
        model, dist: what was fitted.
    """

    params: pl.DataFrame
    standard_errors: pl.DataFrame
    hessian_standard_errors: pl.DataFrame
    health: pl.DataFrame
    model: str
    dist: str
    _present: NDArray[np.bool_] = field(repr=False)
    _panel: NormalisedPanel = field(repr=False)
    _estimates: Estimates = field(repr=False)

    @property
    def table(self) -> pl.DataFrame:
        """Parameters, robust standard errors and health side by side."""
        return pl.concat([self.params, self.standard_errors, self.health], how="horizontal")

    @cached_property
    def conditional_volatility(self) -> Floats:
        """(T, N) conditional standard deviations in the units of the returns; NaN where absent or not fitted."""
        result = np.full(self._present.shape, np.nan)
        for row in self._fitted:
            path = self._estimates.paths.variances(row)
            if path is not None:
                result[self._present[:, row], row] = np.sqrt(path)
        return result

    @cached_property
    def standardised_residuals(self) -> Floats:
        """(T, N) shocks over their conditional standard deviations; NaN where absent or not fitted."""
        result = np.full(self._present.shape, np.nan)
        for row in self._fitted:
            returns = self._panel.series[row, : self._panel.counts[row]] * self._panel.scale[row]
            shocks = returns - (self.params["mu"][row] - self._panel.mean[row])
            here = self._present[:, row]
            result[here, row] = shocks / self.conditional_volatility[here, row]
        return result

    def forecast(self, horizon: int) -> Floats:
        """(horizon, N) expected variances of the next bars, in squared units of the returns.

        NaN for a series that has no usable fit (its fallback is a one-bar forecast, in ``health``).

        Raises:
            ConfigurationError: ``horizon`` is below 1.
        """
        if horizon < 1:
            raise ConfigurationError(f"horizon {horizon} is below 1; ask for at least one bar")
        result = np.full((horizon, len(self.health)), np.nan)
        for row in self._fitted:
            path = self._estimates.paths.forecast(row, horizon)
            if path is not None:
                result[:, row] = path
        return result

    @property
    def _fitted(self) -> list[int]:
        return np.flatnonzero(self.health["status"].is_in(["ok", "weak"]).to_numpy()).tolist()


def fit_garch_batch(
    returns: Floats,
    *,
    model: str = "GARCH",
    dist: str = "normal",
    backcast: str | float = "arch",
    starts: str = "several",
    min_observations: int = 250,
    weak_observations: int = 1000,
    workers: int = 1,
) -> GarchBatch:
    """Fit a volatility model with constant mean to every series of a panel.

    Args:
        returns: (T, N) one-bar returns of any scale; NaN or infinite = absent, dropped, so that the
            variance recursion runs from one present return to the next.
        model: ``GARCH`` or ``GJR`` (compiled with ``normal`` and ``t``), or one of `arch`'s:
            ``EGARCH``, ``TARCH``, ``APARCH``, ``FIGARCH``, ``ARCH``, ``HARCH`` (lags 1, 5, 22), ``MIDAS``.
        dist: ``normal``, ``t`` (standardised Student-t with estimated degrees of freedom), ``skewt``
            or ``ged``.
        backcast: squared shock and variance before the first return, and with it the convention of the
            robust errors. ``arch``: that package's exponentially weighted mean of the first 75 squared
            residuals, and its covariance of the scores (about their mean, divided by n - 1).
            ``sample``: the mean squared shock at the current mu, which then enters the derivatives
            (Fiorentini, Calzolari and Panattoni [5]_), and the plain sum of outer products. A number is
            a variance in squared units of the returns, with the plain sum too.
        starts: ``several``: where a coarse grid shows a flat likelihood, seven further starts;
            ``single``: the best grid point only.
        min_observations: a shorter series is not fitted (status ``insufficient``); nor is one of fewer
            than 25 returns, ever.
        weak_observations: a shorter one is fitted with status ``weak``: on a few hundred observations
            the optimum often lies on the boundary of the parameter space.
        workers: threads; the results do not depend on it.

    Returns:
        The fits. A series that cannot be fitted (too short, constant, more than half of it one and the
        same value, no convergence) has status ``failed`` or ``insufficient``, a reason and null
        parameters; it never stops the others. Permuting the series permutes the rows.

    Raises:
        ConfigurationError: an option is not known or out of range, or ``sample`` is asked of a model that
            only `arch` fits.
        DataError: ``returns`` is neither a vector nor a matrix.
    """
    _check_options(model, dist, backcast, starts)
    panel = np.asarray(returns, dtype=np.float64)
    if panel.ndim not in {1, 2}:
        raise DataError(f"returns have {panel.ndim} dimensions; give (T, N), one column a series")
    panel = panel[:, np.newaxis] if panel.ndim == 1 else panel
    if workers < 1:
        raise ConfigurationError(f"workers is {workers}; use at least 1")
    normalised = normalised_panel(panel, workers=workers)
    reasons = _refusals(normalised, max(min_observations, LEAST_OBSERVATIONS))
    fitted = np.flatnonzero(np.array([reason is None for reason in reasons], np.bool_))
    compiled = (model, dist) in COMPILED
    if compiled:
        estimates = estimate(
            normalised,
            fitted,
            specification(model, dist),
            backcast=backcast,
            several=starts == "several",
            workers=workers,
        )
    else:
        estimates = estimate_with_arch(normalised, fitted, model, dist, backcast=backcast, workers=workers)
    health = _health(normalised, estimates, reasons, weak_observations)
    usable = health["status"].is_in(["ok", "weak"]).to_numpy()
    names = [*estimates.names, *["nu"] * (compiled and dist == "normal")]

    def frame(values: Floats, suffix: str) -> pl.DataFrame:
        kept = np.where(usable[:, np.newaxis] & np.isfinite(values), values, np.nan)
        columns = dict(zip(estimates.names, kept.T, strict=True))
        absent = np.full(len(kept), np.nan)
        data = {f"{name}{suffix}": columns.get(name, absent) for name in names}
        return pl.DataFrame(data, nan_to_null=True)

    return GarchBatch(
        params=frame(estimates.params, ""),
        standard_errors=frame(estimates.robust_errors, "_se"),
        hessian_standard_errors=frame(estimates.hessian_errors, "_se"),
        health=health,
        model=model,
        dist=dist,
        _present=np.isfinite(panel),
        _panel=normalised,
        _estimates=estimates,
    )


def _check_options(model: str, dist: str, backcast: str | float, starts: str) -> None:
    for name, value, known in (
        ("model", model, ARCH_PROCESSES),
        ("dist", dist, ARCH_DISTRIBUTIONS),
        ("starts", starts, ("several", "single")),
    ):
        if value not in known:
            raise ConfigurationError(f"{name} {value!r} is not known; use one of {', '.join(known)}")
    if isinstance(backcast, str):
        if backcast not in {"arch", "sample"}:
            raise ConfigurationError(f"backcast {backcast!r} is not known; use arch, sample or a variance")
        if backcast == "sample" and (model, dist) not in COMPILED:
            raise ConfigurationError(f"backcast 'sample' is not available for {model} with {dist}; use arch")
    elif not (math.isfinite(backcast) and backcast > 0.0):
        raise ConfigurationError(f"backcast {backcast} is not a variance; give a positive number")


def _refusals(panel: NormalisedPanel, least: int) -> list[str | None]:
    """Why a series is not fitted; None where it is."""
    reasons: list[str | None] = [None] * len(panel.counts)
    largest = np.maximum(np.abs(panel.high), np.abs(panel.low))
    with np.errstate(over="ignore"):
        constant = panel.high - panel.low <= CONSTANT_TOLERANCE * largest
    stale = panel.majority > LARGEST_SHARE_OF_ONE_VALUE
    refused = (panel.counts < least) | constant | stale | ~(panel.scale > 0.0)
    for row in np.flatnonzero(refused):
        count = panel.counts[row]
        if count < least:
            reasons[row] = f"insufficient_data: {count} returns, {least} needed"
        elif constant[row]:
            reasons[row] = CONSTANT
        elif not panel.scale[row] > 0.0:
            reasons[row] = f"{OUT_OF_RANGE}: returns of size {largest[row]:g} cannot be squared"
        else:
            reasons[row] = f"stale_series: {panel.majority[row]:.0%} of the returns are the same value"
    return reasons


def _health(
    panel: NormalisedPanel, estimates: Estimates, refusals: Sequence[str | None], weak: int
) -> pl.DataFrame:
    width, parameters = len(refusals), len(estimates.names)
    tried = np.array([reason is None for reason in refusals], np.bool_)
    complete = np.isfinite(estimates.params).all(axis=1) & np.isfinite(estimates.log_likelihood)
    reasons = [own or failure for own, failure in zip(refusals, estimates.failure, strict=True)]
    for row in np.flatnonzero(tried & ~complete):
        reasons[row] = reasons[row] or "fit_failed: an estimate is not finite"
    usable = np.array([reason is None for reason in reasons], np.bool_)
    forecast, sources, whys = _forecasts(panel, estimates, reasons)
    enough = np.where(panel.counts >= weak, "ok", "weak")
    likelihood, persistence = estimates.log_likelihood, estimates.persistence
    with np.errstate(divide="ignore", invalid="ignore"):
        log_count, scale = np.log(panel.counts), 1.0 / panel.scale
        inside = (persistence > 0.0) & (persistence < 1.0)
        half_life = np.where(inside, math.log(0.5) / np.log(persistence), np.nan)
    measures = {
        "gradient_norm": estimates.gradient_norm,
        "log_likelihood": likelihood,
        "aic": 2.0 * parameters - 2.0 * likelihood,
        "bic": log_count * parameters - 2.0 * likelihood,
        "persistence": persistence,
        "variance_half_life": half_life,
        "ljung_box_pvalue": estimates.ljung_box_pvalue,
        "arch_lm_pvalue": estimates.arch_lm_pvalue,
        "last_variance": estimates.last_variance,
    }
    varying = np.array([reason != CONSTANT for reason in reasons], np.bool_) & np.isfinite(scale)
    columns: dict[str, Any] = {
        "status": [enough[row] if reason is None else _status(reason) for row, reason in enumerate(reasons)],
        "reason": reasons,
        "n_observations": panel.counts,
        "scale": np.where(varying, scale, np.nan),
        "start": [estimates.start[row] if tried[row] else None for row in range(width)],
        "converged": [bool(estimates.converged[row]) if tried[row] else None for row in range(width)],
        "iterations": [int(estimates.iterations[row]) if tried[row] else None for row in range(width)],
        "at_boundary": [estimates.boundary[row] is not None if usable[row] else None for row in range(width)],
        "boundary": [estimates.boundary[row] if usable[row] else None for row in range(width)],
        "forecast_variance": forecast,
        "fallback": sources,
        "fallback_reason": whys,
        **{name: np.where(usable & np.isfinite(values), values, np.nan) for name, values in measures.items()},
    }
    ordered = {name: columns[name] for name in HEALTH_SCHEMA}
    return pl.DataFrame(ordered, schema=HEALTH_SCHEMA, nan_to_null=True)


def _status(reason: str) -> str:
    return "insufficient" if reason.startswith("insufficient") else "failed"


def _forecasts(
    panel: NormalisedPanel, estimates: Estimates, reasons: Sequence[str | None]
) -> tuple[Floats, list[str | None], list[str | None]]:
    """Next bar's variance of each series, and where it comes from if not from its fit."""
    forecast = np.where([reason is None for reason in reasons], estimates.forecast_variance, np.nan)
    sources: list[str | None] = [None] * len(reasons)
    whys: list[str | None] = [None] * len(reasons)
    for row, reason in enumerate(reasons):
        if reason is None or reason == CONSTANT or not panel.scale[row] > 0.0:
            continue
        ahead, source, why = fallback_forecast(panel.series[row, : panel.counts[row]], reason)
        if ahead is not None:
            forecast[row], sources[row], whys[row] = ahead * panel.scale[row] ** 2, source, why
    return forecast, sources, whys
