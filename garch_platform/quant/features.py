"""Features of closes: returns, z-score, rolling moments, volatility, moving averages, RSI.

Every value at bar t uses closes up to and including t, so it is known when t's bar has closed; the
z-score compares t's return with moments of the returns before t. One full computation and any split
into consecutive appends give the same bits, because

- expanding sums are sequential and continue from the sums stored with the previous rows, and
- a rolling window is summed afresh, oldest first, and never carried along.

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

from dataclasses import dataclass, fields
from typing import Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.errors import ConfigurationError, DataError
from garch_platform.quant.returns import annualised_volatility, log_prices

__all__ = ["FEATURE_SCHEMA", "FeatureWindows", "compute_features"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

TIMESTAMP: Final = pl.Datetime("us", "UTC")
STATE: Final = ("return_count", "return_sum", "return_sum_squares")
KEY: Final = ("symbol", "timestamp")

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

    Returns:
        One row for each row of ``closes`` with the columns of `FEATURE_SCHEMA`, sorted by symbol and
        timestamp.

        ``z_score`` is (r_t - mean) / std over all returns before t (ddof 1); null with fewer than
        ``min_periods`` of them or where they do not vary. ``rolling_mean`` and ``rolling_std`` (ddof 1)
        span the last ``rolling_window`` returns including t. ``rsi`` is null where no price changed.

    Raises:
        DataError: a key occurs twice, a timestamp has no time zone, a column is missing, or ``previous``
            reaches into ``closes``.
    """
    new = _new_rows(closes)
    if new.is_empty():
        return pl.DataFrame(schema=FEATURE_SCHEMA)
    rows = new if previous is None or previous.is_empty() else _with_previous(new, previous, windows.tail)
    panel = _Panel(rows, windows.tail)
    log_return = panel.returns(intraday)
    state = panel.state(log_return)
    mean, std = panel.moments(log_return, windows.rolling_window)
    price = np.exp(panel.log_close)
    computed = {
        "log_return": log_return,
        "z_score": _z_score(log_return, state, panel.first, windows.min_periods),
        "rolling_mean": mean,
        "rolling_std": std,
        "volatility_annualized": annualised_volatility(std, bars_per_year=bars_per_year),
        "ma_short": panel.window_mean(price, windows.ma_short),
        "ma_long": panel.window_mean(price, windows.ma_long),
        "rsi": panel.rsi(price, windows.rsi_window),
    }
    return (
        rows.with_columns(
            *(pl.Series(name, values, nan_to_null=True) for name, values in computed.items()),
            *(pl.Series(name, values) for name, values in zip(STATE, state, strict=True)),
        )
        .filter(pl.col("is_new"))
        .select(pl.col(name).cast(dtype) for name, dtype in FEATURE_SCHEMA.items())
    )


def _new_rows(closes: pl.DataFrame) -> pl.DataFrame:
    missing = [name for name in (*KEY, "session_date", "close") if name not in closes.columns]
    if missing:
        raise DataError(f"closes have no column {', '.join(missing)}; they have {', '.join(closes.columns)}")
    kind = closes.schema["timestamp"]
    if not isinstance(kind, pl.Datetime) or kind.time_zone is None:
        raise DataError(f"closes.timestamp is {kind}, without a time zone; convert it to UTC first")
    rows = closes.select(
        pl.col("symbol").cast(pl.String),
        pl.col("timestamp").dt.convert_time_zone("UTC").cast(TIMESTAMP),
        "session_date",
        pl.col("close").cast(pl.Float64),
    ).sort(KEY)
    twice = rows.filter(pl.all_horizontal(pl.col(KEY) == pl.col(KEY).shift(1)))
    if not twice.is_empty():
        symbol, timestamp = twice.select(KEY).row(0)
        raise DataError(
            f"{symbol} has more than one close at {timestamp} ({twice.height} such rows); keep one a key"
        )
    log_close = log_prices(rows["close"].fill_null(np.nan).to_numpy())
    return rows.select(
        *KEY,
        "session_date",
        pl.Series("log_close", log_close, nan_to_null=True),
        pl.lit(True).alias("is_new"),
        pl.lit(None, pl.Float64).alias("log_return"),
        pl.lit(None, pl.Int64).alias("return_count"),
        pl.lit(None, pl.Float64).alias("return_sum"),
        pl.lit(None, pl.Float64).alias("return_sum_squares"),
    )


def _with_previous(new: pl.DataFrame, previous: pl.DataFrame, tail: int) -> pl.DataFrame:
    first_new = new.group_by("symbol").agg(pl.col("timestamp").min().alias("first_new"))
    known = previous.select(*(name for name in new.columns if name != "is_new")).join(first_new, on="symbol")
    late = known.filter(pl.col("timestamp") >= pl.col("first_new"))
    if not late.is_empty():
        symbol, timestamp, first = late.select(*KEY, "first_new").row(0)
        raise DataError(
            f"previous features of {symbol} reach {timestamp}, not before the first close at {first}; "
            "pass only earlier rows"
        )
    known = known.sort(KEY).group_by("symbol", maintain_order=True).tail(tail)
    return pl.concat(
        [known.with_columns(pl.lit(False).alias("is_new")).select(new.columns), new], how="vertical"
    ).sort(KEY)


class _Panel:
    """Rows of all symbols, sorted by symbol and timestamp, with the arithmetic of their windows.

    ``first`` (T,) is the row at which the row's symbol begins.
    """

    def __init__(self, rows: pl.DataFrame, tail: int) -> None:
        self.tail = tail
        self.log_close: Floats = rows["log_close"].fill_null(np.nan).to_numpy()
        self.session: Integers = rows["session_date"].to_physical().cast(pl.Int64).fill_null(-1).to_numpy()
        self.row: Integers = np.arange(rows.height, dtype=np.int64)
        runs = rows["symbol"].rle_id().to_numpy()
        self.starts: Integers = np.flatnonzero(np.diff(runs, prepend=-1)) if rows.height else self.row
        self.first: Integers = np.repeat(self.starts, np.diff(self.starts, append=rows.height))
        self.is_new: NDArray[np.bool_] = rows["is_new"].to_numpy()
        self.stored = rows.select("log_return", *STATE)

    def returns(self, intraday: bool) -> Floats:
        """(T,) log returns between consecutive present closes of a symbol."""
        at = np.flatnonzero(np.isfinite(self.log_close))
        before, here = at[:-1], at[1:]
        linked = (self.first[before] == self.first[here]) & (here - before <= self.tail)
        if intraday:
            linked &= self.session[before] == self.session[here]
        linked &= self.is_new[here]
        here, before = here[linked], before[linked]
        returns = self.stored["log_return"].fill_null(np.nan).to_numpy(writable=True)
        returns[here] = self.log_close[here] - self.log_close[before]
        return returns

    def state(self, log_return: Floats) -> tuple[Integers, Floats, Floats]:
        """(T,) count, sum and sum of squares of the symbol's returns up to and including each row."""
        present = np.isfinite(log_return)
        value = np.where(present, log_return, 0.0)
        count = present.astype(np.int64)
        total, squares = value.copy(), value * value
        stored = [self.stored[name].to_numpy() for name in STATE]
        stops = np.append(self.starts[1:], len(self.row))
        for start, stop in zip(self.starts, stops, strict=True):
            begin = start + int(np.searchsorted(self.is_new[start:stop], True))
            if begin > start:
                for sums, saved in zip((count, total, squares), stored, strict=True):
                    sums[start:begin] = saved[start:begin]
                begin -= 1
            for sums in (count, total, squares):
                np.cumsum(sums[begin:stop], out=sums[begin:stop])
        return count, total, squares

    def moments(self, values: Floats, length: int) -> tuple[Floats, Floats]:
        """(T,) mean and standard deviation (ddof 1) of the last ``length`` present values."""
        at, present = self._present(values)
        mean = _window_sums(present, length) / length
        squares = np.zeros(len(mean))
        for offset in range(length):
            deviation = present[offset : offset + len(mean)] - mean
            squares += deviation * deviation
        constant = _window_sums(np.diff(present) != 0.0, length - 1) == 0.0
        std = np.where(constant, 0.0, np.sqrt(squares / (length - 1)))
        return self._on_rows(at, mean, length), self._on_rows(at, std, length)

    def window_mean(self, values: Floats, length: int) -> Floats:
        """(T,) mean of the last ``length`` present values."""
        at, present = self._present(values)
        return self._on_rows(at, _window_sums(present, length) / length, length)

    def rsi(self, price: Floats, length: int) -> Floats:
        """(T,) 100 x gains / (gains + losses) over the last ``length`` price changes."""
        at, present = self._present(price)
        change = np.diff(present)
        gains = _window_sums(np.maximum(change, 0.0), length)
        losses = _window_sums(np.maximum(-change, 0.0), length)
        moves = gains + losses
        index = np.full(len(moves), np.nan)
        np.divide(100.0 * gains, moves, out=index, where=moves > 0.0)
        return self._on_rows(at, index, length + 1)

    @staticmethod
    def _present(values: Floats) -> tuple[Integers, Floats]:
        at = np.flatnonzero(np.isfinite(values))
        return at, values[at]

    def _on_rows(self, at: Integers, windowed: Floats, length: int) -> Floats:
        """Give each row with a close the latest window that ends at or before it and is recent enough.

        ``at`` are the rows of present values; ``windowed[k]`` spans values k .. k + length - 1.
        """
        result = np.full(len(self.row), np.nan)
        if not len(windowed):
            return result
        newest = np.searchsorted(at, self.row, side="right") - 1
        oldest = newest - (length - 1)
        begin = at[np.maximum(oldest, 0)]
        known = (
            (oldest >= 0)
            & (begin >= self.first)
            & (self.row - begin <= self.tail)
            & np.isfinite(self.log_close)
        )
        result[known] = windowed[oldest[known]]
        return result


def _window_sums(values: NDArray[np.float64] | NDArray[np.bool_], length: int) -> Floats:
    """Sum of each run of ``length`` values, added oldest first, element by element."""
    sums = np.zeros(max(0, len(values) - length + 1))
    for offset in range(length):
        sums += values[offset : offset + len(sums)]
    return sums


def _z_score(
    log_return: Floats, state: tuple[Integers, Floats, Floats], first: Integers, min_periods: int
) -> Floats:
    """(T,) return in standard deviations of the returns before it.

    The sums lose about ``count`` units in the last place; a variance below that is no variance.
    """
    begins = np.arange(len(first)) == first
    count, total, squares = (np.where(begins, 0, np.roll(sums, 1)).astype(np.float64) for sums in state)
    known = np.isfinite(log_return) & (count >= min_periods)
    n = np.where(known, count, 2.0)
    deviation = squares - total * total / n
    known &= deviation > 4.0 * np.finfo(np.float64).eps * n * squares
    variance = np.where(known, deviation, 1.0) / (n - 1.0)
    return np.where(known, (log_return - total / n) / np.sqrt(variance), np.nan)
