"""GARCH(1,1) fits of a whole panel, one health row a series.

The model is r_t = mu + e_t, e_t = sqrt(h_t) z_t, h_t = omega + alpha e_{t-1}^2 + beta h_{t-1} [1]_ with
z normal or standardised Student-t [2]_, estimated by maximum likelihood with the package ``arch`` [3]_
and its backcast for h_0. Standard errors are the robust ones of Bollerslev and Wooldridge [4]_.

Each series is divided by its own standard deviation before the fit and everything is converted back
after it, so that percent returns and 1-minute decimals give the same fit: on raw decimals the
optimiser fails, and it says so only sometimes.

References
----------
.. [1] Bollerslev, T. (1986), Journal of Econometrics 31, 307-327.
.. [2] Bollerslev, T. (1987), "A conditionally heteroskedastic time series model for speculative prices
   and rates of return", Review of Economics and Statistics 69, 542-547.
.. [3] Sheppard, K., arch, https://bashtage.github.io/arch/univariate/univariate.html
.. [4] Bollerslev, T. and Wooldridge, J. M. (1992), "Quasi-maximum likelihood estimation and inference
   in dynamic models with time varying covariances", Econometric Reviews 11, 143-172.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError
from garch_platform.quant.volatility.health import (
    NU_BOUNDS,
    RESIDUAL_ARCH_LAGS,
    RESIDUAL_LJUNG_BOX_LAGS,
    arch_lm_pvalue,
    boundary,
    is_constant,
    ljung_box_pvalue,
    variance_half_life,
)

__all__ = ["HEALTH_SCHEMA", "PARAMETERS", "Distribution", "GarchBatch", "fit_garch_batch"]

Floats = NDArray[np.float64]
Distribution = Literal["normal", "t"]

PARAMETERS: Final = ("mu", "omega", "alpha", "beta", "nu")
SCALE_POWER: Final = {"mu": 1, "omega": 2, "alpha": 0, "beta": 0, "nu": 0}
ARCH_NAMES: Final = {"alpha[1]": "alpha", "beta[1]": "beta"}
TOLERANCES: Final = (1e-10, 1e-8, 1e-6)
"""Tolerances of the optimiser, tried in turn until one converges; the last is the usual one."""
MAX_ITERATIONS: Final = 1000
FLAT_NU: Final = 30.0
"""Above these degrees of freedom the likelihood is so flat that the optimiser stops anywhere: a second
start from the upper end decides."""

HEALTH_SCHEMA: Final[dict[str, pl.DataType]] = {
    "status": pl.String(),
    "reason": pl.String(),
    "n_observations": pl.Int64(),
    "scale": pl.Float64(),
    "converged": pl.Boolean(),
    "iterations": pl.Int64(),
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
}
"""Columns of `GarchBatch.health`.

``status`` is ``ok``, ``weak`` (few observations), ``insufficient`` (too few, not fitted) or ``failed``;
``scale`` is the factor that the returns were multiplied by; ``persistence`` is alpha + beta and
``variance_half_life`` its half-life in bars (null from 1 on). The p-values are of the standardised
residuals (Ljung-Box 10 lags, ARCH-LM 5 lags). Variances are per bar, in squared units of the returns:
``last_variance`` at the last observation, ``forecast_variance`` one bar later.
"""


@dataclass(frozen=True)
class GarchBatch:
    """Fits of a panel; row i belongs to series i in every frame.

    Attributes:
        params: ``mu``, ``omega``, ``alpha``, ``beta``, ``nu`` per bar in the units of the returns; null
            where there is no usable fit (``nu`` also for the normal distribution).
        standard_errors: robust standard errors ``mu_se`` ... ``nu_se``; null where not finite.
        health: the columns of `HEALTH_SCHEMA`.
        model: always ``GARCH``.
        dist: distribution of the shocks.
    """

    params: pl.DataFrame
    standard_errors: pl.DataFrame
    health: pl.DataFrame
    model: str
    dist: Distribution

    @property
    def table(self) -> pl.DataFrame:
        """Parameters, standard errors and health side by side."""
        return pl.concat([self.params, self.standard_errors, self.health], how="horizontal")


def fit_garch_batch(
    returns: Floats,
    *,
    model: Literal["GARCH"] = "GARCH",
    dist: Distribution = "normal",
    backcast: Literal["arch"] = "arch",
    min_observations: int = 250,
    weak_observations: int = 1000,
) -> GarchBatch:
    """Fit a GARCH(1,1) with constant mean to every series of a panel.

    Args:
        returns: (T, N) one-bar returns of any scale; NaN or infinite = absent, dropped, so that the
            variance recursion runs from one present return to the next.
        model: ``GARCH``.
        dist: ``normal`` or ``t`` (standardised Student-t with estimated degrees of freedom).
        backcast: how the variance before the first return is set; ``arch`` is that package's
            exponentially weighted mean of the first 75 squared residuals.
        min_observations: a shorter series is not fitted (status ``insufficient``).
        weak_observations: a shorter one is fitted with status ``weak``: on a few hundred observations
            the optimiser reports convergence on the boundary of the parameter space.

    Returns:
        The fits. A series whose fit fails or does not converge has status ``failed``, a reason and null
        parameters; it never stops the others.

    Raises:
        ConfigurationError: ``model``, ``dist`` or ``backcast`` is not known.
    """
    for name, value, known in (
        ("model", model, ("GARCH",)),
        ("dist", dist, get_args(Distribution)),
        ("backcast", backcast, ("arch",)),
    ):
        if value not in known:
            raise ConfigurationError(f"{name} {value!r} is not known; use one of {', '.join(known)}")
    panel = np.asarray(returns, dtype=np.float64)
    panel = panel[:, np.newaxis] if panel.ndim == 1 else panel
    fits = [
        _fit_series(panel[:, column], dist, min_observations, weak_observations)
        for column in range(panel.shape[1])
    ]
    errors = [f"{name}_se" for name in PARAMETERS]
    return GarchBatch(
        params=_frame(fits, dict.fromkeys(PARAMETERS, pl.Float64())),
        standard_errors=_frame(fits, dict.fromkeys(errors, pl.Float64())),
        health=_frame(fits, HEALTH_SCHEMA),
        model=model,
        dist=dist,
    )


def _frame(fits: Sequence[Mapping[str, Any]], schema: Mapping[str, pl.DataType]) -> pl.DataFrame:
    return pl.DataFrame(
        [[fit.get(name) for name in schema] for fit in fits], schema=dict(schema), orient="row"
    )


def _fit_series(
    series: Floats, dist: Distribution, min_observations: int, weak_observations: int
) -> dict[str, Any]:
    present = series[np.isfinite(series)]
    count = len(present)
    row: dict[str, Any] = {"n_observations": count}
    if count < max(min_observations, 2):
        reason = f"insufficient_data: {count} returns, {min_observations} needed"
        return row | {"status": "insufficient", "reason": reason}
    if is_constant(present):
        return row | {"status": "failed", "reason": "constant_series"}
    row["scale"] = scale = 1.0 / float(present.std())
    try:
        result = _maximise(present * scale, dist)
        row |= _unscaled(result, scale)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError, RuntimeError) as error:
        return row | {"status": "failed", "reason": f"fit_failed: {error}"}
    if not row["converged"]:
        message = str(result.optimization_result.message)
        return _without_estimates(row) | {"status": "failed", "reason": f"not_converged: {message}"}
    return row | {"status": "ok" if count >= weak_observations else "weak"}


def _maximise(scaled: Floats, dist: Distribution) -> Any:
    from arch import arch_model

    model = arch_model(scaled, mean="Constant", vol="GARCH", p=1, o=0, q=1, dist=dist, rescale=False)
    result = _climb(model, None)
    if dist == "t" and result.params["nu"] > FLAT_NU:
        thin = result.params.copy()
        thin["nu"] = NU_BOUNDS[1]
        other = _climb(model, thin)
        if other.convergence_flag == 0 and other.loglikelihood > result.loglikelihood:
            return other
    return result


def _climb(model: Any, start: Any) -> Any:
    result = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for tolerance in TOLERANCES:
            result = model.fit(
                disp="off",
                show_warning=False,
                starting_values=start,
                tol=tolerance,
                options={"maxiter": MAX_ITERATIONS},
            )
            if result.convergence_flag == 0:
                break
    return result


def _unscaled(result: Any, scale: float) -> dict[str, Any]:
    """Everything that the optimiser found on returns x ``scale``, in the units of the returns."""
    scaled = {ARCH_NAMES.get(name, name): float(value) for name, value in result.params.items()}
    if not all(math.isfinite(value) for value in scaled.values()):
        raise ValueError("a parameter is not finite")
    params = {name: value / scale ** SCALE_POWER[name] for name, value in scaled.items()}
    count, parameters = int(result.nobs), len(params)
    log_likelihood = float(result.loglikelihood) + count * math.log(scale)
    residuals = np.asarray(result.resid) / scale
    variances = (np.asarray(result.conditional_volatility) / scale) ** 2
    standardised = residuals / np.sqrt(variances)
    persistence = params["alpha"] + params["beta"]
    edges = boundary(params["alpha"], params["beta"], params.get("nu"))
    return {
        **params,
        **_standard_errors(result, scale),
        "converged": result.convergence_flag == 0,
        "iterations": int(result.optimization_result.nit),
        "log_likelihood": log_likelihood,
        "aic": 2.0 * parameters - 2.0 * log_likelihood,
        "bic": math.log(count) * parameters - 2.0 * log_likelihood,
        "persistence": persistence,
        "variance_half_life": _finite(variance_half_life(persistence)),
        "at_boundary": edges is not None,
        "boundary": edges,
        "ljung_box_pvalue": _finite(ljung_box_pvalue(standardised, lags=RESIDUAL_LJUNG_BOX_LAGS)),
        "arch_lm_pvalue": _finite(arch_lm_pvalue(standardised, lags=RESIDUAL_ARCH_LAGS)),
        "last_variance": float(variances[-1]),
        "forecast_variance": float(
            params["omega"] + params["alpha"] * residuals[-1] ** 2 + params["beta"] * variances[-1]
        ),
    }


def _standard_errors(result: Any, scale: float) -> dict[str, float | None]:
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        try:
            errors = {ARCH_NAMES.get(name, name): float(value) for name, value in result.std_err.items()}
        except np.linalg.LinAlgError:
            return {}
    return {f"{name}_se": _finite(value / scale ** SCALE_POWER[name]) for name, value in errors.items()}


def _without_estimates(row: Mapping[str, Any]) -> dict[str, Any]:
    kept = ("n_observations", "scale", "converged", "iterations")
    return {name: row[name] for name in kept}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
