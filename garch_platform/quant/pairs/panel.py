"""Log prices of a universe, cut into the three windows of a selection.

::

    0 ........... formation_end ........ confirmation_end ............ T
      estimate                  confirm                     perform

The formation window estimates hedge ratios, means and models; the confirmation window tests them,
frozen; the performance window has been seen by neither.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError, DataError

__all__ = ["PairPanel"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class PairPanel:
    """Log prices and the rows at which the windows meet.

    Attributes:
        symbols: (N,) names, sorted.
        log_prices: (T, N) log closes in time order; NaN = absent.
        session_index: (T,) session of each bar for intraday bars, None for daily ones.
        formation_end: first row of the confirmation window.
        confirmation_end: first row of the performance window (T if there is none).
    """

    symbols: tuple[str, ...]
    log_prices: Floats
    session_index: Integers | None
    formation_end: int
    confirmation_end: int

    @classmethod
    def read(
        cls,
        log_closes: pl.DataFrame,
        *,
        formation_share: float,
        performance_start: datetime | date | int | None = None,
        session_ids: pl.Series | None = None,
    ) -> PairPanel:
        """A panel from a wide frame.

        Args:
            log_closes: ``timestamp`` (strictly increasing) and one Float64 column of log closes a symbol;
                null or NaN = absent.
            formation_share: share of the bars before ``performance_start`` that form the pairs.
            performance_start: timestamp of the first bar of the performance window, or its row number;
                None = no such window.
            session_ids: (T,) session of each bar, for intraday bars.

        For intraday bars the formation window ends with the session nearest to that share.

        Raises:
            ConfigurationError: ``formation_share`` is not between 0 and 1.
            DataError: timestamps are absent or not strictly increasing, or do not compare with
                ``performance_start``; a column holds no numbers; ``session_ids`` has another length.
        """
        if not 0.0 < formation_share < 1.0:
            raise ConfigurationError(
                f"formation_share is {formation_share}; give a share between 0 and 1, such as 0.7"
            )
        if "timestamp" not in log_closes.columns:
            raise DataError("log_closes have no column timestamp; give one row a bar, one column a symbol")
        times = log_closes["timestamp"]
        if times.null_count() or not (times.diff().drop_nulls().to_physical() > 0).all():
            raise DataError("log_closes.timestamp does not strictly increase; sort it and keep one row a bar")
        names = sorted(set(log_closes.columns) - {"timestamp"})
        columns = [_numbers(log_closes[name]) for name in names]
        prices = np.column_stack(columns) if columns else np.empty((len(times), 0))
        end = _row(times, performance_start)
        sessions = None if session_ids is None else _sessions(session_ids, len(times))
        return cls(
            symbols=tuple(names),
            log_prices=np.where(np.isfinite(prices), prices, np.nan),
            session_index=sessions,
            formation_end=_formation_end(end, formation_share, sessions),
            confirmation_end=end,
        )

    def without(self, symbols: Any) -> PairPanel:
        """The panel of the other symbols."""
        kept = [place for place, name in enumerate(self.symbols) if name not in symbols]
        return self.with_prices(self.log_prices[:, kept], tuple(self.symbols[place] for place in kept))

    def with_prices(self, log_prices: Floats, symbols: tuple[str, ...] | None = None) -> PairPanel:
        """The same windows over other prices."""
        return PairPanel(
            symbols or self.symbols if log_prices.shape[1] else (),
            log_prices,
            self.session_index,
            self.formation_end,
            self.confirmation_end,
        )

    @property
    def formation(self) -> Floats:
        """(formation_end, N) log prices of the formation window."""
        return self.log_prices[: self.formation_end]

    @property
    def formation_sessions(self) -> Integers | None:
        """Session of each formation bar, None for daily bars."""
        return None if self.session_index is None else self.session_index[: self.formation_end]


def _row(times: pl.Series, start: datetime | date | int | None) -> int:
    if start is None:
        return len(times)
    if isinstance(start, int | np.integer):
        return min(max(int(start), 0), len(times))
    try:
        return int((times < start).sum())
    except (pl.exceptions.PolarsError, TypeError, NotImplementedError) as error:
        raise DataError(
            f"performance_start {start!r} does not compare with timestamps of type {times.dtype}; "
            "use the same type and time zone"
        ) from error


def _numbers(column: pl.Series) -> Floats:
    if not column.dtype.is_numeric() and column.dtype != pl.Null:
        raise DataError(f"log_closes.{column.name} is {column.dtype}; give log closes as numbers")
    return column.cast(pl.Float64).fill_null(np.nan).to_numpy()


def _sessions(session_ids: pl.Series, bars: int) -> Integers:
    if len(session_ids) != bars:
        raise DataError(f"session_ids has {len(session_ids)} entries for {bars} bars; give one for each bar")
    return pl.Series("session", session_ids).rle_id().cast(pl.Int64).to_numpy()


def _formation_end(end: int, share: float, sessions: Integers | None) -> int:
    row = round(end * share)
    if sessions is None or not 0 < row < end:
        return row
    begins = np.flatnonzero(np.diff(sessions[:end])) + 1
    return int(begins[np.argmin(np.abs(begins - row))]) if len(begins) else row
