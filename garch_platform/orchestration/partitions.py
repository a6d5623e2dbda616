"""The two grids of the graph: symbol x trading day and sector x trading day.

Trading days come from the exchange calendar: weekends and holidays have no key. ``end_offset=1``
gives today its key today (Dagster would add it only when the day is over). Look-backs are never
partition mappings: a trailing mapping would make one day's backfill rebuild the whole window.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, time

import dagster as dg

from garch_platform.sessions import LAST_DAY, TradingCalendar
from garch_platform.settings import Settings

__all__ = ["DATE", "SECTOR", "SYMBOL", "SYMBOLS_NAME", "Partitions"]

SYMBOLS_NAME = "symbols"
DATE, SYMBOL, SECTOR = "date", "symbol", "sector"


@dataclass(frozen=True)
class Partitions:
    """All partitions definitions of one workspace."""

    calendar: TradingCalendar
    symbols: dg.DynamicPartitionsDefinition
    days: dg.TimeWindowPartitionsDefinition
    sectors: dg.StaticPartitionsDefinition
    symbol_days: dg.MultiPartitionsDefinition
    sector_days: dg.MultiPartitionsDefinition

    @classmethod
    def of(cls, settings: Settings) -> Partitions:
        """Build the definitions from ``trading_days`` and ``universe.sectors.active``."""
        window = settings.trading_days
        end = None if window.end is None else settings.calendar.next(window.end)
        holidays = settings.calendar.holidays(window.start, end or LAST_DAY)
        days = dg.TimeWindowPartitionsDefinition(
            start=window.start.isoformat(),
            end=None if end is None else end.isoformat(),
            cron_schedule="0 0 * * 1-5",
            fmt="%Y-%m-%d",
            timezone=str(settings.calendar.timezone),
            end_offset=1 if end is None else 0,
            exclusions=[datetime.combine(day, time()) for day in holidays],
        )
        symbols = dg.DynamicPartitionsDefinition(name=SYMBOLS_NAME)
        sectors = dg.StaticPartitionsDefinition(settings.universe.sectors.active)
        return cls(
            calendar=settings.calendar,
            symbols=symbols,
            days=days,
            sectors=sectors,
            symbol_days=dg.MultiPartitionsDefinition({DATE: days, SYMBOL: symbols}),
            sector_days=dg.MultiPartitionsDefinition({DATE: days, SECTOR: sectors}),
        )
