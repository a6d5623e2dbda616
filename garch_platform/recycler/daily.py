"""The running daily bar of every symbol, from the bars that were sent."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from garch_platform.recycler.tick import Bar

__all__ = ["NEW_YORK", "RunningDays", "day_start"]

NEW_YORK: Final = ZoneInfo("America/New_York")


def day_start(moment: datetime) -> datetime:
    """Midnight in New York of the day that ``moment`` belongs to, in UTC: the time of a daily bar."""
    return datetime.combine(moment.astimezone(NEW_YORK).date(), time(), NEW_YORK).astimezone(UTC)


class _Day:
    """Sums of one symbol's day."""

    __slots__ = ("close", "high", "low", "open", "trades", "value", "volume")

    def __init__(self, bar: Bar) -> None:
        self.open, self.high, self.low, self.close = bar.open, bar.high, bar.low, bar.close
        self.volume = bar.volume
        self.trades = bar.trade_count
        self.value = None if bar.vwap is None else bar.vwap * bar.volume

    def add(self, bar: Bar) -> None:
        if bar.high > self.high:
            self.high = bar.high
        if bar.low < self.low:
            self.low = bar.low
        self.close = bar.close
        self.volume += bar.volume
        self.trades = (
            None if self.trades is None or bar.trade_count is None else self.trades + bar.trade_count
        )
        self.value = None if self.value is None or bar.vwap is None else self.value + bar.vwap * bar.volume

    def bar(self, symbol: str) -> Bar:
        vwap = None if self.value is None or not self.volume else self.value / self.volume
        return Bar(symbol, self.open, self.high, self.low, self.close, self.volume, self.trades, vwap)


class RunningDays:
    """Daily bars as they stand after the bars added so far; a day is one of New York.

    It begins anew with the first bar of another day, and where time goes back: the next pass of a replay.
    """

    def __init__(self) -> None:
        self.start: datetime | None = None
        self._end = self._latest = datetime.min.replace(tzinfo=UTC)
        self._days: dict[str, _Day] = {}

    def add(self, timestamp: datetime, bars: Iterable[Bar]) -> None:
        """Take in the bars of one timestamp."""
        if not self._latest < timestamp < self._end:
            self.start = day_start(timestamp)
            self._end = day_start(self.start + timedelta(hours=36))
            self._days.clear()
        self._latest = timestamp
        days = self._days
        for bar in bars:
            day = days.get(bar.symbol)
            if day is None:
                days[bar.symbol] = _Day(bar)
            else:
                day.add(bar)

    def bar(self, symbol: str) -> Bar:
        """The day of ``symbol`` so far."""
        return self._days[symbol].bar(symbol)
