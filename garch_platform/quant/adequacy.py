"""Is a volatility model adequate? A report on its standardised residuals z = e / sqrt(h).

The verdict rests on three tests under Holm's correction [1]_: Ljung-Box on z (is the mean right?), and
Ljung-Box on z^2 and Engle's ARCH-LM on z (is the variance right?). On residuals of a fitted GARCH(1,1) the
chi-squared distribution of the statistic on squares has up to two degrees of freedom too many (Li and
Mak [2]_); taking the full number keeps the size below the nominal one, and needs no derivatives.

None of the three sees an asymmetric response to news, nor a break of the parameters. Two reports stand
beside the verdict for these, and do not change it:

- sign bias (Engle and Ng [3]_): z_t^2 is regressed on the sign and size of z_{t-1};
- CUSUM of squares (Inclan and Tiao [4]_), with the variance of z^2 estimated, so that heavy tails are no
  break (kappa 1 of Sanso, Arago and Carrion [5]_). On GARCH residuals its limit stays that of a Brownian
  bridge (Kulperger and Yu [6]_).

Size and power of all are printed by ``benchmarks/adequacy_power.py``. Where the returns and the parameters
are at hand, `garch_platform.quant.score_tests` sees asymmetry, and a change of alpha and beta, with more power
than residuals can. A large lasting change of the variance's level escapes all of them, because the fit absorbs
it in a persistence near 1; then the persistence itself is the sign.

References
----------
.. [1] Holm, S. (1979), "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
   Statistics 6, 65-70.
.. [2] Li, W. K. and Mak, T. K. (1994), "On the squared residual autocorrelations in non-linear time series
   with conditional heteroskedasticity", Journal of Time Series Analysis 15, 627-636.
.. [3] Engle, R. F. and Ng, V. K. (1993), "Measuring and testing the impact of news on volatility", Journal
   of Finance 48, 1749-1778.
.. [4] Inclan, C. and Tiao, G. C. (1994), "Use of cumulative sums of squares for retrospective detection of
   changes of variance", Journal of the American Statistical Association 89, 913-923.
.. [5] Sanso, A., Arago, V. and Carrion, J. L. (2004), "Testing for changes in the unconditional variance of
   financial time series", Revista de Economia Financiera 4, 32-53.
.. [6] Kulperger, R. and Yu, H. (2005), "High moment partial sum processes of residuals in GARCH models and
   their applications", Annals of Statistics 33, 2395-2422.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError
from garch_platform.quant.stability import arch_lm, ljung_box, series_rows

__all__ = ["ADEQUACY_SCHEMA", "holm", "model_adequacy"]

Floats = NDArray[np.float64]

ADEQUACY_SCHEMA: Final[dict[str, pl.DataType]] = {
    "n_observations": pl.Int64(),
    "ljung_box_pvalue": pl.Float64(),
    "ljung_box_squares_pvalue": pl.Float64(),
    "arch_lm_pvalue": pl.Float64(),
    "verdict": pl.String(),
    "failing": pl.String(),
    "reason": pl.String(),
    "sign_bias_pvalue": pl.Float64(),
    "negative_size_bias_pvalue": pl.Float64(),
    "positive_size_bias_pvalue": pl.Float64(),
    "joint_sign_bias_pvalue": pl.Float64(),
    "cusum_squares": pl.Float64(),
    "cusum_squares_pvalue": pl.Float64(),
    "cusum_break_row": pl.Int64(),
}
"""Columns of `model_adequacy`.

``verdict`` is ``adequate``, ``inadequate`` or ``untested``; ``failing`` names the tests that Holm's
procedure rejects, ``reason`` says why a series is untested. The sign-bias p-values are two-sided t-tests of
one regressor each, and the joint n R^2 of all three. ``cusum_break_row`` is the row after which the
cumulated squares deviate most: where the variance changed, if ``cusum_squares_pvalue`` is small.
"""
VERDICT: Final = ("ljung_box", "ljung_box_squares", "arch_lm")
SIGN_BIAS: Final = ("sign_bias", "negative_size_bias", "positive_size_bias")


def model_adequacy(
    standardised_residuals: Floats,
    *,
    significance: float = 0.05,
    ljung_box_lags: int = 10,
    arch_lags: int = 5,
    min_observations: int = 100,
    workers: int = 1,
) -> pl.DataFrame:
    """Judge models by their standardised residuals.

    Args:
        standardised_residuals: (T,) or (T, N), of mean about 0 and variance about 1; NaN or infinite =
            absent, dropped.
        significance: familywise level of the verdict, in (0, 1).
        ljung_box_lags: lags of both Ljung-Box tests.
        arch_lags: lags of ARCH-LM.
        min_observations: a shorter series is untested.
        workers: threads that share the series.

    Returns:
        One row a series, in order, with the columns of `ADEQUACY_SCHEMA`.

    Raises:
        ConfigurationError: ``significance`` is outside (0, 1) or a number of lags is below 1.
    """
    if not 0.0 < significance < 1.0:
        raise ConfigurationError(f"significance is {significance:g}; choose one between 0 and 1")
    rows = series_rows(standardised_residuals)
    panel = rows.T
    tests = (
        ljung_box(panel, lags=ljung_box_lags, workers=workers),
        ljung_box(panel, lags=ljung_box_lags, squared=True, workers=workers),
        arch_lm(panel, lags=arch_lags, workers=workers),
    )
    pvalues = np.column_stack([test.pvalue for test in tests])
    table = []
    for series, own, count in zip(rows, pvalues, tests[0].count.tolist(), strict=True):
        row: dict[str, Any] = {"n_observations": count, "verdict": "untested"}
        if count < min_observations:
            row["reason"] = f"insufficient_data: {count} residuals, {min_observations} needed"
        elif not np.all(np.isfinite(own)):
            row["reason"] = "constant_residuals"
        else:
            row |= _verdict(own, significance) | _sign_bias(series) | _cusum_of_squares(series)
        table.append([row.get(name) for name in ADEQUACY_SCHEMA])
    return pl.DataFrame(table, schema=ADEQUACY_SCHEMA, orient="row").fill_nan(None)


def holm(pvalues: Floats) -> Floats:
    """Holm's adjusted p-values: below a level where the procedure rejects at that familywise level.

    Args:
        pvalues: (M,) p-values of one family.

    Returns:
        (M,) adjusted p-values, in the given order.
    """
    order = np.argsort(pvalues, kind="stable")
    steps = pvalues[order] * np.arange(len(pvalues), 0, -1)
    adjusted = np.empty(len(pvalues))
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(steps))
    return adjusted


def _verdict(pvalues: Floats, significance: float) -> dict[str, Any]:
    rejected = [name for name, p in zip(VERDICT, holm(pvalues), strict=True) if p <= significance]
    named: dict[str, Any] = {f"{name}_pvalue": float(p) for name, p in zip(VERDICT, pvalues, strict=True)}
    return named | {
        "verdict": "inadequate" if rejected else "adequate",
        "failing": ", ".join(rejected) or None,
    }


def _sign_bias(series: Floats) -> dict[str, Any]:
    """p-values of the three t-tests and of the joint test; NaN where a regressor does not vary."""
    from scipy.special import chdtrc, stdtr

    z = series[np.isfinite(series)]
    z = z / np.max(np.abs(z))
    before, squares = z[:-1], z[1:] ** 2
    negative = before < 0.0
    regressors = np.column_stack([negative, negative * before, ~negative * before])
    regressors = regressors - regressors.mean(axis=0)
    squares = squares - squares.mean()
    powers = np.sum(regressors**2, axis=0), float(np.sum(squares**2))
    with np.errstate(all="ignore"):
        correlation = regressors.T @ squares / np.sqrt(powers[0] * powers[1])
        t = correlation * np.sqrt((len(squares) - 2) / (1.0 - correlation**2))
        pvalues = 2.0 * stdtr(len(squares) - 2, -np.abs(t))
    result: dict[str, Any] = {f"{name}_pvalue": float(p) for name, p in zip(SIGN_BIAS, pvalues, strict=True)}
    if not np.all(np.isfinite(pvalues)):
        return result
    coefficients = np.linalg.lstsq(regressors / np.sqrt(powers[0]), squares, rcond=None)[0]
    explained = float(np.sum((regressors / np.sqrt(powers[0]) @ coefficients) ** 2))
    joint = chdtrc(3.0, len(squares) * explained / powers[1])
    return result | {"joint_sign_bias_pvalue": float(joint)}


def _cusum_of_squares(series: Floats) -> dict[str, Any]:
    """Supremum of the cumulated squares' deviation from a straight line, its p-value and where it is."""
    from scipy.special import kolmogorov

    present = np.flatnonzero(np.isfinite(series))
    squares = (series[present] / np.max(np.abs(series[present]))) ** 2
    deviation = np.abs(np.cumsum(squares - squares.mean()))
    spread = float(squares.std())
    if not spread > 0.0:
        return {}
    at = int(np.argmax(deviation))
    statistic = float(deviation[at]) / (math.sqrt(len(squares)) * spread)
    return {
        "cusum_squares": statistic,
        "cusum_squares_pvalue": float(kolmogorov(statistic)),
        "cusum_break_row": int(present[at]),
    }
