"""Requests: which dates and symbols are refused and why, and that Dagster takes what is planned."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.partitions.context import partition_loading_context
from hypothesis import given
from hypothesis import strategies as st

from garch_platform.errors import CalendarError, SymbolError
from garch_platform.orchestration.code_location import CodeLocation
from garch_platform.orchestration.jobs import DAILY_JOB, HISTORY_JOB, RANKING_JOB
from garch_platform.orchestration.partitions import SYMBOLS_NAME, Partitions
from garch_platform.orchestration.planner import RANGE_END, RANGE_START, KeyRange, RequestPlanner
from garch_platform.settings import Settings, load_settings
from garch_platform.workspace import Workspace
from garch_platform.workspace.keys import KeySet, contiguous
from garch_platform_tests.orchestration.small_market import CALENDAR, DAYS, settings_with

KEYS = ["MSFT", "AAPL", "ZION", "AMZN", "META"]
LATE = datetime(2024, 7, 10, 12, tzinfo=UTC)


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(SYMBOLS_NAME, KEYS)
        yield instance


def settings_of(folder: Path, **changes: Any) -> Settings:
    """Settings of the small market whose window is open from 2024-03-22 on, with ``changes``."""
    window = {"start": DAYS[0], "end": None} | changes.pop("trading_days", {})
    return load_settings(folder, **settings_with(trading_days=window, **changes))


@pytest.fixture
def planner(tmp_path: Path, instance: dg.DagsterInstance) -> RequestPlanner:
    settings = settings_of(tmp_path)
    return RequestPlanner(settings, Partitions.of(settings), instance, LATE)


def at(planner: RequestPlanner, now: datetime) -> RequestPlanner:
    return RequestPlanner(planner.settings, planner.partitions, planner.instance, now)


@pytest.mark.parametrize(
    ("start", "end", "message"),
    [
        ("2024-03-28", "2024-03-22", "2024-03-28 to 2024-03-22 is reversed; give the earlier date first"),
        (
            "2024-03-23",
            "2024-03-23",
            "2024-03-23 is a Saturday on XNYS, not a session; .* 2024-03-22 and 2024",
        ),
        ("2024-03-22", "2024-03-24", "2024-03-24 is a Sunday"),
        (
            "2024-03-29",
            "2024-04-01",
            "2024-03-29 is an exchange holiday on XNYS, .* 2024-03-28 and 2024-04-01",
        ),
        ("2024-03-21", "2024-03-22", r"2024-03-21 is before trading_days.start 2024-03-22; .*--history"),
        ("2024-07-09", "2024-07-10", "2024-07-10 has not closed yet; the last closed session is 2024-07-09"),
        ("2026-01-05", "2026-01-05", "2026-01-05 has not closed yet"),
        ("2050-01-03", "2050-01-03", "2050-01-03 is outside the calendar XNYS"),
    ],
)
def test_range_that_cannot_run_is_refused(
    planner: RequestPlanner, start: str, end: str, message: str
) -> None:
    days = date.fromisoformat(start), date.fromisoformat(end)
    for ask in (planner.sessions, planner.daily, planner.ranking):
        with pytest.raises(CalendarError, match=message):
            ask(*days)


@pytest.mark.parametrize(
    ("now", "closed"),
    [
        ("2024-03-28T19:59:59+00:00", False),  # summer time in New York: the close is at 20:00 UTC
        ("2024-03-28T20:00:00+00:00", True),
        ("2024-03-28T16:00:00-04:00", True),
    ],
)
def test_session_can_run_from_its_close_on(planner: RequestPlanner, now: str, closed: bool) -> None:
    asked = at(planner, datetime.fromisoformat(now))
    if closed:
        assert asked.sessions(DAYS[0], DAYS[-1]) == DAYS
    else:
        with pytest.raises(CalendarError, match=r"2024-03-28 has not closed yet; .* 2024-03-27"):
            asked.sessions(DAYS[0], DAYS[-1])


def test_half_day_can_run_from_its_early_close_on(planner: RequestPlanner) -> None:
    """2024-07-03 closes at 13:00 New York, 17:00 UTC."""
    half_day = date(2024, 7, 3)
    with pytest.raises(CalendarError, match="2024-07-03 has not closed yet"):
        at(planner, datetime(2024, 7, 3, 16, 59, tzinfo=UTC)).sessions(half_day, half_day)
    assert at(planner, datetime(2024, 7, 3, 17, tzinfo=UTC)).sessions(half_day, half_day) == [half_day]


def test_moment_without_time_zone_is_refused(planner: RequestPlanner) -> None:
    with pytest.raises(CalendarError, match="has no time zone"):
        at(planner, datetime(2024, 4, 1)).sessions(DAYS[0], DAYS[0])  # noqa: DTZ001


def test_day_after_the_end_of_the_window_is_refused(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    settings = settings_of(tmp_path, trading_days={"end": DAYS[-1]})
    asked = RequestPlanner(settings, Partitions.of(settings), instance, LATE)
    with pytest.raises(CalendarError, match=r"2024-04-01 is after trading_days.end 2024-03-28"):
        asked.daily(DAYS[0], date(2024, 4, 1))
    assert asked.sessions(DAYS[0], DAYS[-1]) == DAYS


def test_unknown_symbols_are_named(planner: RequestPlanner) -> None:
    for ask in (planner.history, lambda names: planner.daily(DAYS[0], DAYS[0], names)):
        with pytest.raises(SymbolError, match=r"symbols MSTF, TSLA are not registered.*garch symbols add"):
            ask(["TSLA", "AAPL", "MSTF"])


def test_empty_list_of_symbols_is_refused_and_none_means_all(planner: RequestPlanner) -> None:
    with pytest.raises(SymbolError, match="the list of symbols is empty"):
        planner.daily(DAYS[0], DAYS[0], [])
    assert planner.daily(DAYS[0], DAYS[0])[0].names == tuple(KEYS)


def test_workspace_without_symbols_says_what_to_do(planner: RequestPlanner) -> None:
    with dg.DagsterInstance.ephemeral() as empty:
        asked = RequestPlanner(planner.settings, planner.partitions, empty, LATE)
        with pytest.raises(SymbolError, match="no symbol is registered; run `garch symbols add"):
            asked.history()


def test_sector_that_is_not_active_is_named(planner: RequestPlanner) -> None:
    with pytest.raises(SymbolError, match=r"sectors \['healthcare'\] are not active"):
        planner.ranking(DAYS[0], DAYS[0], ["healthcare"])
    (only,) = planner.ranking(DAYS[0], DAYS[0], ["all"])
    assert (only.first, only.last, only.names) == ("2024-03-22|all", "2024-03-22|all", ("all",))


def test_scattered_symbols_are_one_run_a_stretch_and_day(planner: RequestPlanner) -> None:
    runs = planner.daily(DAYS[0], DAYS[1], ["META", "AAPL", "MSFT", "META"])
    assert [(run.day, run.first, run.last, run.names) for run in runs] == [
        (day, f"{day}|{first}", f"{day}|{last}", names)
        for day in DAYS[:2]
        for first, last, names in (("MSFT", "AAPL", ("MSFT", "AAPL")), ("META", "META", ("META",)))
    ]
    assert [run.names for run in planner.history(["ZION", "MSFT"])] == [("MSFT",), ("ZION",)]


def test_weekend_and_holiday_inside_a_range_have_no_run(planner: RequestPlanner) -> None:
    days = [run.day for run in planner.daily(DAYS[0], date(2024, 4, 2))]
    assert days == [*DAYS, date(2024, 4, 1), date(2024, 4, 2)]


def test_keys_follow_insertion_order_after_delete_and_add(planner: RequestPlanner) -> None:
    planner.instance.delete_dynamic_partition(SYMBOLS_NAME, "AAPL")
    planner.instance.add_dynamic_partitions(SYMBOLS_NAME, ["AAPL"])
    assert planner.symbol_keys() == ["MSFT", "ZION", "AMZN", "META", "AAPL"]
    (whole,) = planner.history()
    assert (whole.first, whole.last) == ("MSFT", "AAPL")
    assert [run.names for run in planner.history(["MSFT", "AAPL"])] == [("MSFT",), ("AAPL",)]


def test_history_is_cut_into_batches(tmp_path: Path, instance: dg.DagsterInstance) -> None:
    settings = settings_of(tmp_path, storage={"history_batch": 2})
    runs = RequestPlanner(settings, Partitions.of(settings), instance, LATE).history()
    assert [run.names for run in runs] == [("MSFT", "AAPL"), ("ZION", "AMZN"), ("META",)]


def all_plans(planner: RequestPlanner) -> list[KeyRange]:
    some = ["META", "AAPL", "MSFT"]
    return [
        *planner.history(some),
        *planner.daily(DAYS[0], DAYS[1], some),
        *planner.ranking(DAYS[0], DAYS[1]),
        *planner.ranking(DAYS[0], DAYS[0], ["all"]),
    ]


def test_dagster_makes_of_the_tags_exactly_the_planned_keys(planner: RequestPlanner, tmp_path: Path) -> None:
    """Each run's range tags, resolved by Dagster itself, give the keys that were planned."""
    definitions = CodeLocation(Workspace(planner.settings)).definitions
    parts = planner.partitions
    grids: dict[str, Any] = {
        HISTORY_JOB: parts.symbols,
        DAILY_JOB: parts.symbol_days,
        RANKING_JOB: parts.sector_days,
    }
    plans = all_plans(planner)
    assert {plan.job for plan in plans} == set(grids)
    for plan in plans:
        assert plan.tags == {RANGE_START: plan.first, RANGE_END: plan.last}
        with partition_loading_context(dynamic_partitions_store=planner.instance):
            found = grids[plan.job].get_partition_keys_in_range(dg.PartitionKeyRange(plan.first, plan.last))
        assert sorted(found) == sorted(plan.keys)
        request = plan.run_request("key")
        assert (request.job_name, request.tags, request.run_key) == (plan.job, plan.tags, "key")
        assert definitions.resolve_job_def(plan.job).partitions_def == grids[plan.job]


@given(st.sets(st.integers(0, 40)))
def test_contiguous_runs_cover_the_numbers_and_nothing_else(numbers: set[int]) -> None:
    runs = contiguous(sorted(numbers))
    assert [n for first, last in runs for n in range(first, last + 1)] == sorted(numbers)
    assert all(later[0] - earlier[1] > 1 for earlier, later in pairwise(runs))


@given(st.sets(st.sampled_from(KEYS)))
def test_what_is_left_of_a_run_is_cut_into_its_stretches(done: set[str]) -> None:
    day = DAYS[0]
    whole = KeyRange(DAILY_JOB, f"{day}|{KEYS[0]}", f"{day}|{KEYS[-1]}", tuple(KEYS), day)
    left = whole.without({f"{day}|{name}" for name in done})
    assert [name for run in left for name in run.names] == [name for name in KEYS if name not in done]
    assert all((run.first, run.last) == (run.keys[0], run.keys[-1]) for run in left)
    assert sum(len(run.keys) for run in left) + len(done) == len(KEYS)


def test_stretches_of_dates_jump_over_weekends_and_holidays_only() -> None:
    keys = KeySet.of([f"{day}|A" for day in [*DAYS[:3], date(2024, 3, 28), date(2024, 4, 1)]])
    assert keys.stretches(CALENDAR) == [(DAYS[0], DAYS[2]), (DAYS[4], date(2024, 4, 1))]


def test_partition_days_are_the_sessions_of_the_window(planner: RequestPlanner) -> None:
    days = planner.partitions.days.get_partition_keys(current_time=datetime(2024, 4, 3, 3, tzinfo=UTC))
    assert days == [*map(str, DAYS), "2024-04-01", "2024-04-02"]  # still 2 April in New York
    at_noon = planner.partitions.days.get_partition_keys(current_time=datetime(2024, 4, 3, 16, tzinfo=UTC))
    assert at_noon[-1] == "2024-04-03"  # today has its key today


def test_closed_window_ends_with_its_last_session(tmp_path: Path) -> None:
    days = Partitions.of(settings_of(tmp_path, trading_days={"end": DAYS[-1]})).days
    assert days.get_partition_keys(current_time=LATE) == [str(day) for day in DAYS]


def test_keys_of_the_intended_size_stay_under_the_advised_limit(tmp_path: Path) -> None:
    """500 symbols x 200 sessions: exactly what `trading_days.max_keys` allows; one session more is too many."""
    calendar = CALENDAR.sessions(date(2023, 1, 3), date(2024, 3, 28))
    names = [f"S{number:03}" for number in range(500)]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions(SYMBOLS_NAME, names)
        for sessions, allowed in ((200, True), (201, False)):
            settings = settings_of(
                tmp_path, trading_days={"start": calendar[0], "end": calendar[sessions - 1]}
            )
            with partition_loading_context(dynamic_partitions_store=instance):
                count = Partitions.of(settings).symbol_days.get_num_partitions()
            assert count == 500 * sessions
            assert (count <= settings.trading_days.max_keys) is allowed
