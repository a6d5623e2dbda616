"""Engle-Granger test for cointegration, guarded where it would say p = 0 about nothing.

statsmodels' ``coint`` answers (-inf, p = 0) for a series against itself, for a symbol that stands in
for another, and for a NaN in the first leg; a constant series gets a number like any other. Ranked by
p-value, such pairs come first. Here they have no p-value, and a reason.
"""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from garch_platform.quant.pairs.hedge import hedge_ratio_ols
from garch_platform.quant.pairs.spread import spread
from garch_platform.quant.volatility.health import is_constant

__all__ = ["MIN_OBSERVATIONS", "SMALLEST_PVALUE", "CointegrationTest", "engle_granger"]

Floats = NDArray[np.float64]

MIN_OBSERVATIONS: Final = 30
"""Fewest common bars that are tested."""
COLLINEAR: Final = 100.0 * math.sqrt(float(np.finfo(np.float64).eps))
"""1 - R^2 up to which two legs count as one series (1.5e-6, the limit of statsmodels)."""
SMALLEST_PVALUE: Final = 1e-29
"""MacKinnon's response surface ends at a statistic of -18.86 with p = 1.3e-29; below it statsmodels
returns 0. Such a p-value is reported as this bound instead."""


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


def engle_granger(log_y: Floats, log_x: Floats, *, lags: int) -> CointegrationTest:
    """Test that log_y and log_x share no stationary combination (Engle and Granger [1]_).

    Args:
        log_y: (T,) log prices of the dependent leg.
        log_x: (T,) log prices of the independent leg. A bar absent (NaN) in either leg is dropped.
        lags: lagged differences in the Dickey-Fuller regression, fixed (no selection).

    Returns:
        The test: a constant in the first regression, none in the second, p-values of MacKinnon [2]_, as
        in statsmodels ``coint(log_y, log_x, maxlag=lags, autolag=None)``. ``reason`` is
        ``insufficient_data``, ``constant_series``, ``collinear`` (one leg determines the other, as when a
        symbol is a proxy of the other) or ``test_failed: ...``.

    References
    ----------
    .. [1] Engle, R. F. and Granger, C. W. J. (1987), Econometrica 55, 251-276.
    .. [2] MacKinnon, J. G. (1994), "Approximate asymptotic distribution functions for unit-root and
       cointegration tests", Journal of Business & Economic Statistics 12, 167-176.
    """
    common = np.isfinite(log_y) & np.isfinite(log_x)
    y, x = np.asarray(log_y, np.float64)[common], np.asarray(log_x, np.float64)[common]
    if len(y) < max(MIN_OBSERVATIONS, 3 * lags + 10):
        return _untested(f"insufficient_data: {len(y)} common bars")
    if is_constant(y) or is_constant(x):
        return _untested("constant_series")
    hedge_ratio, intercept = hedge_ratio_ols(y, x)
    residual = spread(y, x, hedge_ratio=hedge_ratio, intercept=intercept)
    if np.sum(residual * residual) <= COLLINEAR * np.sum((y - y.mean()) ** 2):
        return _untested("collinear", hedge_ratio, intercept)
    try:
        statistic, pvalue = _statistic(y, x, lags)
    except (ValueError, ArithmeticError, np.linalg.LinAlgError) as error:
        return _untested(f"test_failed: {error}", hedge_ratio, intercept)
    if not (math.isfinite(statistic) and math.isfinite(pvalue)):
        return _untested(f"test_failed: statistic {statistic}", hedge_ratio, intercept)
    return CointegrationTest(statistic, max(pvalue, SMALLEST_PVALUE), hedge_ratio, intercept, None)


def _statistic(y: Floats, x: Floats, lags: int) -> tuple[float, float]:
    from statsmodels.tsa.stattools import coint

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = coint(y, x, trend="c", maxlag=lags, autolag=None)
    return float(result[0]), float(result[1])


def _untested(reason: str, hedge_ratio: float = math.nan, intercept: float = math.nan) -> CointegrationTest:
    return CointegrationTest(math.nan, math.nan, hedge_ratio, intercept, reason)
