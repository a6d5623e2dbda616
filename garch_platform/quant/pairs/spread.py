"""The spread of a pair, how fast it returns to its mean, and its shocks."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "autoregression",
    "corrected_autoregression",
    "corrected_half_life",
    "half_life",
    "hurst_exponent",
    "spread",
    "spread_shocks",
]

Floats = NDArray[np.float64]

RESIDUAL_BIAS: Final = 1.5
"""Multiple of Kendall's bias that a residual of an estimated hedge ratio has."""


def spread(log_y: Floats, log_x: Floats, *, hedge_ratio: float | Floats, intercept: float | Floats) -> Floats:
    """log_y - hedge_ratio * log_x - intercept, a fraction of y's price; NaN where a leg is absent.

    The ratio and the intercept are numbers, or (T,) arrays of those known before each bar.
    """
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


def corrected_autoregression(phi: Floats, bars: Floats | NDArray[np.int64]) -> Floats:
    """phi of an estimated spread without its downward bias: phi + 1.5 (1 + 3 phi) / n.

    Kendall's correction [1]_ is (1 + 3 phi) / n. Least squares take more where the series is the residual of
    an estimated hedge ratio; 1.5 times as much is added, found by simulation (n = 300 and 700, half-lives of
    3.5 to 15 bars: the median of the corrected half-life is within 3 % of the truth).

    Args:
        phi: (P,) of `autoregression`.
        bars: (P,) observations behind each.

    References
    ----------
    .. [1] Kendall, M. G. (1954), "Note on bias in the estimation of autocorrelation", Biometrika 41,
       403-404.
    """
    return np.asarray(phi + RESIDUAL_BIAS * (1.0 + 3.0 * phi) / bars)


def corrected_half_life(half_life: Floats, bars: Floats) -> Floats:
    """`half_life` of estimated spreads, corrected for the bias of their autoregression.

    Args:
        half_life: (P,) of `half_life`, bars.
        bars: (P,) observations behind each.

    Returns:
        (P,) bars; NaN where the corrected phi reaches 1, so that no reversion can be told from none.
    """
    phi = corrected_autoregression(np.exp(-math.log(2.0) / half_life), bars)
    known = phi < 1.0
    return np.where(known, math.log(2.0) / -np.log(np.where(known, phi, 0.5)), np.nan)


def hurst_exponent(spread: Floats) -> float:
    """Generalised Hurst exponent of order 2: how fast the spread wanders off (Di Matteo [1]_).

    The least-squares slope of log root-mean-square s_{t+k} - s_t on log k, for k = 1, 2, 4 .. T / 8. A random
    walk has 0.5, a spread that returns to its mean less, noise 0.

    Args:
        spread: (T,) in time order; absent (NaN) bars are dropped.

    Returns:
        The exponent, or NaN with fewer than 16 bars or a constant spread.

    References
    ----------
    .. [1] Di Matteo, T. (2007), "Multi-scaling in finance", Quantitative Finance 7, 21-36.
    """
    present = spread[np.isfinite(spread)]
    steps = [2**power for power in range(max(len(present) // 8, 1).bit_length())]
    if len(present) < 16:
        return math.nan
    squares = np.array([np.mean((present[step:] - present[:-step]) ** 2) for step in steps])
    if not (squares > 0.0).all():
        return math.nan
    x, y = np.log(steps), 0.5 * np.log(squares)
    return float(np.sum((x - x.mean()) * (y - y.mean())) / np.sum((x - x.mean()) ** 2))


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
