"""The spread of a pair, how fast it returns to its mean, and its shocks."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["autoregression", "half_life", "spread", "spread_shocks"]

Floats = NDArray[np.float64]


def spread(log_y: Floats, log_x: Floats, *, hedge_ratio: float, intercept: float) -> Floats:
    """log_y - hedge_ratio * log_x - intercept, a fraction of y's price; NaN where a leg is absent."""
    return np.asarray(log_y, np.float64) - hedge_ratio * np.asarray(log_x, np.float64) - intercept


def autoregression(spread: Floats) -> float:
    """Least-squares phi of s_t = c + phi s_{t-1} + e_t.

    The estimate is biased downwards in short samples (Kendall [1]_).

    Args:
        spread: (T,) in time order; absent (NaN) bars are dropped.

    Returns:
        phi, or NaN with fewer than three bars or a constant spread.

    References
    ----------
    .. [1] Kendall, M. G. (1954), "Note on bias in the estimation of autocorrelation", Biometrika 41,
       403-404.
    """
    present = spread[np.isfinite(spread)]
    if len(present) < 3:
        return math.nan
    before, after = present[:-1] - present[:-1].mean(), present[1:] - present[1:].mean()
    power = float(np.sum(before * before))
    return float(np.sum(before * after)) / power if power > 0.0 else math.nan


def half_life(spread: Floats) -> float:
    """Bars until half of a deviation from the mean is gone: ln 2 / -ln phi, phi of `autoregression`.

    As phi is biased downwards, true half-lives tend to be longer.

    Args:
        spread: (T,) in time order; absent (NaN) bars are dropped.

    Returns:
        Bars, or NaN if phi is not in (0, 1): the spread does not return, or alternates.
    """
    phi = autoregression(spread)
    return math.log(2.0) / -math.log(phi) if 0.0 < phi < 1.0 else math.nan


def spread_shocks(
    spread: Floats, *, mean: float, phi: float, session_index: NDArray[np.integer] | None = None
) -> Floats:
    """Change of the spread beyond its expected return to the mean: (s_t - mean) - phi (s_{t-1} - mean).

    Args:
        spread: (T,) in time order; NaN = absent, and the bar before is then the last present one.
        mean, phi: of the formation window.
        session_index: (T,) session of each bar, for intraday bars; a session's first present bar then has
            no shock.

    Returns:
        (T,) shocks, NaN where there is none.
    """
    rows = np.flatnonzero(np.isfinite(spread))
    deviation = spread[rows] - mean
    values = deviation[1:] - phi * deviation[:-1]
    if session_index is not None:
        sessions = np.asarray(session_index)[rows]
        values[sessions[1:] != sessions[:-1]] = np.nan
    shocks = np.full(len(spread), np.nan)
    shocks[rows[1:]] = values
    return shocks
