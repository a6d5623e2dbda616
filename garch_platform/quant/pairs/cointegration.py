"""Engle-Granger and Dickey-Fuller tests, guarded where they would say p = 0 about nothing.

statsmodels' ``coint`` answers (-inf, p = 0) for a series against itself, for a symbol that stands in
for another, and for a NaN in the first leg; a constant series gets a number like any other. Ranked by
p-value, such pairs come first. Here they have no p-value, and a reason.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from garch_platform.quant.pairs.null_distributions import cointegration_pvalue, dickey_fuller_pvalue
from garch_platform.quant.pairs.scan_columns import ScanColumns, require_at_least

__all__ = [
    "MIN_OBSERVATIONS",
    "REASONS",
    "CointegrationTest",
    "EngleGranger",
    "dickey_fuller_frozen",
    "engle_granger",
    "engle_granger_pairs",
]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

MIN_OBSERVATIONS: Final = 30
"""Fewest common bars that are tested; 3 lags + 10 if that is more."""

REASONS: Final = {1: "insufficient_data", 2: "constant_series", 3: "collinear", 4: "singular"}
"""The kernels' codes of why there is no test: too few common bars; a leg that does not move; one leg
determines the other (1 - R^2 up to 1.5e-6, the limit of statsmodels); the residual's lagged differences
determine one another."""


@dataclass(frozen=True)
class CointegrationTest:
    """Result of `engle_granger`.

    Attributes:
        statistic: t-statistic of the Dickey-Fuller regression on the residuals; NaN if not tested.
        pvalue: MacKinnon's p-value of no cointegration, never 0; NaN if not tested.
        hedge_ratio: slope of log_y on log_x; NaN if not estimable.
        intercept: intercept of that regression.
        reason: why there is no p-value, or None.
    """

    statistic: float
    pvalue: float
    hedge_ratio: float
    intercept: float
    reason: str | None


class EngleGranger(NamedTuple):
    """Result of `engle_granger_pairs`, (P,) each.

    Attributes:
        statistic: t-statistic of the Dickey-Fuller regression on the residuals; NaN if not tested.
        pvalue: MacKinnon's p-value of no cointegration, never 0; NaN if not tested.
        hedge_ratio: slope of the dependent on the independent leg; NaN if not estimable.
        intercept: intercept of that regression.
        code: 0, or the key in `REASONS` of why there is no p-value.
        observations: common bars.
    """

    statistic: Floats
    pvalue: Floats
    hedge_ratio: Floats
    intercept: Floats
    code: Integers
    observations: Integers


def engle_granger(log_y: Floats, log_x: Floats, *, lags: int) -> CointegrationTest:
    """Test that log_y and log_x share no stationary combination (Engle and Granger [1]_).

    Args:
        log_y: (T,) log prices of the dependent leg.
        log_x: (T,) log prices of the independent leg. A bar absent (NaN) in either leg is dropped.
        lags: lagged differences in the Dickey-Fuller regression, fixed (no selection).

    Returns:
        The test: a constant in the first regression, none in the second, p-values of MacKinnon [2]_, as
        in statsmodels ``coint(log_y, log_x, maxlag=lags, autolag=None)``. ``reason`` is one of `REASONS`.

    References
    ----------
    .. [1] Engle, R. F. and Granger, C. W. J. (1987), Econometrica 55, 251-276.
    .. [2] MacKinnon, J. G. (1994), "Approximate asymptotic distribution functions for unit-root and
       cointegration tests", Journal of Business & Economic Statistics 12, 167-176.
    """
    test = engle_granger_pairs(np.column_stack([log_y, log_x]), np.array([[0, 1]]), lags=lags)
    code = int(test.code[0])
    reason = REASONS.get(code)
    if reason == "insufficient_data":
        reason = f"{reason}: {test.observations[0]} common bars"
    values = (test.statistic, test.pvalue, test.hedge_ratio, test.intercept)
    statistic, pvalue, hedge_ratio, intercept = (float(value[0]) for value in values)
    return CointegrationTest(statistic, pvalue, hedge_ratio, intercept, reason)


def engle_granger_pairs(log_prices: Floats, pairs: Integers, *, lags: int) -> EngleGranger:
    """Engle-Granger tests of a list of pairs in one direction: the shortest way to many p-values.

    Args:
        log_prices: (T, N) log prices in time order; NaN = absent. A pair is tested on its common bars.
        pairs: (P, 2) columns of the dependent and of the independent leg.
        lags: lagged differences of the Dickey-Fuller regression.

    Returns:
        The tests, in the order of ``pairs``; each as of `engle_granger`.

    Raises:
        DataError: ``pairs`` name a column that is not there, or a column with itself.
        ConfigurationError: ``lags`` is negative.
    """
    from garch_platform.quant.pairs import scan_kernels as kernels

    require_at_least(0, lags=lags)
    columns = ScanColumns.read(log_prices)
    legs = columns.pairs(pairs)
    out = np.full((len(legs), kernels.WIDTH), np.nan)
    kernels.cointegrate_pairs(
        columns.values, columns.complete, columns.squares, columns.floor, legs, 0, lags, False, False, out
    )
    statistic = out[:, kernels.FIRST + kernels.STATISTIC]
    means = out[:, kernels.MEAN_Y : kernels.MEAN_X + 1]
    hedge_ratio, intercept = columns.raw_regression(legs, out[:, kernels.FIRST + kernels.SLOPE], means)
    code, observations = out[:, kernels.CODE].astype(np.int64), out[:, kernels.COUNT].astype(np.int64)
    return EngleGranger(
        statistic, cointegration_pvalue(statistic), hedge_ratio, intercept, code, observations
    )


def dickey_fuller_frozen(spread: Floats, *, lags: int) -> tuple[Floats, Floats]:
    """Dickey-Fuller tests without constant of spreads whose hedge ratio and mean were fixed before.

    Args:
        spread: (n,) or (n, P) spreads in time order, the fixed mean taken out; absent (NaN) bars are
            dropped from each column. A spread that is nothing but rounding (of a symbol and its proxy)
            cannot be told from noise: such pairs have a reason in the scan and must not come here.
        lags: lagged differences of the regression.

    Returns:
        ``(statistic, pvalue)``, arrays of shape () or (P,), as of statsmodels ``adfuller(spread,
        regression="n", autolag=None, maxlag=lags)``; the p-value is never 0. NaN with fewer than
        max(30, 3 lags + 10) bars or where the regression is singular, as of a constant spread.

    Raises:
        ConfigurationError: ``lags`` is negative.
    """
    from garch_platform.quant.pairs.scan_kernels import dickey_fuller

    require_at_least(0, lags=lags)
    values = np.asarray(spread, np.float64)
    rows = np.ascontiguousarray(np.atleast_2d(values.T))
    found = np.full(len(rows), math.nan)
    dickey_fuller(rows, lags, found)
    statistic = found.reshape(values.shape[1:])
    return statistic, dickey_fuller_pvalue(statistic)
