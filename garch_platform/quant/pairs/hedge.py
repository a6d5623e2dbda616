"""Hedge ratio of a pair: how much of x offsets one unit of y.

The first step of Engle and Granger [1]_: log y = intercept + hedge_ratio * log x + spread by ordinary
least squares. On log prices the ratio is in money: long 1 of y against short ``hedge_ratio`` of x.

References
----------
.. [1] Engle, R. F. and Granger, C. W. J. (1987), "Co-integration and error correction: representation,
   estimation, and testing", Econometrica 55, 251-276.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["hedge_ratio_ols"]

Floats = NDArray[np.float64]


def hedge_ratio_ols(log_y: Floats, log_x: Floats) -> tuple[float, float]:
    """Least-squares slope and intercept of log_y on log_x.

    Args:
        log_y, log_x: (T,) log prices; a bar absent (NaN) in either leg is skipped.

    Returns:
        ``(hedge_ratio, intercept)``, both NaN with fewer than two common bars or a constant ``log_x``.
    """
    common = np.isfinite(log_y) & np.isfinite(log_x)
    y, x = np.asarray(log_y)[common], np.asarray(log_x)[common]
    if len(x) < 2 or np.ptp(x) == 0.0:
        return math.nan, math.nan
    deviation = x - x.mean()
    slope = float(np.sum(deviation * (y - y.mean())) / np.sum(deviation * deviation))
    return slope, float(y.mean() - slope * x.mean())
