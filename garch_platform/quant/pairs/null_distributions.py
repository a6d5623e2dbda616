"""Distributions of the pair statistics where there is no cointegration: p-values and critical values.

The p-values of Dickey-Fuller statistics come from MacKinnon's response surfaces [1]_ with the coefficients
that statsmodels publishes (``statsmodels.tsa.adfvalues``): p = Phi(polynomial in the statistic), one
polynomial for the left tail and one for the rest. They are asymptotic: the same for every sample size.
The critical values of the Johansen trace are those of MacKinnon, Haug and Michelis [2]_.

References
----------
.. [1] MacKinnon, J. G. (1994), "Approximate asymptotic distribution functions for unit-root and
   cointegration tests", Journal of Business & Economic Statistics 12, 167-176; tables revised in
   MacKinnon, J. G. (2010), "Critical values for cointegration tests", Queen's University, Working
   Paper 1227.
.. [2] MacKinnon, J. G., Haug, A. A. and Michelis, L. (1999), "Numerical distribution functions of
   likelihood ratio tests for cointegration", Journal of Applied Econometrics 14, 563-577.
.. [3] Kapetanios, G., Shin, Y. and Snell, A. (2006), "Testing for cointegration in nonlinear smooth
   transition error correction models", Econometric Theory 22, 279-303.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "JOHANSEN_TRACE_5PCT",
    "SMALLEST_PVALUE",
    "cointegration_pvalue",
    "dickey_fuller_pvalue",
    "smooth_transition_pvalue",
]

Floats = NDArray[np.float64]

SMALLEST_PVALUE: Final = 1e-29
"""Least p-value of a Dickey-Fuller statistic. The response surfaces end near -19, where p is about 1e-29;
below it statsmodels returns 0."""

JOHANSEN_TRACE_5PCT: Final = (15.4943, 3.8415)
"""5 % critical values of the trace statistics of two series with a constant: of no cointegrating relation,
and of at most one."""


@dataclass(frozen=True)
class _Surface:
    """MacKinnon's polynomials, lowest power first, and the statistics at which they begin and end."""

    least: float
    split: float
    greatest: float
    left: tuple[float, ...]
    right: tuple[float, ...]

    def pvalue(self, statistic: Floats) -> Floats:
        from scipy.special import ndtr

        tau = np.asarray(statistic, np.float64)
        inside = np.clip(tau, self.least, self.greatest)
        left, right = (np.polyval(powers[::-1], inside) for powers in (self.left, self.right))
        p = ndtr(np.where(inside <= self.split, left, right))
        result: Floats = np.where(tau > self.greatest, 1.0, np.where(tau < self.least, SMALLEST_PVALUE, p))
        return result


ENGLE_GRANGER: Final = _Surface(
    -18.86, -2.62, 0.92, (2.92, 1.5012, 0.039796), (2.1945, 0.64695, -0.29198, -0.042377)
)
"""Two variables, a constant in the cointegrating regression."""
NO_CONSTANT: Final = _Surface(
    -19.04, -1.04, 20.0, (0.6344, 1.2378, 0.032496), (0.4797, 0.93557, -0.06999, 0.033066)
)
"""One variable, neither constant nor trend. This surface has no end: at 20 its p is 1 to the last digit."""


SMOOTH_TRANSITION_QUANTILES: Final = (
    (0.0001, -5.169),
    (0.0002, -5.022),
    (0.0005, -4.810),
    (0.001, -4.637),
    (0.002, -4.461),
    (0.005, -4.203),
    (0.01, -4.003),
    (0.02, -3.790),
    (0.05, -3.473),
    (0.1, -3.201),
    (0.2, -2.881),
    (0.3, -2.659),
    (0.4, -2.477),
    (0.5, -2.310),
    (0.6, -2.150),
    (0.7, -1.983),
    (0.8, -1.796),
    (0.9, -1.549),
    (0.95, -1.347),
    (0.99, -0.800),
    (0.999, 0.328),
)
"""(share below, statistic) of a million pairs of independent Gaussian walks of 1000 bars, the direction with
the lower Engle-Granger statistic; printed by ``benchmarks/kss_quantiles.py``. Of walks whose steps correlate
by 0.9 the 5 % quantile is -3.39 instead of -3.47: p-values err on the side of no cointegration."""


def cointegration_pvalue(statistic: Floats) -> Floats:
    """p-values of Engle-Granger statistics of two series with a constant (MacKinnon [1]_).

    Args:
        statistic: any shape.

    Returns:
        Array of the same shape, in [`SMALLEST_PVALUE`, 1]; NaN for NaN.
    """
    return ENGLE_GRANGER.pvalue(statistic)


def dickey_fuller_pvalue(statistic: Floats) -> Floats:
    """p-values of Dickey-Fuller statistics without constant or trend (MacKinnon [1]_).

    Args:
        statistic: any shape.

    Returns:
        Array of the same shape, in [`SMALLEST_PVALUE`, 1]; NaN for NaN.
    """
    return NO_CONSTANT.pvalue(statistic)


def smooth_transition_pvalue(statistic: Floats) -> Floats:
    """p-values of the cubic Engle-Granger statistic of Kapetanios, Shin and Snell [3]_ (their t_NEG).

    Args:
        statistic: any shape, of two series with a constant in the cointegrating regression.

    Returns:
        Array of the same shape; NaN for NaN. Interpolated between the simulated quantiles
        (linear in the normal quantile of p) and bounded by the outermost ones, so never below 0.0001.
    """
    from scipy.special import ndtr, ndtri

    tau = np.asarray(statistic, np.float64)
    shares, quantiles = np.array(SMOOTH_TRANSITION_QUANTILES).T
    result: Floats = np.where(np.isnan(tau), np.nan, ndtr(np.interp(tau, quantiles, ndtri(shares))))
    return result
