"""Which live bars research may use: Alpaca's own of a real market, inside a session, and whole."""

from __future__ import annotations

from typing import Any

import polars as pl
from sqlalchemy import ColumnElement

from garch_platform.bars import Timeframe
from garch_platform.sessions import TradingCalendar
from garch_platform.store.schema import METADATA

__all__ = ["PROMOTED_FEEDS", "PROMOTED_SOURCES", "in_sessions", "live_timeframe", "promoted_rows"]

PROMOTED_SOURCES = ("alpaca",)
"""``data_source`` values of live bars that research may use: neither recycled nor proxied ones."""

PROMOTED_FEEDS = ("iex", "sip")
"""Their feeds: the bars of the test feed are invented."""

MARKET_DATA = METADATA.tables["market_data"].c


def live_timeframe(timeframe: Timeframe) -> Timeframe:
    """Length of the live bars from which bars of ``timeframe`` are made: a day's, else a minute's."""
    return timeframe if timeframe.is_daily else Timeframe.parse("1Min")


def promoted_rows(timeframe: Timeframe) -> list[ColumnElement[Any]]:
    """Conditions on ``market_data`` for live bars of which research may make bars of ``timeframe``."""
    return [
        MARKET_DATA.timeframe == live_timeframe(timeframe).name,
        MARKET_DATA.data_source.in_(PROMOTED_SOURCES),
        MARKET_DATA.feed.in_(PROMOTED_FEEDS),
        MARKET_DATA.is_proxy.is_(False),
    ]


def in_sessions(rows: pl.DataFrame, calendar: TradingCalendar, timeframe: Timeframe) -> pl.DataFrame:
    """The rows (with ``timestamp`` and ``received_at``) that lie in a session, with its bounds.

    A daily bar runs until the close: one that was received before is half a bar and left out.
    """
    local_day = pl.col("timestamp").dt.convert_time_zone(str(calendar.timezone)).dt.date()
    placed = rows.with_columns(session_date=local_day).join(calendar.schedule, on="session_date")
    inside = pl.col("timestamp").is_between("open_at", "close_at", closed="left")
    whole = pl.col("received_at") >= pl.col("close_at")
    return placed.filter(whole if timeframe.is_daily else inside)
