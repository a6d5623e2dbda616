"""Which live bars research may use: Alpaca's own, inside a session, and whole."""

from __future__ import annotations

from typing import Any

import polars as pl
from sqlalchemy import ColumnElement

from garch_platform.bars import Timeframe
from garch_platform.sessions import TradingCalendar
from garch_platform.store.schema import METADATA

__all__ = ["PROMOTED_SOURCES", "in_sessions", "promoted_rows"]

PROMOTED_SOURCES = ("alpaca",)
"""``data_source`` values of live bars that research may use: neither recycled nor proxied ones."""

MARKET_DATA = METADATA.tables["market_data"].c


def promoted_rows(timeframe: Timeframe) -> list[ColumnElement[Any]]:
    """Conditions on ``market_data`` for bars of ``timeframe`` that research may use."""
    return [
        MARKET_DATA.timeframe == timeframe.name,
        MARKET_DATA.data_source.in_(PROMOTED_SOURCES),
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
