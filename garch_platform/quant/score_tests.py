"""Tests of a fitted GARCH(1,1) on its scores: do the parameters hold, and does bad news count for more?

Standardised residuals show little of either; the scores of the fit do.

Nyblom's test [1]_ of constant parameters: the scores, cumulated over time, then wander like a Brownian
bridge, and the statistic is their mean square in units of their own variance,
L = (1/n) sum_t S_t' V^-1 S_t / n, V = (1/n) sum_t f_t f_t', S_t = f_1 + ... + f_t (Hansen [2]_). Its limit
is a sum of Cramer-von Mises variables, one a parameter, whose distribution is computed here from its
characteristic function. No break date is needed.

The Lagrange-multiplier test of symmetry against a GJR model [3]_, h_t = omega + (alpha + gamma 1[e < 0])
e_{t-1}^2 + beta h_{t-1}: the score of gamma, cleared of what the estimates of the other parameters move it
by, has mean 0 under symmetry; its squared sum over the sum of its squares is chi-squared (1), whatever the
kurtosis of the shocks (Wooldridge [4]_).

Size and power of both are printed by ``benchmarks/adequacy_power.py``.

References
----------
.. [1] Nyblom, J. (1989), "Testing for the constancy of parameters over time", Journal of the American
   Statistical Association 84, 223-230.
.. [2] Hansen, B. E. (1992), "Testing for parameter instability in linear models", Journal of Policy
   Modeling 14, 517-533 (critical values in table 1).
.. [3] Glosten, L. R., Jagannathan, R. and Runkle, D. E. (1993), "On the relation between the expected value
   and the volatility of the nominal excess return on stocks", Journal of Finance 48, 1779-1801.
.. [4] Wooldridge, J. M. (1991), "On the application of robust, regression-based diagnostics to models of
   conditional means and conditional variances", Journal of Econometrics 47, 5-46.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import DataError
from garch_platform.quant.stability import series_rows

__all__ = ["SCORE_TEST_SCHEMA", "nyblom_pvalue", "score_tests"]

Floats = NDArray[np.float64]

PARAMETERS: Final = ("mu", "omega", "alpha", "beta")
SCORE_TEST_SCHEMA: Final[dict[str, pl.DataType]] = {
    "n_observations": pl.Int64(),
    "nyblom": pl.Float64(),
    "nyblom_pvalue": pl.Float64(),
    **{f"nyblom_{name}": pl.Float64() for name in PARAMETERS},
    "asymmetry": pl.Float64(),
    "asymmetry_pvalue": pl.Float64(),
    "reason": pl.String(),
}
"""Columns of `score_tests`: Nyblom's joint statistic of mu, omega, alpha and beta with its p-value, that of
each alone (its 5 % critical value is 0.470), and the test of symmetry."""
BACKCAST_DECAY: Final = 0.94
BACKCAST_BARS: Final = 75
LEAST: Final = 50


def score_tests(returns: Floats, params: pl.DataFrame) -> pl.DataFrame:
    """Nyblom's test and the test of symmetry of every fitted GARCH(1,1).

    Args:
        returns: (T,) or (T, N) returns that the models were fitted to; NaN or infinite = absent, dropped.
        params: one row a series with ``mu``, ``omega``, ``alpha`` and ``beta`` in the units of the returns,
            and ``nu`` for a Student-t fit (null or absent for a normal one). The variance starts from
            `arch`'s default backcast.

    Returns:
        One row a series, in order, with the columns of `SCORE_TEST_SCHEMA`. ``reason`` says why a
        series has no statistic.

    Raises:
        DataError: ``params`` does not have one row a series.
    """
    rows = series_rows(returns)
    if params.height != len(rows):
        raise DataError(f"params has {params.height} rows for {len(rows)} series; give one a series")
    table = []
    for series, fit in zip(rows, params.iter_rows(named=True), strict=True):
        present = series[np.isfinite(series)]
        row: dict[str, Any] = {"n_observations": len(present)} | _tests(present, fit)
        table.append([row.get(name) for name in SCORE_TEST_SCHEMA])
    return pl.DataFrame(table, schema=SCORE_TEST_SCHEMA, orient="row").fill_nan(None)


def nyblom_pvalue(statistic: float, parameters: int) -> float:
    """Probability that the integral of a squared Brownian bridge in ``parameters`` dimensions is larger.

    Gil-Pelaez inversion of the characteristic function (w / sin w)^(k/2), w = sqrt(2 i t), with t = u^2.
    """
    step = 0.002
    u = np.arange(step / 2.0, 100.0 / math.sqrt(parameters), step)
    w = (1.0 + 1.0j) * u
    log_sine = math.log(0.5) + 0.5j * math.pi - 1j * w + np.log1p(-np.exp(2j * w))
    transform = np.exp(0.5 * parameters * (np.log(w) - log_sine) - 1j * u * u * statistic)
    below = 0.5 - float(np.sum(2.0 * transform.imag / u)) * step / math.pi
    return min(1.0, max(0.0, 1.0 - below))


def _tests(returns: Floats, fit: Mapping[str, Any]) -> dict[str, Any]:
    if any(fit[name] is None for name in PARAMETERS):
        return {"reason": "no_fit"}
    if len(returns) < LEAST:
        return {"reason": f"insufficient_data: {len(returns)} returns, {LEAST} needed"}
    scale = float(returns.std())
    if not scale > 0.0:
        return {"reason": "constant_series"}
    parameters = fit["mu"] / scale, fit["omega"] / scale**2, fit["alpha"], fit["beta"]
    parts = _derivatives(returns / scale, *parameters, fit.get("nu"))
    if not all(np.all(np.isfinite(part)) for part in parts):
        return {"reason": "scores are not finite"}
    surprise, slopes, of_gamma, of_mean, precision = parts
    scores = 0.5 * surprise[:, np.newaxis] * slopes
    scores[:, 0] += of_mean
    information = _information(slopes, of_gamma, precision, fit.get("nu"))
    return _nyblom(scores) | _asymmetry(0.5 * surprise, scores, of_gamma, information)


def _nyblom(scores: Floats) -> dict[str, Any]:
    scores = scores - scores.mean(axis=0)
    norms = np.sqrt(np.mean(scores**2, axis=0))
    if not np.all(norms > 0.0):
        return {"reason": "scores vanish"}
    scores = scores / norms
    path = np.cumsum(scores, axis=0) / math.sqrt(len(scores))
    single = np.mean(path**2, axis=0)
    covariance = scores.T @ scores / len(scores)
    joint = float(np.mean(np.sum(path * (path @ np.linalg.pinv(covariance, hermitian=True)), axis=1)))
    return {
        "nyblom": joint,
        "nyblom_pvalue": nyblom_pvalue(joint, len(PARAMETERS)),
        **{f"nyblom_{name}": float(value) for name, value in zip(PARAMETERS, single, strict=True)},
    }


def _information(slopes: Floats, of_gamma: Floats, precision: Floats, nu: float | None) -> Floats:
    """(6, 6) expected information of mu, omega, alpha, beta, the shocks' scale, and gamma.

    The scale stands for the shape of the shocks, whose estimate moves with it.
    """
    of_variance, of_level = 0.5, 1.0
    if nu is not None:
        of_variance *= nu / (nu + 3.0)
        of_level = nu * (nu + 1.0) / ((nu - 2.0) * (nu + 3.0))
    derivatives = np.column_stack([slopes, np.ones(len(slopes)), of_gamma])
    information: Floats = of_variance * derivatives.T @ derivatives
    information[0, 0] += of_level * np.sum(precision)
    return information


def _asymmetry(
    half_surprise: Floats, scores: Floats, of_gamma: Floats, information: Floats
) -> dict[str, Any]:
    """The score of gamma, cleared of what the estimates of the other parameters move it by."""
    from scipy.special import chdtrc

    sizes = np.sqrt(np.diag(information)[:-1])
    if not np.all(sizes > 0.0):
        return {}
    standard = information[:-1, :-1] / np.outer(sizes, sizes)
    moves = np.linalg.pinv(standard, hermitian=True) @ (information[:-1, -1] / sizes) / sizes
    cleared = half_surprise * (of_gamma - moves[-1]) - scores @ moves[:-1]
    power = float(np.sum(cleared**2))
    if not power > 0.0:
        return {}
    statistic = float(np.sum(cleared)) ** 2 / power
    return {"asymmetry": statistic, "asymmetry_pvalue": float(chdtrc(1.0, statistic))}


def _derivatives(
    returns: Floats, mu: float, omega: float, alpha: float, beta: float, nu: float | None
) -> tuple[Floats, Floats, Floats, Floats, Floats]:
    """Parts of the scores, of each return: w z^2 - 1; d log h / d (mu, omega, alpha, beta), (n, 4);
    d log h / d gamma; w e / h; 1 / h.

    The weight w is 1 for normal shocks, and (nu + 1) / (nu - 2 + z^2) for Student-t ones.
    """
    from scipy.signal import lfilter

    residual = returns - mu
    squares = residual**2
    weights = BACKCAST_DECAY ** np.arange(min(BACKCAST_BARS, len(returns)))
    start = float(np.sum(weights * squares[: len(weights)]) / np.sum(weights))

    def recursion(first: float, later: Floats) -> Floats:
        filtered: Floats = lfilter([1.0], [1.0, -beta], np.concatenate([[first], later]))
        return filtered

    variance = recursion(omega + (alpha + beta) * start, omega + alpha * squares[:-1])
    slopes = np.column_stack(
        [
            recursion(0.0, -2.0 * alpha * residual[:-1]),
            recursion(1.0, np.ones(len(returns) - 1)),
            recursion(start, squares[:-1]),
            recursion(start, variance[:-1]),
        ]
    )
    of_gamma = recursion(0.5 * start, np.where(residual[:-1] < 0.0, squares[:-1], 0.0))
    shock = squares / variance
    weight = np.ones(len(returns)) if nu is None else (nu + 1.0) / (nu - 2.0 + shock)
    return (
        weight * shock - 1.0,
        slopes / variance[:, np.newaxis],
        of_gamma / variance,
        weight * residual / variance,
        1.0 / variance,
    )
