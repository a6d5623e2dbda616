"""One-step-ahead variance with frozen parameters, and the loss that judges it.

References
----------
.. [1] Bollerslev, T. (1986), "Generalized autoregressive conditional heteroskedasticity", Journal of
   Econometrics 31, 307-327.
.. [2] Patton, A. J. (2011), "Volatility forecast comparison using imperfect volatility proxies",
   Journal of Econometrics 160, 246-256.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = ["garch_variance", "qlike", "qlike_losses"]

Floats = NDArray[np.float64]


def garch_variance(
    returns: Floats, *, mu: float, omega: float, alpha: float, beta: float, initial_variance: float
) -> Floats:
    """Variance path of a GARCH(1,1) [1]_, h_t = omega + alpha (r_{t-1} - mu)^2 + beta h_{t-1}.

    Args:
        returns: (T,) returns in the units that the parameters belong to. After an absent (NaN) return
            the squared shock is replaced by its expectation h_{t-1}.
        mu, omega, alpha, beta: parameters, not estimated from ``returns``.
        initial_variance: variance of the first return.

    Returns:
        (T,) variances; the value at t uses returns up to t - 1 only.
    """
    path = np.empty(len(returns))
    variance = float(initial_variance)
    for t, value in enumerate(np.asarray(returns, dtype=np.float64).tolist()):
        path[t] = variance
        shock = variance if math.isnan(value) else (value - mu) ** 2
        variance = omega + alpha * shock + beta * variance
    return path


def qlike(variance: ArrayLike, returns_squared: ArrayLike) -> float:
    """Mean QLIKE loss, log h + r^2 / h: lower is better, robust to the noise in r^2 as a proxy [2]_.

    Args:
        variance: forecast variances h (positive), broadcast against ``returns_squared``.
        returns_squared: squared returns (mean removed); NaN = absent.

    Returns:
        The mean over the present pairs; a difference of two losses over the same bars does not depend
        on the unit of the returns. NaN if no pair is present.
    """
    losses = qlike_losses(variance, returns_squared)
    present = np.isfinite(losses)
    return float(losses[present].mean()) if present.any() else math.nan


def qlike_losses(variance: ArrayLike, returns_squared: ArrayLike) -> Floats:
    """QLIKE loss of each forecast, see `qlike`; NaN where the forecast or the return is absent."""
    h, squared = np.broadcast_arrays(
        np.asarray(variance, np.float64), np.asarray(returns_squared, np.float64)
    )
    present = np.isfinite(h) & np.isfinite(squared) & (h > 0.0)
    return np.where(present, np.log(np.where(present, h, 1.0)) + squared / np.where(present, h, 1.0), np.nan)
