"""Health of a GARCH fit: is it on a boundary, does it persist, which lags test its residuals?

A volatility model is judged on its *standardised residuals* z = e / sqrt(h): an adequate one leaves
neither autocorrelation (Ljung-Box [1]_) nor ARCH (Engle's LM test [2]_) in them. Estimates on the edge
of the parameter space have no usual standard errors (Andrews [3]_) and are flagged.

References
----------
.. [1] Ljung, G. M. and Box, G. E. P. (1978), Biometrika 65, 297-303.
.. [2] Engle, R. F. (1982), Econometrica 50, 987-1007.
.. [3] Andrews, D. W. K. (1999), "Estimation when a parameter is on a boundary", Econometrica 67,
   1341-1383.
"""

from __future__ import annotations

import math
from typing import Final

from garch_platform.quant.volatility.specification import LEAST_OMEGA, NU_BOUNDS

__all__ = [
    "BOUNDARY_TOLERANCE",
    "CONSTANT_TOLERANCE",
    "RESIDUAL_ARCH_LAGS",
    "RESIDUAL_LJUNG_BOX_LAGS",
    "boundary",
    "variance_half_life",
]

RESIDUAL_LJUNG_BOX_LAGS: Final = 10
RESIDUAL_ARCH_LAGS: Final = 5
BOUNDARY_TOLERANCE: Final = 1e-4
"""Distance of alpha, beta or 1 - alpha - beta from 0 that counts as being on the boundary."""
CONSTANT_TOLERANCE: Final = 1e-12


def variance_half_life(persistence: float) -> float:
    """Bars until half of a variance shock is gone: ln 0.5 / ln(alpha + beta); NaN outside (0, 1)."""
    if not 0.0 < persistence < 1.0:
        return math.nan
    return math.log(0.5) / math.log(persistence)


def boundary(
    alpha: float,
    gamma: float,
    beta: float,
    *,
    nu: float | None = None,
    omega: float | None = None,
) -> str | None:
    """Name every edge of the parameter space that the estimate lies on, or None.

    Args:
        alpha, gamma, beta: of GJR-GARCH(1,1); gamma is 0 for GARCH.
        nu: degrees of freedom, None for the normal distribution.
        omega: of returns of variance 1.

    Returns:
        Such as ``alpha=0``, ``alpha+beta=1`` or ``nu=500``, joined by ``, ``.
    """
    sides = {
        "alpha=0": alpha,
        "alpha+gamma=0": alpha + gamma if gamma else 1.0,
        "beta=0": beta,
        "alpha+gamma/2+beta=1" if gamma else "alpha+beta=1": 1.0 - alpha - 0.5 * gamma - beta,
    }
    edges = [name for name, distance in sides.items() if distance < BOUNDARY_TOLERANCE]
    if nu is not None:
        low, high = NU_BOUNDS
        edges += [f"nu={low:g}"] * (nu < low * 1.001) + [f"nu={high:g}"] * (nu > high * 0.999)
    if omega is not None and omega < 2.0 * LEAST_OMEGA:
        edges.append("omega=0")
    return ", ".join(edges) or None
