"""Is the variance of a return series stable? Three tests and a gate.

- Engle's Lagrange-multiplier test [1]_ for ARCH in the demeaned returns;
- the coefficient of variation of the rolling standard deviation;
- the Ljung-Box test [2]_ for autocorrelation of the returns.

The gate calls a series stable when both p-values are above and the variation is below their limits.
Read the first test rightly: on *returns* it rejects what a GARCH model is for. A true GARCH process
(alpha 0.08, beta 0.90, Student-t with 6 degrees of freedom, 750 observations) passes the strict gate
in 8 % of draws, independent noise in 80 %. A rejection says "there is variance to model"; whether a
*model* is adequate is asked of its standardised residuals (`garch_platform.quant.adequacy`).

References
----------
.. [1] Engle, R. F. (1982), "Autoregressive conditional heteroscedasticity with estimates of the
   variance of United Kingdom inflation", Econometrica 50, 987-1007.
.. [2] Ljung, G. M. and Box, G. E. P. (1978), "On a measure of lack of fit in time series models",
   Biometrika 65, 297-303.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.compiled import in_threads

__all__ = [
    "STABILITY_SCHEMA",
    "PanelTest",
    "StabilityGate",
    "apply_gate",
    "arch_lm",
    "ljung_box",
    "rolling_std_variation",
    "series_rows",
    "stability_tests",
]

Floats = NDArray[np.float64]

STABILITY_SCHEMA: Final[dict[str, pl.DataType]] = {
    "record_count": pl.Int64(),
    "arch_test_pvalue": pl.Float64(),
    "rolling_std_cv": pl.Float64(),
    "ljung_box_pvalue": pl.Float64(),
    "reason": pl.String(),
}
SAFE_PIVOT: Final = 1e-4
"""Below this relative pivot the normal equations of the ARCH regression may lose the tenth digit."""
CONSTANT_TOLERANCE: Final = 1e-12


@dataclass(frozen=True)
class PanelTest:
    """One test of every series of a panel.

    Attributes:
        statistic: (N,) test statistics; NaN where a series is constant or too short.
        pvalue: (N,) p-values under the null hypothesis; NaN where the statistic is.
        count: (N,) present values of each series.
    """

    statistic: Floats
    pvalue: Floats
    count: NDArray[np.int64]


@dataclass(frozen=True)
class StabilityGate:
    """Limits of a stable series.

    Attributes:
        arch_pvalue: the ARCH-LM p-value must be above this.
        rolling_std_cv: the coefficient of variation of the rolling deviation must be below this.
        ljung_box_pvalue: the Ljung-Box p-value must be above this.
    """

    arch_pvalue: float
    rolling_std_cv: float
    ljung_box_pvalue: float


def arch_lm(series: Floats, *, lags: int, centred: bool = False, workers: int = 1) -> PanelTest:
    """Engle's test [1]_ of no ARCH: n R^2 of the squares on a constant and ``lags`` of their own lags.

    Args:
        series: (T,) or (T, N) of any scale; NaN or infinite = absent, dropped.
        lags: lags of the regression, and degrees of freedom of the chi-squared distribution.
        centred: whether the squares are of deviations from the mean (of returns), or of the values
            themselves (of residuals, as statsmodels ``het_arch`` takes them).
        workers: threads that share the series.

    Returns:
        Statistics equal to ``het_arch(series, nlags=lags)`` of the series scaled to unit variance. At least
        2 ``lags`` + 2 values are needed.

    Raises:
        ConfigurationError: ``lags`` is below 1.
    """
    _at_least("lags", lags, 1)
    rows = series_rows(series)
    results = _statistics(rows, arch_lags=lags, centred=centred, workers=workers)
    statistic = _arch_statistic(rows, results, lags, centred)
    return PanelTest(statistic, _chi2_sf(statistic, lags), results[:, 0].astype(np.int64))


def ljung_box(
    series: Floats, *, lags: int, squared: bool = False, fitted: int = 0, workers: int = 1
) -> PanelTest:
    """Ljung and Box's test [2]_ of no autocorrelation at lags 1 to ``lags`` jointly.

    Args:
        series: (T,) or (T, N) of any scale; NaN or infinite = absent, dropped.
        lags: autocorrelations in the statistic.
        squared: whether the squares are tested, for autocorrelation of the variance.
        fitted: degrees of freedom taken off for estimated parameters (``model_df`` of statsmodels).
        workers: threads that share the series.

    Returns:
        Statistics equal to statsmodels ``acorr_ljungbox``. More than ``lags`` values are needed.

    Raises:
        ConfigurationError: ``lags`` is below 1 or not above ``fitted``.
    """
    _at_least("lags", lags, max(1, fitted + 1))
    rows = series_rows(series)
    results = _statistics(rows, ljung_box_lags=lags, squared=squared, workers=workers)
    statistic = results[:, 4].copy()
    return PanelTest(statistic, _chi2_sf(statistic, lags - fitted), results[:, 0].astype(np.int64))


def rolling_std_variation(series: Floats, window: int, *, workers: int = 1) -> Floats:
    """Standard deviation over mean of the rolling standard deviation (all with ddof 1).

    Args:
        series: (T,) or (T, N) of any scale; NaN or infinite = absent, dropped.
        window: values in the rolling standard deviation, at least 2.
        workers: threads that share the series.

    Returns:
        (N,) coefficients; NaN where a series is constant or has no more than ``window`` values.

    Raises:
        ConfigurationError: ``window`` is below 2.
    """
    _at_least("window", window, 2)
    return _statistics(series_rows(series), window=window, workers=workers)[:, 5].copy()


def stability_tests(
    returns: Floats,
    *,
    test_window: int,
    arch_lags: int,
    ljung_box_lags: int,
    min_observations: int,
    workers: int = 1,
) -> pl.DataFrame:
    """Test every series of a panel.

    Args:
        returns: (T, N) returns of any scale; NaN or infinite = absent, dropped before the tests.
        test_window: bars of the rolling standard deviation (ddof 1).
        arch_lags: lags of the ARCH-LM regression.
        ljung_box_lags: lags tested jointly by Ljung-Box.
        min_observations: fewest returns that are tested.
        workers: threads that share the series.

    Returns:
        One row a series, in order, with the columns of `STABILITY_SCHEMA`. ``reason`` is null, or says
        why the statistics are null: ``insufficient_data``, ``constant_series`` or ``test_failed: ...``.

    Raises:
        ConfigurationError: a window or a number of lags is too small.
    """
    _at_least("test_window", test_window, 2)
    _at_least("arch_lags", arch_lags, 1)
    _at_least("ljung_box_lags", ljung_box_lags, 1)
    rows = series_rows(returns)
    results = _statistics(
        rows,
        arch_lags=arch_lags,
        ljung_box_lags=ljung_box_lags,
        window=test_window,
        centred=True,
        workers=workers,
    )
    statistics = {
        "arch_test_pvalue": _chi2_sf(_arch_statistic(rows, results, arch_lags, True), arch_lags),
        "rolling_std_cv": results[:, 5],
        "ljung_box_pvalue": _chi2_sf(results[:, 4], ljung_box_lags),
    }
    count, constant = results[:, 0].astype(np.int64), results[:, 1] > 0.0
    least = max(min_observations, test_window + 1, 2 * arch_lags + 3, ljung_box_lags + 2)
    reasons: list[str | None] = [None] * len(rows)
    finite = np.all([np.isfinite(values) for values in statistics.values()], axis=0)
    for row in np.flatnonzero((count < least) | constant | ~finite):
        failed = [name for name, values in statistics.items() if not np.isfinite(values[row])]
        reasons[row] = (
            "insufficient_data"
            if count[row] < least
            else "constant_series"
            if constant[row]
            else f"test_failed: {', '.join(failed)} is not finite"
        )
        for values in statistics.values():
            values[row] = np.nan
    columns = {name: pl.Series(values, nan_to_null=True) for name, values in statistics.items()}
    return pl.DataFrame({"record_count": count, **columns, "reason": pl.Series(reasons, dtype=pl.String)})


def apply_gate(tests: pl.DataFrame, gate: StabilityGate) -> pl.DataFrame:
    """Add the verdict to a frame of `stability_tests`.

    Args:
        tests: rows with the columns of `STABILITY_SCHEMA`; others are kept.
        gate: the limits (or any object with the same attributes).

    Returns:
        ``tests`` with ``is_stable`` (never null) and ``filter_reason``: null for a stable series, the
        test's own ``reason`` where there is one, else the first that fails of ``arch_test_failed``,
        ``high_volatility`` and ``autocorrelation_detected``.
    """

    def fails(passed: pl.Expr) -> pl.Expr:
        return ~passed.fill_null(False)

    filter_reason = (
        pl.when(pl.col("reason").is_not_null())
        .then("reason")
        .when(fails(pl.col("arch_test_pvalue").fill_nan(None) > gate.arch_pvalue))
        .then(pl.lit("arch_test_failed"))
        .when(fails(pl.col("rolling_std_cv").fill_nan(None) < gate.rolling_std_cv))
        .then(pl.lit("high_volatility"))
        .when(fails(pl.col("ljung_box_pvalue").fill_nan(None) > gate.ljung_box_pvalue))
        .then(pl.lit("autocorrelation_detected"))
        .otherwise(None)
    )
    return tests.with_columns(
        filter_reason.is_null().alias("is_stable"), filter_reason.cast(pl.String).alias("filter_reason")
    )


def series_rows(series: Floats) -> Floats:
    """The series of a panel as contiguous rows, (N, T).

    Args:
        series: (T,) or (T, N).

    Raises:
        DataError: the array has another number of dimensions.
    """
    panel = np.asarray(series, dtype=np.float64)
    if panel.ndim not in (1, 2):
        raise DataError(f"series have {panel.ndim} dimensions; give (T,) or (T, N)")
    return np.ascontiguousarray(np.atleast_2d(panel.T))


def _at_least(name: str, value: int, least: int) -> None:
    if value < least:
        raise ConfigurationError(f"{name} is {value}; use at least {least}")


def _statistics(
    rows: Floats,
    *,
    arch_lags: int = 0,
    ljung_box_lags: int = 0,
    window: int = 0,
    centred: bool = False,
    squared: bool = False,
    workers: int = 1,
) -> Floats:
    """(N, 6) statistics of `stability_kernels.stability_statistics`."""
    from garch_platform.quant.stability_kernels import STABILITY_COLUMNS, stability_statistics

    results = np.empty((len(rows), len(STABILITY_COLUMNS)))
    bounds = np.linspace(0, len(rows), max(1, workers) + 1).astype(int)

    def run(block: slice) -> None:
        stability_statistics(rows[block], arch_lags, ljung_box_lags, window, centred, squared, results[block])

    in_threads(run, [slice(*pair) for pair in pairwise(bounds)], workers=workers)
    return results


def _arch_statistic(rows: Floats, results: Floats, lags: int, centred: bool) -> Floats:
    """n R^2, by least squares where the normal equations are ill conditioned."""
    statistic = results[:, 2].copy()
    for row in np.flatnonzero(results[:, 3] < SAFE_PIVOT):
        values = rows[row][np.isfinite(rows[row])]
        values = values / np.max(np.abs(values))
        squares = (values - values.mean() if centred else values) ** 2
        lagged = np.lib.stride_tricks.sliding_window_view(squares, lags + 1)
        regressand, regressors = lagged[:, -1], lagged[:, :-1]
        if np.ptp(regressand) <= CONSTANT_TOLERANCE * np.max(regressand):
            statistic[row] = np.nan
            continue
        design = np.column_stack([np.ones(len(lagged)), regressors / squares.std()])
        residual = regressand - design @ (np.linalg.pinv(design) @ regressand)
        total = np.sum((regressand - regressand.mean()) ** 2)
        statistic[row] = len(lagged) * (1.0 - np.sum(residual**2) / total) if total > 0.0 else np.nan
    return statistic


def _chi2_sf(statistic: Floats, degrees: int) -> Floats:
    """P(chi-squared > statistic), as ``scipy.stats.chi2.sf`` computes it."""
    from scipy.special import chdtrc

    return np.asarray(chdtrc(float(degrees), statistic), dtype=np.float64)
