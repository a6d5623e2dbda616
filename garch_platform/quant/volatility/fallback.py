"""A variance forecast for a series that has no usable GARCH fit, and the name of where it comes from.

HAR regresses the next squared return on the last one and its means over 5 and 22 bars (Corsi [1]_);
EWMA is the exponentially weighted mean of squared returns with weight 0.94 (RiskMetrics [2]_).

References
----------
.. [1] Corsi, F. (2009), "A simple approximate long-memory model of realized volatility", Journal of
   Financial Econometrics 7, 174-196.
.. [2] J. P. Morgan (1996), RiskMetrics, Technical Document, 4th edition.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from garch_platform.quant.volatility.forecast import ewma_variance

__all__ = ["LEAST_EWMA", "LEAST_HAR", "fallback_forecast", "har_forecast"]

Floats = NDArray[np.float64]

HAR_WINDOWS: Final = (1, 5, 22)
LEAST_HAR: Final = 100
"""Returns below which HAR's four coefficients are not estimated."""
LEAST_EWMA: Final = 20
"""Returns below which there is no forecast at all: weights of 0.94 reach back about 16 bars."""


def har_forecast(returns: Floats) -> float:
    """Next bar's variance by HAR on squared returns, kept within the range of what was seen [1]_.

    Args:
        returns: (T,) present returns, mean removed, T at least `LEAST_HAR`.

    Returns:
        The forecast in squared units of the returns; NaN if the regression is not determined.
    """
    squares = returns**2
    largest = squares.max()
    if not largest > 0.0:
        return float("nan")
    scaled = squares / largest
    sums = np.concatenate([[0.0], np.cumsum(scaled)])
    start = max(HAR_WINDOWS)
    ends = np.arange(start, len(scaled) + 1)
    means = [(sums[ends] - sums[ends - window]) / window for window in HAR_WINDOWS]
    design = np.column_stack([np.ones(len(ends)), *means])
    coefficients, _, rank, _ = np.linalg.lstsq(design[:-1], scaled[start:], rcond=None)
    if rank < design.shape[1]:
        return float("nan")
    ahead = float(design[-1] @ coefficients)
    low, high = design[:, -1].min(), design[:, 1].max()
    return min(max(ahead, float(low)), float(high)) * float(largest)


def fallback_forecast(returns: Floats, reason: str) -> tuple[float | None, str | None, str]:
    """Forecast of the next bar's variance where GARCH gives none.

    Args:
        returns: (T,) present returns.
        reason: why there is no fit.

    Returns:
        The variance in squared units of the returns, ``har`` or ``ewma``, and the reason; the first two
        are None where there are fewer than `LEAST_EWMA` returns or no variance.
    """
    count = len(returns)
    if count < LEAST_EWMA:
        return None, None, f"{reason}; {count} returns, EWMA needs {LEAST_EWMA}"
    shocks = returns - returns.mean()
    if count >= LEAST_HAR:
        ahead = har_forecast(shocks)
        if np.isfinite(ahead) and ahead > 0.0:
            return ahead, "har", reason
        reason = f"{reason}; HAR is not determined"
    else:
        reason = f"{reason}; {count} returns, HAR needs {LEAST_HAR}"
    ahead = float(ewma_variance(np.append(shocks, np.nan))[-1])
    if np.isfinite(ahead) and ahead > 0.0:
        return ahead, "ewma", reason
    return None, None, f"{reason}; no variance"
