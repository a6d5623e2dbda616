"""Correlation of the returns of pairs, over a horizon, on the bars that both legs have.

Of a pair's common bars in a session (of all common bars where there are no sessions), every horizon-th is
taken from the first on, and returns run from one to the next: they do not overlap, never cross sessions,
and span the same time in both legs. Bars in which one leg did not trade thus lengthen a return instead of
pairing moves of different times, which would understate the correlation (Epps [1]_).

References
----------
.. [1] Epps, T. W. (1979), "Comovements in stock prices in the very short run", Journal of the American
   Statistical Association 74, 291-298.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from garch_platform.errors import DataError
from garch_platform.quant.compiled import in_threads
from garch_platform.quant.pairs.scan_columns import ScanColumns, even_slices, require_at_least, row_squares

__all__ = ["ReturnCorrelation", "correlation_matrix"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ReturnCorrelation:
    """Correlations of a panel, ready to be computed for any of its pairs.

    Attributes:
        columns: the panel.
        sessions: (T,) session of each bar.
        horizon: common bars from one price to the next; 0 for the log prices themselves.
        moves: (N, K) returns of the complete series, of mean 0 and sum of squares 1.
    """

    columns: ScanColumns
    sessions: Integers
    horizon: int
    moves: Floats

    @classmethod
    def read(cls, columns: ScanColumns, *, session_index: Integers | None, horizon: int) -> ReturnCorrelation:
        """Take the returns of the complete series.

        Raises:
            DataError: ``session_index`` does not have one entry a bar.
        """
        bars = columns.values.shape[1]
        if session_index is not None and len(session_index) != bars:
            raise DataError(
                f"session_index has {len(session_index)} entries for {bars} bars; give one for each bar"
            )
        sessions = np.zeros(bars, np.int64) if session_index is None else np.array(session_index, np.int64)
        return cls(columns, sessions, horizon, _moves(columns, sessions, horizon))

    def of(self, pairs: Integers) -> Floats:
        """(P,) correlations in [-1, 1] of (P, 2) columns; NaN where a leg does not move."""
        from garch_platform.quant.pairs.pair_kernels import correlate_pairs

        out, columns = np.empty(len(pairs)), self.columns
        correlate_pairs(
            columns.values,
            columns.complete,
            columns.floor,
            self.moves,
            self.sessions,
            self.horizon,
            pairs,
            out,
        )
        return np.clip(out, -1.0, 1.0)


def correlation_matrix(
    log_prices: Floats, *, session_index: Integers | None = None, horizon: int = 1, workers: int = 1
) -> Floats:
    """Correlations of the returns of all pairs of a universe.

    Args:
        log_prices: (T, N) log prices in time order; NaN = absent.
        session_index: (T,) session of each bar, for intraday bars.
        horizon: bars of a return, see above; 0 correlates the log prices themselves.
        workers: threads; the result does not depend on them.

    Returns:
        (N, N), symmetric; NaN where one of the two does not move. The correlation of a pair is the same
        number as in `garch_platform.quant.pairs.scan.scan_pairs`.

    Raises:
        DataError: arrays do not fit together.
        ConfigurationError: ``horizon`` is negative, or ``workers`` is not positive.
    """
    require_at_least(0, horizon=horizon)
    require_at_least(1, workers=workers)
    columns = ScanColumns.read(log_prices)
    correlation = ReturnCorrelation.read(columns, session_index=session_index, horizon=horizon)
    count = len(columns.values)
    pairs = np.column_stack(np.triu_indices(count)).astype(np.int64)
    slices = even_slices(len(pairs), workers)
    found = in_threads(lambda piece: correlation.of(pairs[piece]), slices, workers=workers)
    matrix = np.empty((count, count))
    matrix[pairs[:, 0], pairs[:, 1]] = matrix[pairs[:, 1], pairs[:, 0]] = np.concatenate([*found, []])
    return matrix


def _moves(columns: ScanColumns, sessions: Integers, horizon: int) -> Floats:
    """(N, K) returns or levels of the complete series, normed; NaN for one with gaps or without moves."""
    if horizon:
        start, end = _steps(sessions, horizon)
        moves = np.take(columns.values, end, axis=1)
        moves -= np.take(columns.values, start, axis=1)
    else:
        moves = columns.values.copy()
    if moves.shape[1] < 2:
        return np.full((len(moves), 2), np.nan)
    moves -= moves.mean(axis=1)[:, np.newaxis]
    squares = row_squares(moves)
    squares[~(squares > moves.shape[1] * columns.floor)] = np.nan
    moves /= np.sqrt(squares)[:, np.newaxis]
    return moves


def _steps(sessions: Integers, horizon: int) -> tuple[Integers, Integers]:
    """Rows from and to which the returns of a complete series go."""
    rows = np.arange(len(sessions))
    first = np.ones(len(sessions), bool)
    first[1:] = sessions[1:] != sessions[:-1]
    place = rows - np.maximum.accumulate(np.where(first, rows, 0))
    grid = rows[place % horizon == 0]
    inside = ~first[grid[1:]]
    return grid[:-1][inside], grid[1:][inside]
