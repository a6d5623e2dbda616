"""Everything that the package `arch` offers beyond the compiled models, as estimates of the same form.

References
----------
.. [1] Sheppard, K., arch, https://bashtage.github.io/arch/univariate/univariate.html
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from garch_platform.quant.compiled import in_threads
from garch_platform.quant.stability import arch_lm, ljung_box
from garch_platform.quant.volatility.estimates import Estimates
from garch_platform.quant.volatility.estimation import NormalisedPanel
from garch_platform.quant.volatility.health import (
    BOUNDARY_TOLERANCE,
    RESIDUAL_ARCH_LAGS,
    RESIDUAL_LJUNG_BOX_LAGS,
)

__all__ = ["ARCH_DISTRIBUTIONS", "ARCH_PROCESSES", "ArchPaths", "estimate_with_arch"]

Floats = NDArray[np.float64]

ARCH_PROCESSES: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "GARCH": ("GARCH", {"p": 1, "q": 1}),
    "GJR": ("GARCH", {"p": 1, "o": 1, "q": 1}),
    "TARCH": ("GARCH", {"p": 1, "o": 1, "q": 1, "power": 1.0}),
    "EGARCH": ("EGARCH", {"p": 1, "o": 1, "q": 1}),
    "APARCH": ("APARCH", {"p": 1, "o": 1, "q": 1}),
    "FIGARCH": ("FIGARCH", {"p": 1, "q": 1}),
    "ARCH": ("ARCH", {"p": 1}),
    "HARCH": ("HARCH", {"lags": [1, 5, 22]}),
    "MIDAS": ("MIDASHyperbolic", {"m": 22}),
}
"""Class of `arch.univariate` and its orders, by the name of the model."""
ARCH_DISTRIBUTIONS: Final = {
    "normal": "Normal",
    "t": "StudentsT",
    "skewt": "SkewStudent",
    "ged": "GeneralizedError",
}
TOLERANCES: Final = (1e-10, 1e-8, 1e-6)
"""Tolerances of the optimiser, tried in turn until one converges; the last is the usual one."""
MOST_ITERATIONS: Final = 1000
SIMULATIONS: Final = 1000
THIN_TAILS: Final = {"t": ("nu", 500.0), "skewt": ("eta", 300.0)}
"""Tail parameter of a distribution and its upper bound."""
FLAT_TAILS: Final = 30.0
"""Above these degrees of freedom the likelihood is so flat that the optimiser stops anywhere: a second
start from the upper end decides."""
PERSISTENCE: Final[dict[str, Callable[[dict[str, float]], float]]] = {
    "GARCH": lambda p: p["alpha"] + p["beta"],
    "GJR": lambda p: p["alpha"] + 0.5 * p["gamma"] + p["beta"],
    "EGARCH": lambda p: p["beta"],
    "ARCH": lambda p: p["alpha"],
    "HARCH": lambda p: p["alpha"] + p["alpha_5"] + p["alpha_22"],
}
"""Rate at which a shock to the (log) variance fades, for the models that have one."""


@dataclass(frozen=True)
class ArchPaths:
    """Variance paths of fits by `arch`, see `VariancePaths`; ``results`` holds None where there is no fit."""

    results: list[Any]
    scale: Floats
    dist: str

    def variances(self, row: int) -> Floats | None:
        """See `VariancePaths`."""
        result = self.results[row]
        if result is None:
            return None
        path: Floats = (np.asarray(result.conditional_volatility) * self.scale[row]) ** 2
        return path

    def forecast(self, row: int, horizon: int) -> Floats | None:
        """See `VariancePaths`; simulated (1,000 paths, fixed seed) where the model has no closed form."""
        result = self.results[row]
        if result is None:
            return None
        try:
            ahead = result.forecast(horizon=horizon, reindex=False)
        except ValueError:
            distribution = _distribution(self.dist, seed=np.random.default_rng(0))
            shapes = np.asarray(result.params)[len(result.params) - distribution.num_params :]
            ahead = result.forecast(
                horizon=horizon,
                reindex=False,
                method="simulation",
                simulations=SIMULATIONS,
                rng=distribution.simulate(shapes),
            )
        path: Floats = ahead.variance.to_numpy()[-1] * self.scale[row] ** 2
        return path


def estimate_with_arch(
    panel: NormalisedPanel,
    fitted: NDArray[np.int64],
    model: str,
    dist: str,
    *,
    backcast: str | float,
    workers: int = 1,
) -> Estimates:
    """Fit the listed series of a panel with `arch` [1]_, each on returns of variance 1.

    Args:
        panel: normalised returns.
        fitted: rows to fit.
        model: a key of `ARCH_PROCESSES`.
        dist: a key of `ARCH_DISTRIBUTIONS`.
        backcast: ``arch`` or a variance in squared units of the returns.
        workers: threads.
    """
    width = len(panel.counts)
    results: list[Any] = [None] * width
    failure: list[str | None] = [None] * width

    def work(row: int) -> None:
        series = panel.series[row, : panel.counts[row]]
        presample = None if backcast == "arch" else float(backcast) / panel.scale[row] ** 2
        try:
            results[row] = _fit(series, model, dist, presample)
        except (ValueError, ArithmeticError, np.linalg.LinAlgError, RuntimeError) as error:
            failure[row] = f"fit_failed: {error}"

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        in_threads(work, fitted.tolist(), workers=workers)
        names = tuple(
            _name(name)
            for name in _model(np.zeros(10), model, dist)._all_parameter_names()  # noqa: SLF001
        )
        params, robust, hessian = (np.full((width, len(names)), np.nan) for _ in range(3))
        measures = np.full((width, 7), np.nan)
        converged, iterations = np.zeros(width, np.bool_), np.zeros(width, np.int64)
        edges: list[str | None] = [None] * width
        for row in fitted.tolist():
            result = results[row]
            if result is None:
                continue
            iterations[row] = int(result.optimization_result.nit)
            converged[row] = result.convergence_flag == 0
            if not converged[row]:
                failure[row] = f"not_converged: {result.optimization_result.message}"
            scale, mean = float(panel.scale[row]), float(panel.mean[row])
            values, slopes = _original_units(model, names, np.asarray(result.params), scale, mean)
            params[row] = values
            robust[row], hessian[row] = _errors(result, slopes)
            persistence = PERSISTENCE.get(model)
            found = dict(zip(names, values.tolist(), strict=True))
            measures[row] = _measures(result, scale, persistence(found) if persistence else math.nan)
            edges[row] = _edges(result, names)
    return Estimates(
        names=names,
        params=params,
        robust_errors=robust,
        hessian_errors=hessian,
        log_likelihood=measures[:, 0],
        persistence=measures[:, 1],
        gradient_norm=measures[:, 2],
        last_variance=measures[:, 3],
        forecast_variance=measures[:, 4],
        ljung_box_pvalue=measures[:, 5],
        arch_lm_pvalue=measures[:, 6],
        converged=converged,
        iterations=iterations,
        start=["arch"] * width,
        boundary=edges,
        failure=failure,
        paths=ArchPaths(results, panel.scale, dist),
    )


def _model(series: Floats, model: str, dist: str) -> Any:
    from arch import univariate

    process, orders = ARCH_PROCESSES[model]
    return univariate.ConstantMean(
        series,
        volatility=getattr(univariate, process)(**orders),
        distribution=_distribution(dist),
        rescale=False,
    )


def _distribution(dist: str, **options: Any) -> Any:
    from arch import univariate

    return getattr(univariate, ARCH_DISTRIBUTIONS[dist])(**options)


def _fit(series: Floats, model: str, dist: str, backcast: float | None) -> Any:
    specified = _model(series, model, dist)
    result = _climb(specified, backcast, None)
    tails = THIN_TAILS.get(dist)
    if tails and result.params[tails[0]] > FLAT_TAILS:
        thin = result.params.copy()
        thin[tails[0]] = tails[1]
        other = _climb(specified, backcast, thin)
        if other.convergence_flag == 0 and other.loglikelihood > result.loglikelihood:
            return other
    return result


def _climb(specified: Any, backcast: float | None, start: Any) -> Any:
    result = None
    for tolerance in TOLERANCES:
        result = specified.fit(
            disp="off",
            show_warning=False,
            tol=tolerance,
            backcast=backcast,
            starting_values=start,
            options={"maxiter": MOST_ITERATIONS},
        )
        if result.convergence_flag == 0:
            break
    return result


def _name(name: str) -> str:
    """``alpha[1]`` is alpha, ``alpha[5]`` is alpha_5."""
    stem, _, lag = name.removesuffix("]").partition("[")
    return stem if lag in {"", "1"} else f"{stem}_{lag}"


def _original_units(
    model: str, names: tuple[str, ...], values: Floats, scale: float, mean: float
) -> tuple[Floats, Floats]:
    """Parameters of the returns from those of (returns - mean) / scale, and the derivatives of the map."""
    converted, slopes = values.copy(), np.eye(len(names))
    place = {name: number for number, name in enumerate(names)}
    mu, omega = place["mu"], place["omega"]
    converted[mu], slopes[mu, mu] = values[mu] * scale + mean, scale
    if model == "EGARCH":
        beta = place["beta"]
        converted[omega] += (1.0 - values[beta]) * 2.0 * math.log(scale)
        slopes[omega, beta] = -2.0 * math.log(scale)
    elif model == "APARCH":
        delta = place["delta"]
        power = scale ** values[delta]
        converted[omega] *= power
        slopes[omega, omega], slopes[omega, delta] = power, converted[omega] * math.log(scale)
    else:
        power = scale if model == "TARCH" else scale**2
        converted[omega], slopes[omega, omega] = values[omega] * power, power
    return converted, slopes


def _errors(result: Any, slopes: Floats) -> tuple[Floats, Floats]:
    """Robust and Hessian standard errors after a change of units; NaN where the Hessian is singular."""
    columns = []
    for robust in (True, False):
        try:
            covariance = result.model.compute_param_cov(np.asarray(result.params), robust=robust)
        except np.linalg.LinAlgError:
            covariance = np.full(slopes.shape, np.nan)
        with np.errstate(invalid="ignore"):
            columns.append(np.sqrt(np.diag(slopes @ covariance @ slopes.T)))
    return columns[0], columns[1]


def _measures(result: Any, scale: float, persistence: float) -> tuple[float, ...]:
    """Log-likelihood, persistence, gradient, last variance, forecast, p-values of the residual tests."""
    count = int(result.nobs)
    residuals = np.asarray(result.std_resid)
    variance = float(result.conditional_volatility[-1]) ** 2 * scale**2
    ahead = float(result.forecast(horizon=1, reindex=False).variance.iloc[-1, 0]) * scale**2
    gradient = float(np.linalg.norm(np.asarray(result.optimization_result.jac)[: len(result.params)]) / count)
    return (
        float(result.loglikelihood) - count * math.log(scale),
        persistence,
        gradient,
        variance,
        ahead,
        float(ljung_box(residuals, lags=RESIDUAL_LJUNG_BOX_LAGS).pvalue[0]),
        float(arch_lm(residuals, lags=RESIDUAL_ARCH_LAGS).pvalue[0]),
    )


def _edges(result: Any, names: tuple[str, ...]) -> str | None:
    """Parameters within 1e-4 of the bounds of their search, such as ``alpha=0``."""
    model = result.model
    residuals = np.asarray(result.resid)
    bounds = [
        *model.bounds(),
        *model.volatility.bounds(residuals),
        *model.distribution.bounds(np.asarray(result.std_resid)),
    ]
    edges = [
        f"{name}={bound:g}"
        for name, value, limits in zip(names, np.asarray(result.params).tolist(), bounds, strict=True)
        for bound in limits
        if name != "omega" and abs(value - bound) < BOUNDARY_TOLERANCE * max(1.0, abs(bound))
    ]
    return ", ".join(edges) or None
