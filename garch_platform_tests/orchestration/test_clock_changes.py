"""A half day, a change to winter time, and naive New York times, taken through the real jobs on 15-minute bars."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, time
from pathlib import Path

import polars as pl
import pytest

from garch_platform.orchestration.launch import Launcher
from garch_platform_tests.orchestration import last_session, small_market
from garch_platform_tests.orchestration.small_market import CALENDAR, assert_same

NEW_YORK = "America/New_York"
SUMMER, WINTER, HALF_DAY = date(2023, 11, 3), date(2023, 11, 6), date(2023, 11, 24)
SESSIONS = CALENDAR.sessions(date(2023, 10, 30), HALF_DAY)
SYMBOLS = ["AAA", "BBB", "CCC", "DDD"]
SETTINGS = small_market.settings_with(
    universe={"timeframe": "15Min", "sectors": {"active": ["all"], "available": ["technology"]}},
    trading_days={"start": HALF_DAY, "end": HALF_DAY},
    formation={"sessions": 14, "out_of_sample_sessions": 4},
    garch={"sessions": 14, "distributions": ["normal"]},
    files={"timezone": NEW_YORK},
)
SOUND = small_market.intraday_bars(SESSIONS, SYMBOLS)


def in_new_york(bars: pl.DataFrame) -> pl.DataFrame:
    """The same bars with the wall clock of New York and no zone."""
    return bars.with_columns(pl.col("timestamp").dt.convert_time_zone(NEW_YORK).dt.replace_time_zone(None))


def at(bar: pl.DataFrame, *moments: datetime) -> pl.DataFrame:
    """Copies of a bar at other times of the wall clock."""
    times = pl.DataFrame({"timestamp": moments}, schema_overrides={"timestamp": pl.Datetime("us")})
    return times.join(bar.drop("timestamp"), how="cross").select(bar.columns)


def spoiled() -> pl.DataFrame:
    """AAA goes on until 16:00 on the half day; BBB has bars in the hours that clocks repeat and skip."""
    naive = in_new_york(SOUND)
    bar = {symbol: naive.filter(symbol=symbol).head(1) for symbol in ("AAA", "BBB")}
    quarters = [time(hour, minute) for hour in (13, 14, 15) for minute in range(0, 60, 15)]
    after_close = [datetime.combine(HALF_DAY, moment) for moment in quarters]
    repeated = datetime.combine(date(2023, 11, 5), time(1, 30))
    skipped = datetime.combine(date(2023, 3, 12), time(2, 30))
    odd = at(bar["BBB"], repeated, skipped)
    return pl.concat([naive, at(bar["AAA"], *after_close), odd])


def build(folder: Path) -> None:
    sectors = dict.fromkeys(SYMBOLS, "technology")
    small_market.create(folder, spoiled(), settings=SETTINGS, symbols=sectors)
    opened = small_market.memory_launcher(folder)
    small_market.run(opened, opened.planner.history())
    assert [one.message for one in last_session.run_day(opened, HALF_DAY)] == ["", ""]
    last_session.close(opened)


@pytest.fixture(scope="module")
def market(once: last_session.Once, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    folder = tmp_path_factory.mktemp("clock") / "market"
    small_market.copy_workspace(once("clock changes", build), folder)
    opened = small_market.memory_launcher(folder)
    yield opened
    last_session.close(opened)


def test_every_sound_bar_is_stored_at_its_instant(market: Launcher) -> None:
    """Naive times are New York's: they were four hours behind UTC on Friday and are five behind on Monday."""
    key = ["symbol", "timestamp"]
    stored = small_market.lake_rows(market.workspace, "bars").select(*key, "close")
    wanted = (
        SOUND.with_columns(pl.col("timestamp").dt.convert_time_zone("UTC")).select(*key, "close").sort(key)
    )
    assert stored.equals(wanted)


@pytest.mark.parametrize(
    ("day", "first", "end", "count"),
    [
        (SUMMER, time(13, 30), time(20), 26),
        (WINTER, time(14, 30), time(21), 26),
        (HALF_DAY, time(14, 30), time(18), 14),
    ],
)
def test_session_has_its_own_hours(market: Launcher, day: date, first: time, end: time, count: int) -> None:
    bars = small_market.lake_rows(market.workspace, "bars").filter(session_date=day)
    for _, mine in bars.group_by("symbol"):
        assert mine["timestamp"].min() == datetime.combine(day, first, UTC)
        assert mine["available_at"].max() == datetime.combine(day, end, UTC)
        assert len(mine) == count
    assert bars["symbol"].n_unique() == len(SYMBOLS)


def test_bars_at_hours_that_clocks_repeat_and_skip_are_recorded(market: Launcher) -> None:
    """AAA's bars after the early close are extended hours, which no session has and no table keeps."""
    rows = market.workspace.database.content("rejections").sort("reason")
    assert rows.select("symbol", "reason", "detail", "partition_key").rows() == [
        ("BBB", "not_a_session", "the bar of 2023-11-05 05:30 UTC lies in no session", "history"),
        (
            "BBB",
            "null_timestamp",
            "timestamp is null: absent, unreadable or skipped by a clock change",
            "history",
        ),
    ]


def test_only_the_first_bar_of_a_session_has_no_return(market: Launcher) -> None:
    rows = small_market.lake_rows(market.workspace, "features")
    absent = rows.filter(pl.col("log_return").is_null())
    first = rows.group_by("symbol", "session_date").agg(pl.col("timestamp").min())
    assert absent.select("symbol", "timestamp").equals(
        first.select("symbol", "timestamp").sort("symbol", "timestamp")
    )
    assert len(absent) == len(SESSIONS) * len(SYMBOLS)


def test_estimates_of_the_half_day_exist_and_repeat_to_the_bit(market: Launcher) -> None:
    before = last_session.contents(market)
    fits = before["garch_models"]
    assert set(fits["status"]) == {"weak"}
    assert set(fits["n_observations"]) == {13 * 25 + 13}
    small_market.run(market, market.planner.history())
    daily, ranking = last_session.run_day(market, HALF_DAY)
    assert (daily.success, ranking.success) == (True, True)
    assert_same(last_session.contents(market), before)
    last_session.assert_nothing_doubled(before)
    (gaps,) = last_session.evaluations(market, daily.run_id, "gaps")
    assert gaps.passed, "the calendar expects 14 bars of a half day, not 26"
    assert gaps.metadata["missing_bars"].value == 0
