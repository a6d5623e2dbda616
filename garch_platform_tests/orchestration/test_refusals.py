"""Dates and symbols that are none: what the launch refuses, and what Dagster would do with them."""

from __future__ import annotations

from datetime import UTC, datetime

import dagster as dg
import pytest

from garch_platform.errors import CalendarError, SymbolError
from garch_platform.orchestration.jobs import DAILY_JOB
from garch_platform.orchestration.launch import Launcher, failure
from garch_platform.orchestration.planner import RANGE_END, RANGE_START
from garch_platform_tests.orchestration import last_session, small_market
from garch_platform_tests.orchestration.last_session import EVE, LAST, NOW, SYMBOLS, Garch, Rows
from garch_platform_tests.orchestration.small_market import assert_same

REFUSED = {
    "saturday": (
        ["--date", "2024-03-30"],
        (
            "CalendarError: 2024-03-30 is a Saturday on XNYS, not a session; "
            "the sessions around it are 2024-03-28 and 2024-04-01"
        ),
    ),
    "holiday": (
        ["--date", "2024-03-29"],
        "CalendarError: 2024-03-29 is an exchange holiday on XNYS, not a session",
    ),
    "range that begins on a holiday": (
        ["--start", "2024-03-29", "--end", "2024-04-01"],
        "CalendarError: 2024-03-29 is an exchange holiday",
    ),
    "reversed": (
        ["--start", "2024-04-01", "--end", "2024-03-28"],
        "CalendarError: the range 2024-04-01 to 2024-03-28 is reversed; give the earlier date first",
    ),
    "future": (
        ["--start", "2024-03-28", "--end", "2035-03-28"],
        "CalendarError: 2035-03-28 is after trading_days.end 2024-04-01 of this workspace",
    ),
    "beyond the calendar": (
        ["--date", "2099-01-06"],
        "CalendarError: 2099-01-06 is outside the calendar XNYS (1990-01-01 to 2035-12-31)",
    ),
    "bulk past": (
        ["--date", "2024-03-27"],
        "CalendarError: 2024-03-27 is before trading_days.start 2024-03-28; earlier bars belong to the history job",
    ),
    "no date": (
        ["--date", "01.04.2024"],
        "CalendarError: '01.04.2024' is not a date; write it as YYYY-MM-DD",
    ),
    "unknown symbol": (
        ["--date", "2024-04-01", "--symbols", "AAA,ZZZ"],
        "SymbolError: symbols ZZZ are not registered in this workspace; run `garch symbols add SYMBOL`",
    ),
    "unknown symbol's past": (
        ["--history", "--symbols", "ZZZ"],
        "SymbolError: symbols ZZZ are not registered in this workspace",
    ),
    "no symbol": (
        ["--date", "2024-04-01", "--symbols", ","],
        "SymbolError: the list of symbols is empty; name at least one",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_materialize_refuses_and_starts_nothing(eve: Launcher, garch: Garch, case: str) -> None:
    arguments, message = REFUSED[case]
    runs = eve.instance.get_runs_count()
    assert garch(eve, "materialize", *arguments).startswith(f"error {message}")
    assert eve.instance.get_runs_count() == runs


def test_session_that_has_not_closed_is_refused(eve: Launcher) -> None:
    """New York closes at 20:00 UTC in summer; before that today's bars are not all there."""
    at_lunch = Launcher(eve.workspace, now=datetime(2024, 4, 1, 16, tzinfo=UTC))
    with pytest.raises(
        CalendarError, match="session 2024-04-01 has not closed yet; the last closed session is 2024-03-28"
    ):
        at_lunch.planner.daily(LAST, LAST)
    at_close = Launcher(eve.workspace, now=datetime(2024, 4, 1, 20, tzinfo=UTC))
    assert [run.day for run in at_close.planner.daily(LAST, LAST)] == [LAST]
    at_lunch.instance.dispose()
    at_close.instance.dispose()


def test_unknown_sector_is_refused(quick_eve: Launcher) -> None:
    with pytest.raises(SymbolError, match=r"sectors \['energy'\] are not active"):
        quick_eve.planner.ranking(EVE, LAST, ["energy"])


def execute(opened: Launcher, **arguments: object) -> dg.ExecuteInProcessResult:
    """Launch the daily job past the planner, as the UI or another program can."""
    job = opened.location.definitions.resolve_job_def(DAILY_JOB)
    return job.execute_in_process(instance=opened.instance, raise_on_error=False, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["2024-03-29|AAA", "2024-03-30|AAA", "2024-03-27|AAA", "2024-04-01|ZZZ"])
def test_dagster_knows_no_key_of_a_holiday_a_weekend_or_a_stranger(quick_eve: Launcher, key: str) -> None:
    before = quick_eve.instance.get_runs_count()
    with pytest.raises(dg.DagsterUnknownPartitionError, match=f"Could not find a partition with key .{key}"):
        execute(quick_eve, partition_key=key)
    assert quick_eve.instance.get_runs_count() == before


def materialised(result: dg.ExecuteInProcessResult) -> set[str]:
    events = result.get_asset_materialization_events()
    return {str(event.partition) for event in events if event.asset_key == dg.AssetKey("raw_bars")}


def test_dagster_takes_a_range_of_saturdays_for_the_next_session(
    quick_eve: Launcher, undisturbed: Rows
) -> None:
    """It runs Monday's keys without a word: no wrong row, but not what was asked for, so the launch refuses."""
    result = execute(quick_eve, tags={RANGE_START: "2024-03-30|AAA", RANGE_END: "2024-03-30|III"})
    assert result.success
    assert materialised(result) == {f"{LAST}|{symbol}" for symbol in SYMBOLS}
    rows = last_session.contents(quick_eve)
    assert_same(last_session.of_daily_job(rows), last_session.of_daily_job(undisturbed))


def test_reversed_range_given_to_dagster_fails_and_stores_nothing(quick_eve: Launcher) -> None:
    before = last_session.contents(quick_eve)
    result = execute(quick_eve, tags={RANGE_START: f"{LAST}|AAA", RANGE_END: f"{EVE}|III"})
    assert (
        failure(result)
        == "CalendarError: the run has no session: its range of partition keys is reversed or empty"
    )
    assert_same(last_session.contents(quick_eve), before)


def test_range_with_a_stranger_given_to_dagster_is_an_error(quick_eve: Launcher) -> None:
    with pytest.raises(dg.DagsterInvalidInvocationError, match="ZZZ"):
        execute(quick_eve, tags={RANGE_START: f"{LAST}|AAA", RANGE_END: f"{LAST}|ZZZ"})


@pytest.mark.parametrize("day", ["2034-01-06", "2099-01-06"])
def test_future_range_given_to_dagster_fails_and_stores_nothing(quick_eve: Launcher, day: str) -> None:
    """Where the window has no end Dagster accepts any day to come; the assets do not."""
    folder = last_session.folder_of(quick_eve)
    endless = small_market.memory_launcher(folder, now=NOW, trading_days={"start": EVE, "end": None})
    before = last_session.contents(endless)
    result = execute(endless, tags={RANGE_START: f"{day}|AAA", RANGE_END: f"{day}|III"})
    assert failure(result).startswith(f"CalendarError: the session {day} has not closed yet")
    assert_same(last_session.contents(endless), before)
    last_session.close(endless)
