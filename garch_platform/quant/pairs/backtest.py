"""Trading many spreads by their z-score, and what the results are worth.

References
----------
.. [1] Bailey, D. H. and Lopez de Prado, M. (2012), "The Sharpe ratio efficient frontier", Journal of Risk
   15(2), 3-44: the probabilistic Sharpe ratio.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

__all__ = ["Backtest", "backtest_spreads", "carried"]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Backtest:
    """Results of `backtest_spreads`, one column a spread.

    Attributes:
        returns: (T - 1, P) net return of each bar after the first, a fraction of the gross value of both
            legs; NaN where the spread has no bar.
        positions: (T - 1, P) position held over that bar: 1 long the spread, -1 short, 0 flat.
        trades: (P,) positions opened.
    """

    returns: Floats
    positions: NDArray[np.int64]
    trades: NDArray[np.int64]

    @property
    def sharpe(self) -> Floats:
        """(P,) mean over standard deviation (ddof 1) per bar; NaN without a trade."""
        mean, deviation, _, _ = self._moments()
        traded = (self.trades > 0) & (deviation > 0.0)
        return np.where(traded, mean / np.where(traded, deviation, 1.0), np.nan)

    @property
    def probabilistic_sharpe(self) -> Floats:
        """(P,) probability that the true Sharpe ratio is positive, given length, skewness and kurtosis of
        the returns [1]_; 0 without a trade."""
        from scipy.stats import norm

        ratio = np.nan_to_num(self.sharpe)
        _, _, skewness, kurtosis = self._moments()
        bars = np.isfinite(self.returns).sum(axis=0)
        spread = 1.0 - skewness * ratio + (kurtosis - 1.0) / 4.0 * ratio * ratio
        value = norm.cdf(ratio * np.sqrt(np.maximum(bars - 1, 0) / np.maximum(spread, 1e-12)))
        return np.where(self.trades > 0, value, 0.0)

    def _moments(self) -> tuple[Floats, Floats, Floats, Floats]:
        """Mean, standard deviation (ddof 1), skewness and kurtosis of each column's present returns."""
        present = np.isfinite(self.returns)
        count = np.maximum(present.sum(axis=0), 1)
        mean = np.where(present, self.returns, 0.0).sum(axis=0) / count
        deviation = np.where(present, self.returns - mean, 0.0)
        variance = (deviation**2).sum(axis=0) / count
        safe = np.where(variance > 0.0, variance, 1.0)
        skewness = (deviation**3).sum(axis=0) / count / safe**1.5
        kurtosis = (deviation**4).sum(axis=0) / count / safe**2
        return mean, np.sqrt(variance * count / np.maximum(count - 1, 1)), skewness, kurtosis


def backtest_spreads(
    spreads: Floats,
    *,
    mean: Floats,
    std: Floats,
    hedge_ratio: Floats,
    entry_zscore: float,
    exit_zscore: float,
    cost_bps: float,
) -> Backtest:
    """Trade spreads by their z-scores against frozen means and standard deviations.

    The z-score of bar t - 1 decides the position that earns the change from t - 1 to t. Flat, it sells at
    z >= entry and buys at z <= -entry; short, it closes at z <= exit, long at z >= -exit. A position still
    open at the end is closed there. Where a spread has no bar the position is kept, and the next bar earns
    the whole change.

    Args:
        spreads: (T, P) in time order, NaN = absent; the first row only decides.
        mean, std: (P,) moments of the formation window.
        hedge_ratio: (P,) money in the second leg for one in the first.
        entry_zscore, exit_zscore: thresholds.
        cost_bps: one-way cost of each leg, basis points of the value traded.

    Returns:
        The net returns: position x change / (1 + |hedge ratio|), less the cost at each opening and closing.
    """
    bars, pairs = spreads.shape
    if bars < 2:
        return Backtest(np.empty((0, pairs)), np.empty((0, pairs), np.int64), np.zeros(pairs, np.int64))
    known = carried(spreads)
    zscore = (known - mean) / np.where(std > 0.0, std, np.nan)
    positions = np.zeros((bars - 1, pairs), np.int64)
    position = np.zeros(pairs, np.int64)
    for t in range(bars - 1):
        z = np.nan_to_num(zscore[t])
        position = np.where(position * z >= -exit_zscore, 0, position)
        opened = (position == 0) & (np.abs(z) >= entry_zscore)
        position = np.where(opened, np.where(z > 0, -1, 1), position)
        positions[t] = position
    moves = np.nan_to_num(np.diff(known, axis=0))
    turnover = np.abs(np.diff(positions, axis=0, prepend=0)).astype(np.float64)
    turnover[-1] += np.abs(positions[-1])
    net = positions * moves / (1.0 + np.abs(hedge_ratio)) - turnover * cost_bps * 1e-4
    opened = (positions != 0) & (np.diff(positions, axis=0, prepend=0) != 0)
    held = np.isfinite(spreads[1:]) | (turnover > 0.0)
    return Backtest(np.where(held, net, np.nan), positions, opened.sum(axis=0))


def carried(spreads: Floats) -> Floats:
    """(T, P) the latest known value of each column at each row; NaN before its first."""
    rows = np.arange(len(spreads))[:, np.newaxis]
    newest = np.maximum.accumulate(np.where(np.isfinite(spreads), rows, -1), axis=0)
    values = np.take_along_axis(spreads, np.maximum(newest, 0), axis=0)
    return np.where(newest >= 0, values, math.nan)
