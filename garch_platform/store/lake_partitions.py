"""Where in the lake a row lies: its period, and the predicate that selects what a write owns."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import date

import polars as pl

from garch_platform.bars import Timeframe

__all__ = ["date_column", "earliest_period", "period_of", "predicate", "with_period"]


def date_column(columns: Iterable[str]) -> str:
    """The column that holds a row's session: ``session_date``, or ``feature_date`` where that is absent."""
    return "session_date" if "session_date" in set(columns) else "feature_date"


def period_of(day: date, timeframe: str) -> date:
    """The period of session ``day``: the session, or the first of its month for daily bars."""
    return day.replace(day=1) if Timeframe.parse(timeframe).is_daily else day


def earliest_period(start: date, timeframe: str | None) -> date:
    """The first period that can hold sessions from ``start`` on; None stands for all timeframes."""
    return start.replace(day=1) if timeframe is None else period_of(start, timeframe)


def with_period(frame: pl.DataFrame, timeframe: str) -> pl.DataFrame:
    """Add the partition column ``period`` (see `period_of`)."""
    day = pl.col(date_column(frame.columns))
    daily = Timeframe.parse(timeframe).is_daily
    return frame.with_columns((day.dt.truncate("1mo") if daily else day).alias("period"))


def predicate(day: str, timeframe: str, symbols: list[str], start: date | None, end: date | None) -> str:
    """SQL condition that selects these symbols and sessions; ``day`` names the column of the session."""
    parts = [f"timeframe = {_quoted(timeframe)}", f"symbol IN ({', '.join(map(_quoted, symbols))})"]
    if start is not None:
        parts += [f"period >= '{period_of(start, timeframe)}'", f"{day} >= '{start}'"]
    if end is not None:
        parts += [f"period <= '{period_of(end, timeframe)}'", f"{day} <= '{end}'"]
    return " AND ".join(parts)


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"
