"""Simulated daily markets for the operating characteristic: correlated, clustered, heavy-tailed."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.quant.pairs.panel import PairPanel
from garch_platform.quant.timeseries import simulate_garch

__all__ = ["GROUP", "correlated_walks", "panel_of", "plant_pairs"]

Floats = NDArray[np.float64]

GROUP = 10
"""Symbols that share a group factor."""
MARKET_SHARE, GROUP_SHARE = 0.4, 0.4
"""Shares of a symbol's variance that come from the market and from its group."""
DEGREES = 6
GARCH = {"omega": 0.02, "alpha": 0.08, "beta": 0.90}
VOLATILITY = 0.015
PLANTED_CORRELATION = 0.9


def _shocks(bars: int, columns: int, rng: np.random.Generator) -> Floats:
    """(T, columns) GARCH(1,1) returns of variance 1 with Student-t shocks."""
    draws = rng.standard_t(DEGREES, (bars, columns)) / math.sqrt(DEGREES / (DEGREES - 2))
    return simulate_garch(draws, **GARCH)


def correlated_walks(symbols: int, bars: int, rng: np.random.Generator) -> Floats:
    """(T, N) log prices without cointegration: market and group factors, GARCH-t, drift.

    Returns correlate by 0.8 within a group of ten and by 0.4 across groups.
    """
    groups = -(-symbols // GROUP)
    market, group, own = (_shocks(bars, width, rng) for width in (1, groups, symbols))
    member = np.arange(symbols) // GROUP
    mixed = (
        math.sqrt(MARKET_SHARE) * market
        + math.sqrt(GROUP_SHARE) * group[:, member]
        + math.sqrt(1.0 - MARKET_SHARE - GROUP_SHARE) * own
    )
    drift = rng.normal(0.0003, 0.0003, symbols)
    return 4.0 + np.cumsum(VOLATILITY * mixed + drift, axis=0)


def plant_pairs(
    prices: Floats, pairs: int, half_life: float, rng: np.random.Generator
) -> list[tuple[int, int]]:
    """Replace every second of the first 2 ``pairs`` columns by its neighbour plus an AR(1) spread, in place.

    The pairs lie in groups of their own choosing: column 2k is the dependent leg of 2k + 1, and their
    returns correlate by 0.9.
    """
    phi = 0.5 ** (1.0 / half_life)
    planted = [(2 * k, 2 * k + 1) for k in range(pairs)]
    for first, second in planted:
        moves = np.diff(prices[:, second])
        change = np.var(moves) * (1.0 / PLANTED_CORRELATION**2 - 1.0)
        shocks = _shocks(len(prices), 1, rng)[:, 0] * math.sqrt(change * (1.0 + phi) / 2.0)
        spread = np.empty(len(prices))
        spread[0] = shocks[0] / math.sqrt(1.0 - phi * phi)
        for t in range(1, len(prices)):
            spread[t] = phi * spread[t - 1] + shocks[t]
        prices[:, first] = prices[:, second] + spread
    return planted


def panel_of(prices: Floats) -> PairPanel:
    """A panel without a performance window: 70 % form, 30 % confirm."""
    names = [f"S{k:04d}" for k in range(prices.shape[1])]
    frame = pl.DataFrame(prices, schema=names).insert_column(
        0, pl.Series("timestamp", np.arange(len(prices)))
    )
    return PairPanel.read(frame, formation_share=0.7)
