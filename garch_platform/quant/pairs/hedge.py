"""Hedge ratio of a pair: how much of x offsets one unit of y.

The model is log y = intercept + hedge_ratio * log x + spread. On log prices the ratio is in money: long 1
of y against short ``hedge_ratio`` of x. Three estimates:

- ordinary least squares, the first step of Engle and Granger [1]_: errors are y's alone, and the ratio of
  x on y is not the inverse of that of y on x;
- total least squares (orthogonal regression): both legs carry error of equal variance [2]_, and swapping
  the legs inverts the ratio;
- a Kalman filter: ratio and intercept are random walks, and the ratio of a bar is known before the bar
  (Montana, Triantafyllopoulos and Tsagaris [3]_; Chan [4]_).

The spread is always `garch_platform.quant.pairs.spread.spread` at the estimated ratio and intercept.

References
----------
.. [1] Engle, R. F. and Granger, C. W. J. (1987), "Co-integration and error correction: representation,
   estimation, and testing", Econometrica 55, 251-276.
.. [2] Golub, G. H. and Van Loan, C. F. (1980), "An analysis of the total least squares problem", SIAM
   Journal on Numerical Analysis 17, 883-893.
.. [3] Montana, G., Triantafyllopoulos, K. and Tsagaris, T. (2009), "Flexible least squares for temporal
   data mining and statistical arbitrage", Expert Systems with Applications 36, 2819-2830.
.. [4] Chan, E. P. (2013), Algorithmic Trading, Wiley, chapter 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError, DataError

__all__ = ["HedgeRatio", "KalmanHedge", "hedge_ratio_kalman", "hedge_ratio_ols", "hedge_ratio_tls"]

Floats = NDArray[np.float64]

LEAST_WARM_UP: Final = 10
CONSTANT: Final = 1e-12
SMALLEST: Final = 1e-150
"""Moves below this vanish when they are squared."""
EXACT: Final = 1e-20
"""Share of y's variance that rounding alone leaves in the residual."""


class HedgeRatio(NamedTuple):
    """A constant hedge ratio.

    Attributes:
        hedge_ratio: slope of log y on log x; NaN if it cannot be estimated.
        intercept: intercept of that line; NaN likewise.
    """

    hedge_ratio: float
    intercept: float


@dataclass(frozen=True)
class KalmanHedge:
    """A hedge ratio for every bar, from the bars before it.

    Attributes:
        hedge_ratio: (T,) predicted slope; NaN up to the end of the warm-up.
        intercept: (T,) predicted intercept; NaN likewise.
        innovation_std: (T,) standard deviation that the filter gives to the bar's spread before it is
            seen; NaN likewise, and where a leg is absent.
    """

    hedge_ratio: Floats
    intercept: Floats
    innovation_std: Floats


NO_RATIO: Final = HedgeRatio(math.nan, math.nan)


def hedge_ratio_ols(log_y: Floats, log_x: Floats) -> HedgeRatio:
    """Least-squares slope and intercept of log_y on log_x.

    Args:
        log_y, log_x: (T,) log prices; a bar absent (NaN) in either leg is skipped.

    Returns:
        The ratio; NaN with fewer than two common bars or a constant ``log_x``.
    """
    y, x = _common(log_y, log_x)
    if _constant(x):
        return NO_RATIO
    deviation = x - x.mean()
    slope = float(np.sum(deviation * (y - y.mean())) / np.sum(deviation * deviation))
    return HedgeRatio(slope, float(y.mean() - slope * x.mean()))


def hedge_ratio_tls(log_y: Floats, log_x: Floats) -> HedgeRatio:
    """Slope and intercept of the line with the least sum of squared orthogonal distances.

    It is the first principal axis of the two legs, so it favours neither: the ratio of x on y is 1 over
    that of y on x. Log prices of both legs are taken to carry errors of equal variance.

    Args:
        log_y, log_x: (T,) log prices; a bar absent (NaN) in either leg is skipped.

    Returns:
        The ratio; NaN with fewer than two common bars, a constant ``log_x`` (the line would be upright)
        or legs without any common direction.
    """
    y, x = _common(log_y, log_x)
    if _constant(x):
        return NO_RATIO
    deviation_y, deviation_x = y - y.mean(), x - x.mean()
    excess = float(np.sum(deviation_y**2) - np.sum(deviation_x**2))
    twice_cross = 2.0 * float(np.sum(deviation_y * deviation_x))
    root = math.hypot(excess, twice_cross)
    if twice_cross == 0.0 and excess >= 0.0:
        return NO_RATIO
    slope = (excess + root) / twice_cross if excess >= 0.0 else twice_cross / (root - excess)
    return HedgeRatio(slope, float(y.mean() - slope * x.mean()))


def hedge_ratio_kalman(
    log_y: Floats, log_x: Floats, *, delta: float = 1e-4, warm_up: int = 100
) -> KalmanHedge:
    """Hedge ratio and intercept that follow random walks, filtered one step ahead.

    State (ratio, intercept)_t = (ratio, intercept)_{t-1} + w_t, observation log y_t = ratio_t * log x_t +
    intercept_t + v_t. The filter starts from least squares over the first ``warm_up`` common bars: their
    estimate, its covariance, and the residual variance as that of v. The variance of w, each bar, is
    delta / (1 - delta) times that of v for the intercept, and 1 / var(x) times as much for the ratio, x
    about its mean in the warm-up: either then moves the fitted value by about as much, and scaling a leg
    changes nothing but units. ``delta`` = 0 is recursive least squares; Chan uses 1e-4.

    Args:
        log_y, log_x: (T,) log prices. In a bar absent (NaN) in either leg the state moves on unobserved.
        delta: state noise, in [0, 1).
        warm_up: common bars that the start is estimated on, at least 10.

    Returns:
        The ratios. Those of bar t use bars up to t - 1 only, so the spread at them is the innovation of
        the filter. All NaN with fewer than ``warm_up`` common bars, or where ``log_x`` does not vary over
        them or determines ``log_y``.

    Raises:
        ConfigurationError: ``delta`` or ``warm_up`` is out of range.
    """
    if not 0.0 <= delta < 1.0:
        raise ConfigurationError(f"delta is {delta:g}; choose one in [0, 1)")
    if warm_up < LEAST_WARM_UP:
        raise ConfigurationError(f"warm_up is {warm_up}; use at least {LEAST_WARM_UP} bars")
    legs = _legs(log_y, log_x)
    result = KalmanHedge(*(np.full(legs.shape[1], math.nan) for _ in range(3)))
    bars = np.flatnonzero(np.isfinite(legs).all(axis=0))[:warm_up]
    start = hedge_ratio_ols(*legs[:, bars])
    if len(bars) < warm_up or math.isnan(start.hedge_ratio):
        return result
    centre_y, centre_x = (float(leg.mean()) for leg in legs[:, bars])
    y, x = legs[0] - centre_y, legs[1] - centre_x
    power = float(np.sum(x[bars] ** 2))
    noise = float(np.sum((y[bars] - start.hedge_ratio * x[bars]) ** 2)) / (warm_up - 2)
    if not noise > EXACT * float(np.mean(y[bars] ** 2)):
        return result
    drift_level = delta / (1.0 - delta) * noise
    drift_ratio = drift_level * warm_up / power
    ratio, level = start.hedge_ratio, 0.0
    var_ratio, covariance, var_level = noise / power, 0.0, noise / warm_up
    first = int(bars[-1]) + 1
    for t, (y_t, x_t) in enumerate(zip(y[first:].tolist(), x[first:].tolist(), strict=True), start=first):
        var_ratio += drift_ratio
        var_level += drift_level
        result.hedge_ratio[t] = ratio
        result.intercept[t] = centre_y + level - ratio * centre_x
        if not (math.isfinite(y_t) and math.isfinite(x_t)):
            continue
        with_ratio, with_level = var_ratio * x_t + covariance, covariance * x_t + var_level
        variance = with_ratio * x_t + with_level + noise
        result.innovation_std[t] = math.sqrt(variance)
        innovation = y_t - ratio * x_t - level
        ratio += with_ratio / variance * innovation
        level += with_level / variance * innovation
        var_ratio -= with_ratio * with_ratio / variance
        covariance -= with_ratio * with_level / variance
        var_level -= with_level * with_level / variance
    return result


def _legs(log_y: Floats, log_x: Floats) -> Floats:
    y, x = np.asarray(log_y, np.float64), np.asarray(log_x, np.float64)
    if y.shape != x.shape or y.ndim != 1:
        raise DataError(f"legs have shapes {y.shape} and {x.shape}; give two series of the same bars")
    return np.stack([y, x])


def _constant(leg: Floats) -> bool:
    """Whether a leg varies less than rounding makes it vary."""
    return len(leg) < 2 or not np.ptp(leg) > max(CONSTANT * float(np.max(np.abs(leg))), SMALLEST)


def _common(log_y: Floats, log_x: Floats) -> tuple[Floats, Floats]:
    """The bars that both legs have."""
    legs = _legs(log_y, log_x)
    legs = legs[:, np.isfinite(legs).all(axis=0)]
    return legs[0], legs[1]
