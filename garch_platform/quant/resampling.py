"""Longer bars from shorter ones, and the panel of log closes that models are estimated on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from garch_platform.errors import DataError

__all__ = ["bucket_start", "close_panel", "resample_closes"]

NAMES: Final = {60: "1Hour", 1440: "1Day"}


def bucket_start(minutes: int) -> pl.Expr:
    """Start of the bar of ``minutes`` minutes that holds ``timestamp``, counted from ``open_at``.

    A bar that begins before the open belongs to the first of its session.
    """
    offset = (pl.col("timestamp") - pl.col("open_at")).dt.total_microseconds() // (minutes * 60_000_000)
    return (pl.col("open_at") + offset.clip(lower_bound=0) * pl.duration(minutes=minutes)).cast(
        pl.Datetime("us", "UTC")
    )


def resample_closes(bars: pl.DataFrame, *, minutes: int, session_open: pl.DataFrame) -> pl.DataFrame:
    """Build bars of ``minutes`` minutes, aligned to the open of each session.

    Bars never cross a session; the last one of a session is shorter where its length does not divide
    the session. ``open`` is the first, ``high`` the highest, ``low`` the lowest and ``close`` the last
    price present; ``volume`` and ``trade_count`` are sums; ``vwap`` is weighted by volume, and null
    unless every bar with volume has one; ``split_factor`` is the product and ``dividend`` the sum.
    What no contained bar has stays null, and a stretch without bars makes no bar. Every bar counts
    from its own start, so one that begins before the open belongs to the first bar of its session.

    A bar is available when its stretch is over, since until then a further trade could come: at the
    end of the stretch or at ``close_at``, and never before its last contained bar. Without ``close_at``
    the last contained bar alone decides.

    Args:
        bars: accepted bars (`check_bars`) of one timeframe, none longer than ``minutes``.
        minutes: length of the new bars.
        session_open: ``session_date``, ``open_at`` and, better, ``close_at`` (UTC) of every session.

    Returns:
        Rows with the columns of ``bars``, ordered by symbol and timestamp; ``timeframe`` is ``15Min``,
        ``1Hour`` or ``1Day`` after ``minutes``.

    Raises:
        DataError: ``minutes`` is not positive, or a session of ``bars`` is not in ``session_open``.
    """
    if minutes < 1:
        raise DataError(f"minutes={minutes} is not a bar length; use 1 or more")
    length = pl.duration(minutes=minutes)
    bounds = session_open.select("session_date", *_present(session_open, ("open_at", "close_at")))
    placed = bars.join(bounds, on="session_date", how="left")
    _require_sessions(placed)
    start = bucket_start(minutes)
    keys = ["symbol", "feed", "session_date", "_start"]
    grouped = (
        placed.with_columns(start.alias("_start"))
        .sort("symbol", "feed", "timestamp")
        .group_by(keys, maintain_order=True)
        .agg(_aggregates(bars.columns, "close_at" in bounds.columns))
    )
    over = pl.col("_start") + length
    if "close_at" in bounds.columns:
        ends = pl.max_horizontal("available_at", pl.min_horizontal(over, "_close_at"))
    else:
        ends = pl.col("available_at")
    return (
        grouped.with_columns(
            ends.alias("available_at"),
            pl.col("_start").alias("timestamp"),
            pl.lit(NAMES.get(minutes, f"{minutes}Min")).alias("timeframe"),
        )
        .select(bars.columns)
        .cast({name: bars.schema[name] for name in bars.columns})
        .sort("symbol", "timestamp", "feed")
    )


def _present(frame: pl.DataFrame, names: Sequence[str]) -> list[str]:
    return [name for name in names if name in frame.columns]


def _require_sessions(placed: pl.DataFrame) -> None:
    lost = placed.filter(pl.col("open_at").is_null())
    if not lost.is_empty():
        row = lost.row(0, named=True)
        raise DataError(
            f"{lost.height} bar(s) belong to no session of session_open, first {row['symbol']} at "
            f"{row['timestamp']} (session_date {row['session_date']}); check the bars before resampling"
        )


def _sum(column: str) -> pl.Expr:
    """The sum of the values present, null where there is none."""
    return pl.when(pl.col(column).count() > 0).then(pl.col(column).sum())


def _aggregates(columns: Sequence[str], has_close: bool) -> list[pl.Expr]:
    traded = pl.col("volume") > 0
    known = traded & pl.col("vwap").is_not_null()
    every = (traded & pl.col("vwap").is_null()).fill_null(True).sum() == 0
    value = (pl.col("vwap") * pl.col("volume")).filter(known).sum()
    vwap = pl.when(every & (known.sum() > 0)).then(value / pl.col("volume").filter(known).sum())
    rules = {
        "available_at": pl.col("available_at").max(),
        "open": pl.col("open").drop_nulls().first(),
        "high": pl.col("high").max(),
        "low": pl.col("low").min(),
        "close": pl.col("close").drop_nulls().last(),
        "volume": _sum("volume"),
        "vwap": vwap.alias("vwap"),
        "trade_count": _sum("trade_count"),
        "data_source": pl.col("data_source").first(),
        "is_proxy": pl.col("is_proxy").any(),
        "adjustment": pl.col("adjustment").first(),
        "split_factor": pl.when(pl.col("split_factor").count() > 0).then(pl.col("split_factor").product()),
        "dividend": _sum("dividend"),
    }
    extra = [pl.col("close_at").first().alias("_close_at")] if has_close else []
    return [rule.alias(name) for name, rule in rules.items() if name in columns] + extra


def close_panel(bars: pl.DataFrame, symbols: Sequence[str]) -> pl.DataFrame:
    """Lay the log closes of ``symbols`` side by side.

    Args:
        bars: rows with ``symbol``, ``timestamp`` and ``close``, one a symbol and timestamp.
        symbols: the columns wanted, in their order.

    Returns:
        ``timestamp`` (every one at which any of the symbols has a bar, ascending) and a float column a
        symbol, null where it has no bar or no positive, finite close; a symbol without bars is all null.

    Raises:
        DataError: a symbol is named twice, or has two bars at one timestamp.
    """
    if len(set(symbols)) != len(symbols):
        twice = sorted({symbol for symbol in symbols if list(symbols).count(symbol) > 1})
        raise DataError(f"symbol(s) {', '.join(twice)} are named twice; name each column once")
    sound = pl.col("close").is_finite() & (pl.col("close") > 0)
    closes = bars.filter(pl.col("symbol").is_in(list(symbols))).select(
        "timestamp", "symbol", pl.when(sound).then(pl.col("close").log()).alias("close")
    )
    doubled = closes.filter(pl.struct("timestamp", "symbol").is_duplicated())
    if not doubled.is_empty():
        stamp, symbol, _ = doubled.row(0)
        raise DataError(
            f"{symbol} has more than one bar at {stamp}; choose one feed and timeframe, "
            "and check the bars for duplicates"
        )
    wide = closes.pivot("symbol", index="timestamp", values="close").sort("timestamp")
    missing = [pl.lit(None, dtype=pl.Float64).alias(name) for name in symbols if name not in wide.columns]
    return wide.with_columns(missing).select("timestamp", *symbols)
