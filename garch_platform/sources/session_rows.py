"""Which session a bar belongs to, and when it is available."""

from __future__ import annotations

from datetime import timedelta

import polars as pl

from garch_platform.bars import UTC_TIMESTAMP, Timeframe
from garch_platform.sessions import TradingCalendar

__all__ = ["assign_daily_sessions", "assign_intraday_sessions"]


def assign_daily_sessions(frame: pl.DataFrame, calendar: TradingCalendar) -> pl.DataFrame:
    """Give daily bars ``timestamp`` (the session's open), ``available_at`` (its close), ``session_date``.

    Args:
        frame: one row a bar with ``day`` (date, null where unreadable).
        calendar: sessions of the exchange.

    A row of a day without a session keeps a null ``session_date``; its timestamp is the day's midnight
    at the exchange. A null ``day`` gives a null timestamp.
    """
    midnight = (
        pl.col("day")
        .cast(pl.Datetime("us"))
        .dt.replace_time_zone(str(calendar.timezone), ambiguous="earliest", non_existent="null")
        .dt.convert_time_zone("UTC")
    )
    schedule = calendar.schedule.with_columns(pl.col("session_date").alias("day"))
    return (
        frame.join(schedule, on="day", how="left", maintain_order="left")
        .with_columns(
            pl.coalesce("open_at", midnight).cast(UTC_TIMESTAMP).alias("timestamp"),
            pl.coalesce("close_at", midnight + timedelta(days=1)).cast(UTC_TIMESTAMP).alias("available_at"),
        )
        .drop("open_at", "close_at")
    )


def assign_intraday_sessions(
    frame: pl.DataFrame, calendar: TradingCalendar, timeframe: Timeframe, *, regular_hours: bool
) -> pl.DataFrame:
    """Give bars shorter than a day ``session_date``, ``available_at`` and ``day``.

    A bar belongs to the session that its interval [timestamp, timestamp + duration) overlaps: an hourly
    bar of 09:00 belongs to a session that opens at 09:30, unless another bar of its symbol starts
    between the two, which shows that it ended before the open. ``available_at`` is its end or the
    session's close, whichever comes first.

    Args:
        frame: one row a bar with ``symbol`` and ``timestamp`` (UTC, null where unreadable); ``day``
            (date) may stand for the null ones.
        calendar: sessions of the exchange.
        timeframe: length of the bars.
        regular_hours: drop the bars of a trading day that lie outside its session; False keeps them,
            with a null ``session_date``. Bars of days without a session are always kept so.
    """
    local = pl.col("timestamp").dt.convert_time_zone(str(calendar.timezone)).dt.date()
    attributed = pl.coalesce(local, "day") if "day" in frame.columns else local
    frame = frame.with_row_index("_row").with_columns(attributed.alias("day"))
    schedule = calendar.schedule.sort("open_at")
    spans = (
        frame.select("_row", "timestamp", "symbol")
        .drop_nulls("timestamp")
        .with_columns((pl.col("timestamp") + timeframe.duration).alias("_end"))
        .with_columns((pl.col("_end") - timedelta(microseconds=1)).cast(UTC_TIMESTAMP).alias("_last"))
        .sort("_last")
        .join_asof(schedule, left_on="_last", right_on="open_at", strategy="backward")
    )
    inside = (pl.col("timestamp") < pl.col("close_at")) & ~_ended_early(spans)
    spans = spans.with_columns(
        pl.when(inside).then("session_date").alias("session_date"),
        pl.when(inside).then(pl.min_horizontal("_end", "close_at")).otherwise("_end").alias("available_at"),
    ).select("_row", "session_date", "available_at")
    placed = frame.join(spans, on="_row", how="left", maintain_order="left").drop("_row")
    if not regular_hours:
        return placed
    extended = (
        pl.col("session_date").is_null()
        & pl.col("timestamp").is_not_null()
        & pl.col("day").is_in(schedule["session_date"].implode())
    )
    return placed.filter(~extended)


def _ended_early(spans: pl.DataFrame) -> pl.Series:
    """Whether a bar that begins before the open is followed by another one up to the open."""
    straddles = spans.select((pl.col("timestamp") < pl.col("open_at")).fill_null(False)).to_series()
    if not straddles.any():
        return straddles
    order = (
        spans.select("_row", "symbol", "timestamp")
        .unique(["symbol", "timestamp"])
        .sort("symbol", "timestamp")
    )
    following = order.with_columns(pl.col("timestamp").shift(-1).over("symbol").alias("_next")).drop("_row")
    found = spans.join(
        following, on=["symbol", "timestamp"], how="left", nulls_equal=True, maintain_order="left"
    )
    return straddles & found.select((pl.col("_next") <= pl.col("open_at")).fill_null(False)).to_series()
