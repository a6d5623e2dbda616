"""Exchange sessions: which days trade, when each opens and closes, how many bars a year holds.

A thin, cached face over ``exchange_calendars`` (https://github.com/gerrymanoim/exchange_calendars).
"""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta
from functools import cached_property, lru_cache
from typing import Any
from zoneinfo import ZoneInfo

import polars as pl

from garch_platform.bars import UTC_TIMESTAMP, Timeframe
from garch_platform.errors import CalendarError

__all__ = ["FIRST_DAY", "LAST_DAY", "TradingCalendar", "trading_calendar"]

FIRST_DAY = date(1990, 1, 1)
LAST_DAY = date(2035, 12, 31)


class TradingCalendar:
    """Sessions of one exchange between 1990 and 2035.

    Args:
        name: the exchange's ISO 10383 market identifier code, such as ``XNYS``.
    """

    def __init__(self, name: str = "XNYS") -> None:
        self.name = name

    @cached_property
    def _calendar(self) -> Any:
        import exchange_calendars

        try:
            return exchange_calendars.get_calendar(self.name, start=FIRST_DAY, end=LAST_DAY)
        except exchange_calendars.errors.InvalidCalendarName:
            raise CalendarError(
                f"exchange calendar {self.name!r} (setting universe.calendar) is not known; "
                "use an ISO 10383 code such as XNYS or XNAS"
            ) from None

    @cached_property
    def schedule(self) -> pl.DataFrame:
        """One row a session: ``session_date``, ``open_at`` and ``close_at`` (UTC), in order."""
        schedule = self._calendar.schedule
        return pl.DataFrame(
            {
                "session_date": list(schedule.index.date),
                "open_at": pl.Series(schedule["open"].dt.tz_convert("UTC").to_numpy("datetime64[us]")),
                "close_at": pl.Series(schedule["close"].dt.tz_convert("UTC").to_numpy("datetime64[us]")),
            }
        ).with_columns(pl.col("open_at", "close_at").dt.replace_time_zone("UTC").cast(UTC_TIMESTAMP))

    @cached_property
    def _bounds(self) -> dict[date, tuple[datetime, datetime]]:
        return {day: (start, end) for day, start, end in self.schedule.iter_rows()}

    @cached_property
    def _days(self) -> list[date]:
        return self.schedule["session_date"].to_list()

    @property
    def timezone(self) -> ZoneInfo:
        """The exchange's own time zone."""
        return ZoneInfo(str(self._calendar.tz))

    def is_session(self, day: date) -> bool:
        """Whether the exchange trades on ``day``."""
        return day in self._bounds

    def require_session(self, day: date) -> date:
        """Return ``day``, or raise `CalendarError` that says why it is none and which are nearest."""
        if self.is_session(day):
            return day
        if not FIRST_DAY <= day <= LAST_DAY:
            raise CalendarError(f"{day} is outside the calendar {self.name} ({FIRST_DAY} to {LAST_DAY})")
        why = f"a {day:%A}" if day.weekday() >= 5 else "an exchange holiday"
        raise CalendarError(
            f"{day} is {why} on {self.name}, not a session; "
            f"the sessions around it are {self.previous(day)} and {self.next(day)}"
        )

    def bounds(self, day: date) -> tuple[datetime, datetime]:
        """Open and close of the session ``day``, UTC (an early close on half days)."""
        return self._bounds[self.require_session(day)]

    def sessions(self, start: date, end: date) -> list[date]:
        """All sessions with ``start <= session <= end``; raise `CalendarError` if reversed."""
        if start > end:
            raise CalendarError(f"the range {start} to {end} is reversed; give the earlier date first")
        return self.schedule.filter(pl.col("session_date").is_between(start, end))["session_date"].to_list()

    def previous(self, day: date) -> date:
        """The last session strictly before ``day``; raise `CalendarError` if the calendar has none."""
        return self._one(self.schedule.filter(pl.col("session_date") < day), -1, f"before {day}")

    def next(self, day: date) -> date:
        """The first session strictly after ``day``; raise `CalendarError` if the calendar has none."""
        return self._one(self.schedule.filter(pl.col("session_date") > day), 0, f"after {day}")

    def window_start(self, end: date, sessions: int) -> date:
        """First session of the window of ``sessions`` sessions that ends with session ``end``."""
        window = self.schedule.filter(pl.col("session_date") <= end).tail(sessions)
        return self._one(window, 0, f"up to {end}")

    def last_closed(self, now: datetime) -> date:
        """The latest session whose close is not after ``now``; raise `CalendarError` if ``now`` is naive."""
        if now.tzinfo is None:
            raise CalendarError(f"the moment {now} has no time zone; give an aware datetime")
        closed = self.schedule.filter(pl.col("close_at") <= now.astimezone(UTC))
        return self._one(closed, -1, f"closed by {now}")

    def _one(self, schedule: pl.DataFrame, position: int, which: str) -> date:
        if schedule.is_empty():
            raise CalendarError(
                f"{self.name} has no session {which}; its calendar covers {self._days[0]} to {self._days[-1]}"
            )
        day: date = schedule["session_date"][position]
        return day

    def holidays(self, start: date, end: date) -> list[date]:
        """Weekdays between ``start`` and ``end`` on which the exchange is closed all day."""
        count = (end - start).days + 1
        days = (start + timedelta(days=offset) for offset in range(count))
        return [day for day in days if day.weekday() < 5 and not self.is_session(day)]

    def expected_timestamps(self, day: date, timeframe: Timeframe) -> pl.Series:
        """Start (UTC) of every bar that a complete session ``day`` holds.

        A daily bar starts at the session's open.
        """
        start, end = self.bounds(day)
        if timeframe.is_daily:
            return pl.Series("timestamp", [start], dtype=UTC_TIMESTAMP)
        return pl.datetime_range(
            start, end, timeframe.duration, closed="left", time_unit="us", time_zone="UTC", eager=True
        ).alias("timestamp")

    def bars_per_year(self, timeframe: Timeframe) -> float:
        """Bars in a trading year: 252 sessions times the bars of a full session.

        252 is the usual convention; a full session is the calendar's most frequent length (6.5 h on
        XNYS). A last bar that is cut short by the close counts as one: 7 hourly bars a session.
        """
        if timeframe.is_daily:
            return 252.0
        minutes = (self.schedule["close_at"] - self.schedule["open_at"]).dt.total_minutes().mode()[0]
        return 252.0 * math.ceil(minutes / timeframe.minutes)


@lru_cache(maxsize=4)
def trading_calendar(name: str = "XNYS") -> TradingCalendar:
    """The calendar called ``name``, built once a process."""
    return TradingCalendar(name)
