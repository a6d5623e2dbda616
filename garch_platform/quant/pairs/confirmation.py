"""Second stage of the honest selection: is the frozen spread stationary on bars it has not seen?

Hedge ratio, mean and direction come from the formation window. The Dickey-Fuller regression on the later
bars has no constant, because the mean is known: that is where its power comes from (with a planted
half-life of 10 bars, 700 formation and 300 later bars, it confirms far more often than a second
Engle-Granger test, at the same size; see the project's page on selection).

Below p = 0.001 the asymptotic p-value is too small when variances cluster and tails are heavy. There the
wild bootstrap [1]_ counts: the spread's changes get random signs, which keeps each bar's variance and
leaves a martingale, so the share of draws below the statistic is a p-value of no reversion.

References
----------
.. [1] Cavaliere, G. and Taylor, A. M. R. (2008), "Bootstrap unit root tests for time series with
   nonstationary volatility", Econometric Theory 24, 43-71.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from garch_platform.quant.pairs.rules import FalseDiscovery, HonestGates

__all__ = [
    "BOOTSTRAP_DRAWS",
    "bootstrap_draws",
    "confirm_spreads",
    "false_discovery_qvalues",
    "strictest_threshold",
]

Floats = NDArray[np.float64]

BOOTSTRAP_BELOW: Final = 1e-3
BOOTSTRAP_DRAWS: Final = 9_999
"""Draws of a wild-bootstrap p-value, whose least value is thus 1e-4."""
MOST_DRAWS: Final = 199_999


def strictest_threshold(family: int, gates: HonestGates) -> float:
    """The p-value that a pair alone among ``family`` must reach: rate / family, under Benjamini-Yekutieli
    divided by the harmonic sum, too."""
    family = max(family, 1)
    harmonic = sum(1.0 / k for k in range(1, family + 1)) if gates.false_discovery == "by" else 1.0
    return gates.false_discovery_rate / family / harmonic


def bootstrap_draws(family: int, gates: HonestGates) -> int:
    """Draws with which a pair alone among ``family`` can pass: 9,999, more for large families, to 199,999."""
    threshold = strictest_threshold(family, gates)
    if threshold * (1 + BOOTSTRAP_DRAWS) >= 1.0:
        return BOOTSTRAP_DRAWS
    return min(MOST_DRAWS, math.ceil(2.0 / threshold))


def confirm_spreads(
    spreads: Floats, *, lags: int, draws: int = BOOTSTRAP_DRAWS, seed: int = 0
) -> tuple[Floats, Floats]:
    """Dickey-Fuller tests without constant of frozen spreads on later bars.

    Args:
        spreads: (T, P) of the confirmation window, mean of the formation window taken out; NaN = absent.
        lags: lagged differences in the regression.
        draws: of the bootstrap, see `bootstrap_draws`.
        seed: of the bootstrap's signs.

    Returns:
        ``(statistic, pvalue)``, (P,) each, NaN where there are too few bars. The p-value is the
        asymptotic one, or the larger of it and the wild bootstrap's where it is below 0.001.
    """
    from garch_platform.quant.pairs.cointegration import dickey_fuller_frozen
    from garch_platform.quant.pairs.confirmation_kernels import wild_exceedances

    statistic, pvalue = dickey_fuller_frozen(spreads, lags=lags)
    pvalue = pvalue.copy()
    for place in np.flatnonzero(pvalue < BOOTSTRAP_BELOW):
        spread = spreads[:, place]
        present = np.ascontiguousarray(spread[np.isfinite(spread)])
        extreme = wild_exceedances(present, lags, statistic[place], draws, seed)
        pvalue[place] = max(pvalue[place], (1 + extreme) / (1 + draws))
    return statistic, pvalue


def false_discovery_qvalues(pvalues: Floats, *, method: FalseDiscovery) -> Floats:
    """Adjusted p-values: the least false discovery rate at which each test is rejected.

    Args:
        pvalues: (M,), without NaN.
        method: ``bh`` Benjamini and Hochberg (1995), Journal of the Royal Statistical Society B 57,
            289-300; ``by`` and ``by_all`` Benjamini and Yekutieli (2001), Annals of Statistics 29,
            1165-1188, under any dependence.

    Returns:
        (M,) adjusted p-values.
    """
    from scipy.stats import false_discovery_control

    if not len(pvalues):
        return np.empty(0)
    result: Floats = false_discovery_control(pvalues, method="bh" if method == "bh" else "by")
    return result
