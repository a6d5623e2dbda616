"""Log prices and one-bar log returns.

A one-bar return is the difference of the log closes of two consecutive *present* bars. Between
sessions of intraday bars there is none: the overnight move spans more than one bar, and its variance
is of another size (French and Roll [1]_), so the first present bar of each session has no return.

References
----------
.. [1] French, K. R. and Roll, R. (1986), "Stock return variances: the arrival of information and the
   reaction of traders", Journal of Financial Economics 17, 5-26.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from garch_platform.errors import DataError

__all__ = ["annualised_volatility", "log_prices", "log_returns"]

Floats = NDArray[np.float64]


def log_prices(prices: Floats) -> Floats:
    """Natural logarithm of prices; NaN where a price is absent, not positive or not finite.

    Args:
        prices: any shape, currency units.

    Returns:
        An array of the same shape.
    """
    values = np.ascontiguousarray(prices, dtype=np.float64)
    usable = np.isfinite(values) & (values > 0.0)
    return np.where(usable, np.log(np.where(usable, values, 1.0)), np.nan)


def log_returns(log_closes: Floats, *, session_index: NDArray[np.integer] | None = None) -> Floats:
    """One-bar log returns of a panel.

    Args:
        log_closes: (T,) or (T, N) log closes in time order; NaN marks an absent bar.
        session_index: (T,) identifier of each bar's session, for intraday bars. A bar whose previous
            present bar lies in another session then has no return. None (daily bars) compares every
            bar with the previous present one.

    Returns:
        An array of the same shape, fractions per bar. NaN where the bar or its predecessor is absent.

    Raises:
        DataError: ``session_index`` does not have one entry a bar.
    """
    panel = np.asarray(log_closes, dtype=np.float64)
    if session_index is not None and len(session_index) != len(panel):
        raise DataError(
            f"session_index has {len(session_index)} entries for {len(panel)} bars; give one for each bar"
        )
    if panel.ndim == 1:
        return _column_returns(panel, session_index)
    columns = [_column_returns(panel[:, column], session_index) for column in range(panel.shape[1])]
    return np.column_stack(columns) if columns else np.empty(panel.shape)


def _column_returns(log_close: Floats, session_index: NDArray[np.integer] | None) -> Floats:
    rows = np.flatnonzero(np.isfinite(log_close))
    moves = np.diff(log_close[rows])
    if session_index is not None:
        sessions = np.asarray(session_index)[rows]
        moves[sessions[1:] != sessions[:-1]] = np.nan
    returns = np.full(len(log_close), np.nan)
    returns[rows[1:]] = moves
    return returns


def annualised_volatility(standard_deviation: Floats, *, bars_per_year: float) -> Floats:
    """Per-bar standard deviation times the square root of the bars in a year, as a fraction.

    ``bars_per_year`` belongs to the bars that the deviation was measured on: 252 for daily bars of a
    US exchange, 98,280 for its 1-minute bars.
    """
    return np.asarray(standard_deviation, dtype=np.float64) * math.sqrt(bars_per_year)
