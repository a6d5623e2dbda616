"""Features of closes: returns, z-score, rolling moments, volatility, moving averages, RSI.

Every value at bar t uses closes up to and including t, so it is known when t's bar has closed; the
z-score compares t's return with moments of the returns before t. One full computation and any split
into consecutive appends give the same bits, because

- expanding sums are sequential and continue from the sums stored with the previous rows, and
- a rolling window is summed afresh, always in the same order, and never carried along.

Windows count *present* values (absent closes and overnight moves are skipped) and reach back at most
``FeatureWindows.tail`` rows of the symbol: beyond that the value is null rather than stale.

The RSI is Cutler's: simple averages of the last n price changes in place of Wilder's [1]_ infinite
smoothing, so that it does not depend on where the data begins.

References
----------
.. [1] Wilder, J. W. (1978), "New Concepts in Technical Trading Systems", section VI. Cutler's variant:
   https://en.wikipedia.org/wiki/Relative_strength_index#Cutler%27s_RSI
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.compiled import in_threads

__all__ = ["FEATURE_SCHEMA", "FeatureWindows", "compute_features"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TIMESTAMP: Final = pl.Datetime("us", "UTC")
KEY: Final = ("symbol", "timestamp")
STORED: Final = ("log_close", "log_return", "return_count", "return_sum", "return_sum_squares")
"""Columns of earlier rows from which features continue."""

FEATURE_SCHEMA: Final[dict[str, pl.DataType]] = {
    "symbol": pl.String(),
    "timestamp": TIMESTAMP,
    "session_date": pl.Date(),
    "log_close": pl.Float64(),
    "log_return": pl.Float64(),
    "z_score": pl.Float64(),
    "rolling_mean": pl.Float64(),
    "rolling_std": pl.Float64(),
    "volatility_annualized": pl.Float64(),
    "ma_short": pl.Float64(),
    "ma_long": pl.Float64(),
    "rsi": pl.Float64(),
    "return_count": pl.Int64(),
    "return_sum": pl.Float64(),
    "return_sum_squares": pl.Float64(),
}
"""Columns made here. Returns and moments are fractions per bar, moving averages price units, RSI
0..100; ``return_count``, ``return_sum`` and ``return_sum_squares`` are the expanding state after the row."""


@dataclass(frozen=True)
class FeatureWindows:
    """Lengths of the windows, in bars.

    Attributes:
        rolling_window: returns in the rolling mean and standard deviation (at least 2).
        min_periods: earlier returns needed before a z-score is given (at least 2).
        ma_short: closes in the short moving average.
        ma_long: closes in the long moving average.
        rsi_window: price changes in the RSI.

    Raises:
        ConfigurationError: a window is too short.
    """

    rolling_window: int
    min_periods: int
    ma_short: int
    ma_long: int
    rsi_window: int

    def __post_init__(self) -> None:
        for field in fields(self):
            least = 2 if field.name in ("rolling_window", "min_periods") else 1
            value = getattr(self, field.name)
            if value < least:
                raise ConfigurationError(f"features.{field.name} is {value}; use at least {least}")

    @property
    def tail(self) -> int:
        """Earlier rows per symbol that an append needs, and the farthest that a window reaches back.

        Twice the longest window, so that overnight gaps and absent closes fit in.
        """
        return 2 * max(self.rolling_window, self.ma_short, self.ma_long, self.rsi_window + 1)


def compute_features(
    closes: pl.DataFrame,
    *,
    windows: FeatureWindows,
    bars_per_year: float,
    intraday: bool,
    previous: pl.DataFrame | None = None,
    workers: int = 1,
) -> pl.DataFrame:
    """Features of every row of ``closes``.

    Args:
        closes: ``symbol``, ``timestamp`` (UTC), ``session_date``, ``close`` (currency), in any order.
            A null, non-positive or non-finite close counts as absent: its row stays, without features.
        windows: lengths of the windows.
        bars_per_year: bars in a year, for the annualisation.
        intraday: whether a session holds several bars; its first present bar then has no return.
        previous: earlier feature rows, at least the last ``windows.tail`` of each symbol (all of them
            where it has fewer). A symbol without rows here begins anew.
        workers: threads that share the symbols.

    Returns:
        One row for each row of ``closes`` with the columns of `FEATURE_SCHEMA`, sorted by symbol and
        timestamp.

        ``z_score`` is (r_t - mean) / std over all returns before t (ddof 1); null with fewer than
        ``min_periods`` of them or where they do not vary. ``rolling_mean`` and ``rolling_std`` (ddof 1)
        span the last ``rolling_window`` returns including t. ``rsi`` is null where no price changed.

    Raises:
        DataError: a key is null or occurs twice, a timestamp has no time zone, a column is missing, or
            ``previous`` reaches into ``closes``.
    """
    new = _new_rows(closes)
    if not new.frame.height:
        return pl.DataFrame(schema=FEATURE_SCHEMA)
    known = _previous_rows(previous, new, windows.tail)
    values, counts = _computed(new, known, windows, math.sqrt(bars_per_year), intraday, workers)
    computed = {
        name: pl.Series(name, column, nan_to_null=name not in STORED[-2:]) for name, column in values.items()
    }
    computed["return_count"] = pl.Series("return_count", counts)
    return new.frame.select(*KEY, "session_date").with_columns(**computed).select(*FEATURE_SCHEMA)


@dataclass(frozen=True)
class _Rows:
    """Rows in order of symbol and time.

    Attributes:
        frame: at least ``symbol``, ``timestamp`` and ``session_date``.
        symbols: the S symbols.
        starts: (S + 1,) rows at which they begin, and the number of rows.
    """

    frame: pl.DataFrame
    symbols: pl.Series
    starts: Integers

    @classmethod
    def of(cls, frame: pl.DataFrame) -> _Rows:
        runs = frame["symbol"].rle().struct.unnest()
        return cls(frame, runs["value"], np.concatenate([[0], runs["len"].cast(pl.Int64).cum_sum()]))

    @property
    def time(self) -> Integers:
        return self.frame["timestamp"].to_physical().to_numpy()

    @property
    def session(self) -> NDArray[np.int32]:
        return self.frame["session_date"].to_physical().fill_null(-1).to_numpy()

    @property
    def disorder(self) -> int:
        """A row that is not after the one before it, or -1."""
        from garch_platform.quant.feature_kernels import first_disorder

        if not (self.symbols.is_sorted() and self.symbols.n_unique() == len(self.symbols)):
            return 0
        return int(first_disorder(self.starts, self.time))


def _ordered(frame: pl.DataFrame) -> _Rows:
    """The rows sorted by key; a frame that is in order is not sorted again."""
    empty = frame.select(pl.any_horizontal(pl.col(KEY).is_null()).sum()).item()
    if empty:
        raise DataError(f"{empty} rows have no symbol or no timestamp; drop them")
    rows = _Rows.of(frame)
    if rows.disorder < 0:
        return rows
    codes = frame["symbol"].cast(pl.Enum(rows.symbols.unique().sort())).to_physical().to_numpy()
    order = np.argsort(rows.time, kind="stable")
    return _Rows.of(frame[order[np.argsort(codes[order], kind="stable")]])


def _new_rows(closes: pl.DataFrame) -> _Rows:
    missing = [name for name in (*KEY, "session_date", "close") if name not in closes.columns]
    if missing:
        raise DataError(f"closes have no column {', '.join(missing)}; they have {', '.join(closes.columns)}")
    kind = closes.schema["timestamp"]
    if not isinstance(kind, pl.Datetime) or kind.time_zone is None:
        raise DataError(f"closes.timestamp is {kind}, without a time zone; convert it to UTC first")
    rows = _ordered(
        closes.select(
            pl.col("symbol").cast(pl.String),
            pl.col("timestamp").dt.convert_time_zone("UTC").cast(TIMESTAMP),
            pl.col("session_date").cast(pl.Date),
            pl.col("close").cast(pl.Float64),
        )
    )
    again = rows.disorder
    if again >= 0:
        symbol, timestamp = rows.frame.select(KEY).row(again)
        extra = rows.frame.select(KEY).is_duplicated().sum()
        raise DataError(
            f"{symbol} has more than one close at {timestamp} ({extra} such rows); keep one a key"
        )
    return rows


def _previous_rows(previous: pl.DataFrame | None, new: _Rows, tail: int) -> _Rows:
    """The last ``tail`` previous rows of every symbol of ``new``, under the same symbols."""
    if previous is None:
        previous = pl.DataFrame(schema=FEATURE_SCHEMA)
    known = _ordered(
        previous.select(*KEY, "session_date", *STORED).filter(pl.col("symbol").is_in(new.symbols.implode()))
    )
    starts, keep = [0], [np.empty(0, np.int64)]
    spans = dict(zip(known.symbols, zip(known.starts[:-1], known.starts[1:], strict=True), strict=True))
    for symbol, first in zip(new.symbols, new.starts[:-1], strict=True):
        begin, end = spans.get(symbol, (0, 0))
        if end and known.time[end - 1] >= new.time[first]:
            raise DataError(
                f"previous features of {symbol} reach {known.frame['timestamp'][int(end) - 1]}, not before the "
                f"first close at {new.frame['timestamp'][int(first)]}; pass only earlier rows"
            )
        keep.append(np.arange(max(begin, end - tail), end))
        starts.append(starts[-1] + len(keep[-1]))
    return _Rows(known.frame[np.concatenate(keep)], new.symbols, np.array(starts, dtype=np.int64))


def _computed(
    new: _Rows, known: _Rows, windows: FeatureWindows, annual: float, intraday: bool, workers: int
) -> tuple[dict[str, Floats], Integers]:
    """The columns that `feature_kernels.feature_rows` makes, NaN = absent, and the numbers of returns."""
    from garch_platform.quant.feature_kernels import FEATURE_ROWS, feature_rows

    close = new.frame["close"].fill_null(np.nan).to_numpy()
    price = np.empty(len(close))
    results, counts = np.empty((len(FEATURE_ROWS), len(close))), np.empty(len(close), dtype=np.int64)
    stored = known.frame.select(pl.col(STORED).cast(pl.Float64).fill_null(np.nan)).to_numpy().T
    stored = np.vstack([stored[:1], np.exp(stored[:1]), stored[1:]])
    lengths = np.array([*(getattr(windows, field.name) for field in fields(windows)), windows.tail])
    sessions = new.session, known.session

    def run(block: slice) -> None:
        rows = slice(new.starts[block.start], new.starts[block.stop])
        with np.errstate(all="ignore"):
            np.log(close[rows], out=results[0, rows])
            np.exp(results[0, rows], out=price[rows])
        bounds = slice(block.start, block.stop + 1)
        feature_rows(
            price,
            sessions[0],
            new.starts[bounds],
            stored,
            sessions[1],
            known.starts[bounds],
            lengths,
            annual,
            intraday,
            results,
            counts,
        )

    in_threads(run, list(_blocks(new.starts, 4 * workers if workers > 1 else 1)), workers=workers)
    return dict(zip(FEATURE_ROWS, results, strict=True)), counts


def _blocks(starts: Integers, count: int) -> Iterator[slice]:
    """Consecutive symbols in about ``count`` blocks of about as many rows each."""
    marks = np.searchsorted(starts, np.linspace(0, starts[-1], count + 1))
    bounds = np.unique(marks)
    for begin, end in pairwise(bounds):
        yield slice(int(begin), int(end))
