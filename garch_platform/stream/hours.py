"""When the market trades: a silent hour of the night is no missing data."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from datetime import datetime
from functools import cached_property

from garch_platform.sessions import TradingCalendar
from garch_platform.stream.rows import microseconds

__all__ = ["MarketHours"]


class MarketHours:
    """Sessions of a calendar, asked in microseconds since 1970.

    Args:
        calendar: of the exchange.
        is_daily: whether the bars are daily, one at each session's open.
    """

    def __init__(self, calendar: TradingCalendar, *, is_daily: bool = False) -> None:
        self._calendar = calendar
        self._is_daily = is_daily

    @cached_property
    def _opens(self) -> list[int]:
        return self._calendar.schedule["open_at"].dt.timestamp("us").to_list()

    @cached_property
    def _closes(self) -> list[int]:
        return self._calendar.schedule["close_at"].dt.timestamp("us").to_list()

    def has_bars(self, start: int, end: int) -> bool:
        """Whether a bar can begin at start <= timestamp < end."""
        if self._is_daily:
            return bisect_left(self._opens, start) < bisect_left(self._opens, end)
        following = bisect_right(self._closes, start)
        return following < len(self._opens) and self._opens[following] < end

    def is_open(self, moment: datetime) -> bool:
        """Whether the regular session is on."""
        now = microseconds(moment)
        return self.has_bars(now, now + 1) if not self._is_daily else False

    def last_open(self, moment: datetime) -> int | None:
        """Open of the session that began last; null before the calendar's first."""
        number = bisect_right(self._opens, microseconds(moment))
        return self._opens[number - 1] if number else None
