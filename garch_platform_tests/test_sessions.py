"""Sessions of the New York Stock Exchange against its published hours and holidays.

Hours and holidays: https://www.nyse.com/markets/hours-calendars.
"""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from garch_platform.bars import UTC_TIMESTAMP, Timeframe
from garch_platform.errors import CalendarError, ConfigurationError
from garch_platform.sessions import FIRST_DAY, LAST_DAY, TradingCalendar, trading_calendar

NYSE = trading_calendar("XNYS")
HALF_DAY = date(2023, 11, 24)
days = st.dates(date(1990, 1, 8), date(2035, 12, 20))


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def test_half_day_closes_at_one_o_clock_new_york() -> None:
    assert NYSE.bounds(HALF_DAY) == (utc("2023-11-24 14:30"), utc("2023-11-24 18:00"))


@pytest.mark.parametrize(
    ("day", "opens", "closes"),
    [
        ("2024-03-08", "2024-03-08 14:30", "2024-03-08 21:00"),
        ("2024-03-11", "2024-03-11 13:30", "2024-03-11 20:00"),
        ("2024-11-01", "2024-11-01 13:30", "2024-11-01 20:00"),
        ("2024-11-04", "2024-11-04 14:30", "2024-11-04 21:00"),
    ],
)
def test_hours_follow_new_york_through_clock_changes(day: str, opens: str, closes: str) -> None:
    assert NYSE.bounds(date.fromisoformat(day)) == (utc(opens), utc(closes))


def test_holidays_of_2024_are_the_published_ones() -> None:
    published = "01-01 01-15 02-19 03-29 05-27 06-19 07-04 09-02 11-28 12-25".split()
    found = NYSE.holidays(date(2024, 1, 1), date(2024, 12, 31))
    assert [f"{day:%m-%d}" for day in found] == published


@pytest.mark.parametrize(("year", "count"), [(2001, 248), (2012, 250), (2018, 251), (2023, 250), (2024, 252)])
def test_sessions_of_a_year(year: int, count: int) -> None:
    """Closures for mourning, terror and storms included (2001-09-11..14, 2012-10-29..30, 2018-12-05)."""
    assert len(NYSE.sessions(date(year, 1, 1), date(year, 12, 31))) == count


def test_reversed_range_is_refused() -> None:
    with pytest.raises(CalendarError, match="the range 2024-03-05 to 2024-03-04 is reversed"):
        NYSE.sessions(date(2024, 3, 5), date(2024, 3, 4))


def test_range_without_a_session_is_empty() -> None:
    assert NYSE.sessions(date(2024, 3, 9), date(2024, 3, 10)) == []


@pytest.mark.parametrize(
    ("day", "message"),
    [
        (date(2024, 3, 9), "2024-03-09 is a Saturday on XNYS.*are 2024-03-08 and 2024-03-11"),
        (date(2024, 3, 29), "2024-03-29 is an exchange holiday on XNYS.*are 2024-03-28 and 2024-04-01"),
        (date(2099, 1, 6), "2099-01-06 is outside the calendar XNYS"),
        (date(1970, 1, 6), "1970-01-06 is outside the calendar XNYS"),
        (FIRST_DAY, "XNYS has no session before 1990-01-01; its calendar covers 1990-01-02 to"),
    ],
)
def test_day_that_does_not_trade_is_named_with_its_neighbours(day: date, message: str) -> None:
    assert not NYSE.is_session(day)
    for ask in (NYSE.require_session, NYSE.bounds):
        with pytest.raises(CalendarError, match=message):
            ask(day)


def test_ends_of_the_calendar_are_errors_of_the_calendar() -> None:
    with pytest.raises(CalendarError, match="no session after 2035-12-31"):
        NYSE.next(LAST_DAY)
    with pytest.raises(CalendarError, match="no session up to 1989-12-29"):
        NYSE.window_start(date(1989, 12, 29), 5)
    with pytest.raises(CalendarError, match="no session closed by 1980"):
        NYSE.last_closed(utc("1980-01-02 22:00"))


def test_unknown_exchange_names_the_setting() -> None:
    with pytest.raises(CalendarError, match=r"'XXXX' \(setting universe.calendar\) is not known"):
        TradingCalendar("XXXX").is_session(date(2024, 3, 5))


def test_last_closed_turns_at_the_close() -> None:
    close = utc("2023-11-24 18:00")
    assert NYSE.last_closed(close) == HALF_DAY
    assert NYSE.last_closed(close - timedelta(microseconds=1)) == date(2023, 11, 22)
    assert NYSE.last_closed(utc("2023-11-26 12:00")) == HALF_DAY


def test_last_closed_reads_any_zone_but_no_naive_time() -> None:
    tokyo = timezone(timedelta(hours=9))
    assert NYSE.last_closed(datetime(2023, 11, 25, 3, 0, tzinfo=tokyo)) == HALF_DAY
    with pytest.raises(CalendarError, match="has no time zone"):
        NYSE.last_closed(datetime(2023, 11, 24, 18, 0))  # noqa: DTZ001


@pytest.mark.parametrize(
    ("timeframe", "per_year"),
    [("1Min", 252 * 390), ("5Min", 252 * 78), ("15Min", 252 * 26), ("1Hour", 252 * 7), ("1Day", 252)],
)
def test_bars_per_year_follow_the_timeframe(timeframe: str, per_year: float) -> None:
    assert NYSE.bars_per_year(Timeframe.parse(timeframe)) == per_year


def test_bars_per_year_follow_the_exchange() -> None:
    """London trades from 08:00 to 16:30."""
    assert trading_calendar("XLON").bars_per_year(Timeframe.parse("1Min")) == 252 * 510


@pytest.mark.parametrize(
    ("day", "timeframe", "bars", "last"),
    [
        ("2024-03-05", "1Min", 390, "20:59"),
        ("2024-03-05", "15Min", 26, "20:45"),
        ("2024-03-05", "1Hour", 7, "20:30"),
        ("2024-03-05", "1Day", 1, "14:30"),
        ("2023-11-24", "1Min", 210, "17:59"),
        ("2023-11-24", "30Min", 7, "17:30"),
        ("2023-11-24", "1Day", 1, "14:30"),
    ],
)
def test_expected_timestamps_of_a_session(day: str, timeframe: str, bars: int, last: str) -> None:
    stamps = NYSE.expected_timestamps(date.fromisoformat(day), Timeframe.parse(timeframe))
    assert stamps.dtype == UTC_TIMESTAMP
    assert (len(stamps), stamps[0], stamps[-1]) == (bars, utc(f"{day} 14:30"), utc(f"{day} {last}"))


def test_window_ends_with_its_last_session() -> None:
    start = NYSE.window_start(date(2024, 3, 5), 504)
    assert len(NYSE.sessions(start, date(2024, 3, 5))) == 504
    assert NYSE.window_start(date(1990, 1, 4), 504) == date(1990, 1, 2)
    assert NYSE.window_start(date(2024, 3, 10), 1) == date(2024, 3, 8)


def test_schedule_is_in_utc_and_in_order() -> None:
    schedule = NYSE.schedule
    assert schedule.schema == {"session_date": pl.Date, "open_at": UTC_TIMESTAMP, "close_at": UTC_TIMESTAMP}
    assert schedule["session_date"].is_sorted()
    assert schedule.filter(pl.col("open_at") >= pl.col("close_at")).is_empty()


@given(days)
def test_neighbours_enclose_a_day_without_a_gap(day: date) -> None:
    before, after = NYSE.previous(day), NYSE.next(day)
    assert before < day < after
    assert NYSE.sessions(before, after) == [before, *([day] if NYSE.is_session(day) else []), after]
    assert NYSE.next(before) == (day if NYSE.is_session(day) else after)


@given(days, st.integers(0, 40))
def test_weekdays_are_sessions_or_holidays(start: date, length: int) -> None:
    end = start + timedelta(days=length)
    weekdays = [day for day in (start + timedelta(days=n) for n in range(length + 1)) if day.weekday() < 5]
    assert sorted(NYSE.sessions(start, end) + NYSE.holidays(start, end)) == weekdays


def test_calendar_is_built_once() -> None:
    assert trading_calendar("XNYS") is NYSE
    assert str(NYSE.timezone) == "America/New_York"


def test_unknown_timeframe_lists_the_known_ones() -> None:
    with pytest.raises(ConfigurationError, match="timeframe '2Min' is not known; use one of 1Min, 5Min"):
        Timeframe.parse("2Min")


def test_daily_is_the_only_timeframe_of_whole_sessions() -> None:
    assert [name for name in ("1Min", "1Hour", "1Day") if Timeframe.parse(name).is_daily] == ["1Day"]
    assert [Timeframe.parse(name).minutes for name in ("1Min", "15Min", "1Hour")] == [1, 15, 60]
