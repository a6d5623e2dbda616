"""The longest half-life that a selection of this size can find: its power, by simulation.

A pair search that passes nothing may mean that there is nothing, or that it could not have seen it. The
answer depends on the bars of both stages, the thresholds, and through the false discovery rate on the
number of pairs that reach the confirmation.
"""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.quant.pairs.cointegration import dickey_fuller_frozen, engle_granger_pairs
from garch_platform.quant.pairs.confirmation import bootstrap_draws, strictest_threshold
from garch_platform.quant.pairs.panel import PairPanel
from garch_platform.quant.pairs.rules import HonestGates, SelectionRules
from garch_platform.quant.pairs.spread import spread

__all__ = ["PLANTED_CORRELATION", "detectable_half_life", "planted_pairs", "with_detectable_half_life"]

Floats = NDArray[np.float64]

FEWEST_BARS: Final = 30
"""Bars of each window below which no power is claimed."""
PLANTED_CORRELATION: Final = 0.9
"""Return correlation of the legs of a planted pair."""
BARS_PER_HALF_LIFE: Final = (20, 30, 40, 50, 67, 85, 100, 130, 170, 220, 300)
"""Grid of bars over half-life on which power is simulated."""


def planted_pairs(
    bars: int, pairs: int, *, half_life: float, rng: np.random.Generator
) -> tuple[Floats, Floats]:
    """Log prices of cointegrated pairs: x a random walk, y = x + s, s a stationary AR(1).

    Args:
        bars: T.
        pairs: P.
        half_life: of s, bars.
        rng: source of normal shocks.

    Returns:
        ``(y, x)``, (T, P) each, with one-bar returns of x of variance 1 and `PLANTED_CORRELATION`
        between the returns of y and x.
    """
    from scipy.signal import lfilter

    phi = math.exp(-math.log(2.0) / half_life)
    change_variance = 1.0 / PLANTED_CORRELATION**2 - 1.0
    shock = math.sqrt(change_variance * (1.0 + phi) / 2.0)
    shocks = shock * rng.standard_normal((bars, pairs))
    shocks[0] /= math.sqrt(1.0 - phi * phi)
    reverting = lfilter([1.0], [1.0, -phi], shocks, axis=0)
    x = np.cumsum(rng.standard_normal((bars, pairs)), axis=0)
    return x + reverting, x


def detectable_half_life(
    *,
    formation_bars: int,
    confirmation_bars: int,
    gates: HonestGates,
    survivors: int,
    lags: int,
    power: float = 0.8,
    draws: int = 200,
    seed: int = 0,
) -> float:
    """The half-life at which the two stages select a planted pair with the given probability.

    Args:
        formation_bars, confirmation_bars: lengths of the windows.
        gates: p-value of the first stage and false discovery rate of the second.
        survivors: pairs that reach the confirmation; alone among them, a pair must pass at the rate
            divided by their number (under Benjamini-Yekutieli also by the harmonic sum).
        lags: lagged differences in both regressions.
        power: probability of selection.
        draws: planted pairs at each point of the grid.
        seed: of the simulation.

    Returns:
        Bars, interpolated on a grid of bars over half-life; NaN if even half-lives of a few bars are not
        found, if the family is too large for a pair alone to pass, or if the rules have no second stage.
    """
    if gates.false_discovery == "by_all":
        return math.nan
    bars = formation_bars + confirmation_bars
    if min(formation_bars, confirmation_bars) < FEWEST_BARS:
        return math.nan
    threshold = strictest_threshold(survivors, gates)
    if threshold * (1 + bootstrap_draws(survivors, gates)) < 1.0:
        return math.nan
    rng = np.random.default_rng(seed)
    last = math.nan
    previous: tuple[float, float] | None = None
    for ratio in reversed(BARS_PER_HALF_LIFE):
        half_life = bars / ratio
        if half_life < 1.0:
            continue
        found = _power(formation_bars, bars, half_life, gates.max_pvalue, threshold, lags, draws, rng)
        if found < power:
            return last if previous is None else _crossing(previous, (half_life, found), power)
        last, previous = half_life, (half_life, found)
    return last


def with_detectable_half_life(
    ledger: pl.DataFrame, panel: PairPanel, *, rules: SelectionRules
) -> pl.DataFrame:
    """Add `detectable_half_life` of the honest profile, and the lengths of the windows, to a ledger.

    Args:
        ledger: rows of a selection's ledger.
        panel: of that selection.
        rules: its gates.

    Returns:
        ``ledger`` with ``detectable_half_life`` (bars; null for the classic profile, and where nothing can
        be found), ``formation_bars`` and ``confirmation_bars``.
    """
    formation, confirmation = panel.formation_end, panel.confirmation_end - panel.formation_end
    reached = ledger.filter(pl.col("profile") == "honest")["significant"][0]
    half_life = detectable_half_life(
        formation_bars=formation,
        confirmation_bars=confirmation,
        gates=rules.honest,
        survivors=reached or 0,
        lags=rules.lags,
    )
    return ledger.with_columns(
        detectable_half_life=pl.when(pl.col("profile") == "honest").then(pl.lit(half_life)).fill_nan(None),
        formation_bars=pl.lit(formation),
        confirmation_bars=pl.lit(confirmation),
    )


def _power(
    split: int,
    bars: int,
    half_life: float,
    first: float,
    second: float,
    lags: int,
    draws: int,
    rng: np.random.Generator,
) -> float:
    y, x = planted_pairs(bars, draws, half_life=half_life, rng=rng)
    pairs = np.column_stack([np.arange(draws), np.arange(draws) + draws])
    test = engle_granger_pairs(np.hstack([y[:split], x[:split]]), pairs, lags=lags)
    later = spread(y[split:], x[split:], hedge_ratio=test.hedge_ratio, intercept=test.intercept)
    _, confirmation = dickey_fuller_frozen(later, lags=lags)
    return float(np.mean((test.pvalue <= first) & (confirmation <= second)))


def _crossing(above: tuple[float, float], below: tuple[float, float], power: float) -> float:
    """Half-life between two points of the grid at which power is reached, linear in its logarithm."""
    (short, high), (long, low) = above, below
    share = (high - power) / (high - low)
    return math.exp(math.log(short) + share * (math.log(long) - math.log(short)))
