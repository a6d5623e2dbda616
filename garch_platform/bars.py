"""The bar contract: what one row of market data is, whatever its source.

Key: (symbol, timeframe, timestamp, feed). ``timestamp`` is the bar's start in UTC and
``available_at`` its end: nothing may use a bar before ``available_at``. ``session_date`` is the
exchange session that the bar belongs to. Fields that a source does not have are null, never 0.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import polars as pl

from garch_platform.errors import ConfigurationError, SymbolError

__all__ = ["BAR_KEY", "BAR_SCHEMA", "TIMEFRAMES", "UTC_TIMESTAMP", "Timeframe", "validate_symbol"]

UTC_TIMESTAMP: Final = pl.Datetime("us", "UTC")

BAR_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "symbol": pl.String,
    "timeframe": pl.String,
    "timestamp": UTC_TIMESTAMP,
    "available_at": UTC_TIMESTAMP,
    "session_date": pl.Date,
    "open": pl.Float64,
    "high": pl.Float64,
    "low": pl.Float64,
    "close": pl.Float64,
    "volume": pl.Float64,
    "vwap": pl.Float64,
    "trade_count": pl.Int64,
    "feed": pl.String,
    "data_source": pl.String,
    "is_proxy": pl.Boolean,
    "adjustment": pl.String,
    "split_factor": pl.Float64,
    "dividend": pl.Float64,
}
"""Columns of the lake's ``bars`` table.

``adjustment`` is ``raw``, ``split`` or ``all``. ``split_factor`` and ``dividend`` (currency per
share) take effect at that bar and stand beside raw prices; they are null where unknown.
"""

BAR_KEY: Final = ("symbol", "timeframe", "timestamp", "feed")

SYMBOL: Final = re.compile(r"\^?[A-Z][A-Z0-9.\-]{0,14}")


@dataclass(frozen=True)
class Timeframe:
    """The length of a bar, under the names that Alpaca uses (``1Min``, ``15Min``, ``1Day``)."""

    name: str
    duration: timedelta

    @property
    def is_daily(self) -> bool:
        """Whether one bar spans a whole session."""
        return self.duration >= timedelta(days=1)

    @property
    def minutes(self) -> int:
        """The bar's length in minutes (1440 for daily bars)."""
        return int(self.duration.total_seconds() // 60)

    @classmethod
    def parse(cls, name: str) -> Timeframe:
        """Return the timeframe called ``name``; raise `ConfigurationError` for any other."""
        try:
            return TIMEFRAMES[name]
        except KeyError:
            raise ConfigurationError(
                f"timeframe {name!r} is not known; use one of {', '.join(TIMEFRAMES)}"
            ) from None

    def __str__(self) -> str:
        return self.name


TIMEFRAMES: Final[dict[str, Timeframe]] = {
    **{f"{m}Min": Timeframe(f"{m}Min", timedelta(minutes=m)) for m in (1, 5, 10, 15, 30)},
    "1Hour": Timeframe("1Hour", timedelta(hours=1)),
    "1Day": Timeframe("1Day", timedelta(days=1)),
}


def validate_symbol(symbol: object) -> str:
    """Return ``symbol`` if it is well formed, such as ``AAPL``, ``BRK.B`` or ``^GSPC``; else `SymbolError`."""
    if not isinstance(symbol, str):
        raise SymbolError(f"symbol {symbol!r} is no text; put it in quotes in the registry")
    if SYMBOL.fullmatch(symbol):
        return symbol
    better = symbol.strip().upper()
    remedy = (
        f"write {better}"
        if SYMBOL.fullmatch(better)
        else "use a capital letter, then up to 14 of A-Z 0-9 . - (an index starts with ^)"
    )
    raise SymbolError(f"symbol {symbol!r} is malformed; {remedy}")
