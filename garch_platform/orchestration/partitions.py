"""The two grids of the graph, symbol x trading day and sector x trading day, and sets of their keys.

Trading days come from the exchange calendar: weekends and holidays have no key. ``end_offset=1``
gives today its key today (Dagster would add it only when the day is over). Look-backs are never
partition mappings: a trailing mapping would make one day's backfill rebuild the whole window.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time

import dagster as dg

from garch_platform.errors import CalendarError
from garch_platform.sessions import LAST_DAY, TradingCalendar
from garch_platform.settings import Settings

__all__ = ["DATE", "SECTOR", "SYMBOL", "SYMBOLS_NAME", "KeySet", "Partitions", "contiguous"]

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


@dataclass(frozen=True)
class KeySet:
    """The partition keys of one run: every combination of ``names`` (symbols or sectors) and ``dates``.

    ``dates`` is empty for assets that are partitioned by symbol alone.
    """

    names: tuple[str, ...]
    dates: tuple[date, ...] = ()

    @classmethod
    def of(cls, keys: Iterable[str]) -> KeySet:
        """Split ``DATE|NAME`` or ``NAME`` keys into sorted names and dates."""
        parts = [key.rpartition("|") for key in keys]
        return cls(
            names=tuple(sorted({name for _, _, name in parts})),
            dates=tuple(sorted({date.fromisoformat(day) for day, _, _ in parts if day})),
        )

    @property
    def start(self) -> date:
        """The earliest date; `CalendarError` for the empty set, which a reversed range of keys gives."""
        if not self.dates:
            raise CalendarError("the run has no session: its range of partition keys is reversed or empty")
        return self.dates[0]

    @property
    def end(self) -> date:
        """The latest date."""
        return self.dates[-1]

    def key(self, name: str, day: date | None = None) -> str:
        """The Dagster key of ``name`` (on ``day``)."""
        return name if day is None else f"{day}|{name}"

    def stretches(self, calendar: TradingCalendar) -> list[tuple[date, date]]:
        """The dates as runs of consecutive sessions, each given by its first and last."""
        position = {day: number for number, day in enumerate(calendar.sessions(self.start, self.end))}
        runs = contiguous([position[day] for day in self.dates])
        days = list(position)
        return [(days[first], days[last]) for first, last in runs]


def contiguous(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Split ascending integers into runs without holes, each as (first, last).

    >>> contiguous([1, 2, 3, 7, 9, 10])
    [(1, 3), (7, 7), (9, 10)]
    """
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
