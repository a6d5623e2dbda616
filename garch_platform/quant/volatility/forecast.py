"""One-step-ahead variance with frozen parameters, and the loss that judges it.

References
----------
.. [1] Bollerslev, T. (1986), "Generalized autoregressive conditional heteroskedasticity", Journal of
   Econometrics 31, 307-327.
.. [2] Patton, A. J. (2011), "Volatility forecast comparison using imperfect volatility proxies",
   Journal of Econometrics 160, 246-256.
.. [3] Glosten, L. R., Jagannathan, R. and Runkle, D. E. (1993), "On the relation between the expected
   value and the volatility of the nominal excess return on stocks", Journal of Finance 48, 1779-1801.
.. [4] J. P. Morgan (1996), RiskMetrics, Technical Document, 4th edition.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from garch_platform.errors import ConfigurationError

__all__ = ["ewma_variance", "garch_variance", "qlike", "qlike_losses"]

Floats = NDArray[np.float64]


def garch_variance(
    returns: Floats,
    *,
    mu: float,
    omega: float,
    alpha: float,
    beta: float,
    initial_variance: float,
    gamma: float = 0.0,
) -> Floats:
    """Variance path of a GARCH(1,1) [1]_, h_t = omega + alpha (r_{t-1} - mu)^2 + beta h_{t-1}.

    Args:
        returns: (T,) returns in the units that the parameters belong to. After an absent (NaN) return
            the squared shock is replaced by its expectation h_{t-1}.
        mu, omega, alpha, beta: parameters, not estimated from ``returns``.
        initial_variance: variance of the first return.
        gamma: what a negative shock adds to alpha (GJR [3]_).

    Returns:
        (T,) variances; the value at t uses returns up to t - 1 only.
    """
    from garch_platform.quant.volatility import variance_kernels

    series = np.require(returns, np.float64, ["C", "W"])
    path = np.empty(len(series))
    parameters = np.array([mu, omega, alpha, gamma, beta], dtype=np.float64)
    variance_kernels.variance_path(series, parameters, float(initial_variance), path)
    return path


def ewma_variance(returns: Floats, *, decay: float = 0.94, initial_variance: float | None = None) -> Floats:
    """Exponentially weighted variance [4]_, h_t = decay h_{t-1} + (1 - decay) r_{t-1}^2.

    Args:
        returns: (T,) returns with mean about 0. After an absent (NaN) one the variance stays.
        decay: weight of the past; RiskMetrics' 0.94 for daily returns.
        initial_variance: variance of the first return; the first present squared return if None.

    Returns:
        (T,) variances; the value at t uses returns up to t - 1 only, once the first is set. NaN where
        no return is present.

    Raises:
        ConfigurationError: ``decay`` is not between 0 and 1.
    """
    if not 0.0 < decay < 1.0:
        raise ConfigurationError(f"decay {decay} is not between 0 and 1; RiskMetrics uses 0.94")
    series = np.asarray(returns, dtype=np.float64)
    if initial_variance is None:
        present = series[np.isfinite(series)]
        initial_variance = float(present[0] ** 2) if len(present) else math.nan
    return garch_variance(
        series, mu=0.0, omega=0.0, alpha=1.0 - decay, beta=decay, initial_variance=initial_variance
    )


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
