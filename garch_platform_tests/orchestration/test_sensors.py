"""Schedules and sensors: what they request, when they wait, and that they never request it twice."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import pytest
from dagster._utils.schedules import schedule_execution_time_iterator

from garch_platform.orchestration.code_location import CodeLocation
from garch_platform.orchestration.jobs import DAILY_JOB, HISTORY_JOB, RANKING_JOB
from garch_platform.orchestration.launch import Launcher
from garch_platform.orchestration.partitions import SYMBOLS_NAME
from garch_platform.orchestration.planner import RANGE_END, RANGE_START
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace
from garch_platform.workspace.revisions import stale_results
from garch_platform_tests.orchestration import small_market as market_of
from garch_platform_tests.orchestration.small_market import CALENDAR, DAYS, NOW, SYMBOLS, settings_with

NEW_YORK = ZoneInfo("America/New_York")


class Watched:
    """A workspace's sensors, evaluated as the daemon does, with a clock of the test's own."""

    def __init__(self, launcher: Launcher) -> None:
        self.launcher = launcher
        self.workspace = launcher.workspace
        self.instance = launcher.instance
        self.now = NOW
        self.definitions = CodeLocation(launcher.workspace, clock=lambda: self.now).definitions

    def look(self, sensor: str, cursor: str | None = None) -> Any:
        """One evaluation; key changes take effect as the daemon would make them."""
        context = dg.build_sensor_context(
            instance=self.instance, cursor=cursor, definitions=self.definitions, sensor_name=sensor
        )
        seen = self.definitions.resolve_sensor_def(sensor).evaluate_tick(context)
        for change in seen.dynamic_partitions_requests or []:
            if isinstance(change, dg.AddDynamicPartitionsRequest):
                self.instance.add_dynamic_partitions(change.partitions_def_name, list(change.partition_keys))
            else:
                for key in change.partition_keys:
                    self.instance.delete_dynamic_partition(change.partitions_def_name, key)
        return seen

    def run(self, request: Any) -> dg.ExecuteInProcessResult:
        """Execute what a sensor requested, with its tags."""
        job = self.definitions.resolve_job_def(request.job_name)
        done = job.execute_in_process(instance=self.instance, tags=request.tags)
        assert done.success
        return done

    def ranking_requests(self, done: dg.ExecuteInProcessResult) -> list[Any]:
        """What the ranking sensor requests when the run ``done`` has succeeded."""
        (event,) = [one for one in done.all_events if one.event_type is dg.DagsterEventType.RUN_SUCCESS]
        context = dg.build_run_status_sensor_context("ranking_sensor", event, self.instance, done.dagster_run)
        return list(self.definitions.resolve_sensor_def("ranking_sensor")(context))  # type: ignore[arg-type]


@pytest.fixture
def watched(forgetful: Launcher) -> Watched:
    return Watched(forgetful)


def ranges(requests: list[Any]) -> list[tuple[str, str]]:
    return [(one.tags[RANGE_START], one.tags[RANGE_END]) for one in requests]


def days_of(seen: Any) -> list[str]:
    """The requested sessions; each must be one range over all symbols of the daily job."""
    assert {one.job_name for one in seen.run_requests} <= {DAILY_JOB}
    assert all(
        (first[10:], last) == ("|AAA", f"{first[:10]}|FFF") for first, last in ranges(seen.run_requests)
    )
    return [first[:10] for first, _ in ranges(seen.run_requests)]


def live_bar(symbol: str, day: date, **changes: Any) -> dict[str, Any]:
    row = {
        "symbol": symbol,
        "timestamp": CALENDAR.bounds(day)[0],
        "timeframe": "1Day",
        "open": 50.0,
        "high": 51.0,
        "low": 49.0,
        "close": 50.5,
        "volume": 100.0,
        "feed": "iex",
        "data_source": "alpaca",
        "is_proxy": False,
    }
    return row | changes


def arrive(workspace: Workspace, *rows: dict[str, Any]) -> None:
    workspace.database.insert_missing("market_data", pl.DataFrame(list(rows)))


class TestNewSymbols:
    SENSOR = "new_symbols_sensor"

    @pytest.fixture
    def watched(self, market: Launcher) -> Watched:
        """With runs and events kept: the sensor asks which pasts are loaded."""
        return Watched(market)

    def test_skips_while_registry_and_keys_agree(self, watched: Watched) -> None:
        seen = watched.look(self.SENSOR)
        assert seen.run_requests == []
        assert seen.skip_message.startswith("the registry and the symbol keys agree")

    def test_new_symbols_are_keys_one_history_run_and_one_run_of_the_missed_sessions(
        self, watched: Watched
    ) -> None:
        bars = market_of.daily_bars(symbols=["GGG", "HHH"], seed=99)
        market_of.write_inbox(watched.workspace.settings.workspace, bars)
        for symbol in ("HHH", "GGG"):
            watched.workspace.registry.add(symbol, sector="healthcare")
        seen = watched.look(self.SENSOR)
        assert [one.job_name for one in seen.run_requests] == [HISTORY_JOB, DAILY_JOB]
        assert ranges(seen.run_requests) == [("HHH", "GGG"), (f"{DAYS[0]}|HHH", f"{DAYS[-1]}|GGG")]
        assert watched.instance.get_dynamic_partitions(SYMBOLS_NAME) == [*SYMBOLS, "HHH", "GGG"]

        again = watched.look(self.SENSOR, seen.cursor)
        assert (again.run_requests, again.dynamic_partitions_requests or []) == ([], [])

        for request in seen.run_requests:
            watched.run(request)
        coverage = watched.workspace.lake.coverage("features", "1Day")
        assert coverage.filter(pl.col("symbol").is_in(["GGG", "HHH"]))["rows"].to_list() == [420, 420]
        fits = watched.workspace.database.read_table("garch_models", symbol=["GGG", "HHH"])
        assert sorted(set(fits["fit_date"])) == DAYS
        assert watched.look(self.SENSOR, None).run_requests == []

    def test_removed_symbol_is_retired_without_a_run(self, watched: Watched) -> None:
        watched.workspace.registry.remove("CCC")
        seen = watched.look(self.SENSOR)
        assert seen.run_requests == []
        assert "CCC" not in watched.instance.get_dynamic_partitions(SYMBOLS_NAME)
        (row,) = watched.workspace.database.read_table("symbols", symbol="CCC").iter_rows(named=True)
        assert row["retired_at"] == NOW

    def test_a_symbol_that_comes_back_is_loaded_again_each_time(self, watched: Watched) -> None:
        """Sessions passed without it; each return has run keys of its own, or the daemon would skip it."""
        keys, cursor = [], None
        for _ in range(2):
            watched.workspace.registry.remove("CCC")
            cursor = watched.look(self.SENSOR, cursor).cursor
            watched.workspace.registry.add("CCC", sector="technology")
            seen = watched.look(self.SENSOR, cursor)
            cursor = seen.cursor
            keys += [request.run_key for request in seen.run_requests]
            assert ranges(seen.run_requests) == [("CCC", "CCC"), (f"{DAYS[0]}|CCC", f"{DAYS[-1]}|CCC")]
        assert len(set(keys)) == len(keys) == 4
        assert watched.instance.get_dynamic_partitions(SYMBOLS_NAME) == [*SYMBOLS[:2], *SYMBOLS[3:], "CCC"]


class TestNewBars:
    SENSOR = "new_bars_sensor"

    def seen_files(self, watched: Watched) -> str:
        """The cursor after the files that were there at the start."""
        return str(watched.look(self.SENSOR).cursor)

    def test_first_look_at_a_new_workspace_requests_the_past_and_every_session_once(
        self, tmp_path: Path
    ) -> None:
        folder = market_of.create(tmp_path / "new", market_of.daily_bars())
        watched = Watched(market_of.memory_launcher(folder))
        seen = watched.look(self.SENSOR)
        assert [one.job_name for one in seen.run_requests] == [HISTORY_JOB, *[DAILY_JOB] * 5]
        assert ranges(seen.run_requests) == [
            ("AAA", "FFF"),
            *((f"{day}|AAA", f"{day}|FFF") for day in DAYS),
        ]
        assert len({request.run_key for request in seen.run_requests}) == 6
        assert watched.look(self.SENSOR, seen.cursor).run_requests == []

    def test_files_whose_bars_are_stored_already_request_nothing(self, watched: Watched) -> None:
        assert watched.look(self.SENSOR).run_requests == []

    def test_rows_from_alpaca_request_their_session(self, watched: Watched) -> None:
        cursor = self.seen_files(watched)
        arrive(
            watched.workspace, live_bar("AAA", DAYS[3]), live_bar("BBB", DAYS[3]), live_bar("BBB", DAYS[1])
        )
        seen = watched.look(self.SENSOR, cursor)
        assert days_of(seen) == [str(DAYS[1]), str(DAYS[3])]
        assert watched.look(self.SENSOR, seen.cursor).run_requests == []

    @pytest.mark.parametrize(
        "changes",
        [
            {"data_source": "recycled"},
            {"is_proxy": True},
            {"data_source": "yahoo"},
            {"timestamp": datetime(2024, 3, 23, 14, tzinfo=UTC)},
            {"timestamp": datetime(2024, 3, 21, 14, tzinfo=UTC)},
        ],
        ids=["recycled", "proxy", "yahoo", "Saturday", "before the window"],
    )
    def test_other_rows_request_nothing(self, watched: Watched, changes: dict[str, Any]) -> None:
        cursor = self.seen_files(watched)
        arrive(watched.workspace, live_bar("AAA", DAYS[3], **changes))
        seen = watched.look(self.SENSOR, cursor)
        assert seen.run_requests == []
        assert seen.skip_message == "no new bars of a closed session"

    def test_recycled_rows_do_not_hide_a_real_one(self, watched: Watched) -> None:
        cursor = self.seen_files(watched)
        arrive(watched.workspace, live_bar("AAA", DAYS[0], data_source="recycled"))
        cursor = watched.look(self.SENSOR, cursor).cursor
        arrive(watched.workspace, live_bar("AAA", DAYS[0]), live_bar("AAA", DAYS[1], data_source="recycled"))
        assert days_of(watched.look(self.SENSOR, cursor)) == [str(DAYS[0])]

    def test_session_waits_in_the_cursor_until_it_has_closed(self, watched: Watched) -> None:
        """The close of 2024-03-28 is at 20:00 UTC, and late bars have 20 minutes; the rows came an hour earlier."""
        cursor = self.seen_files(watched)
        watched.now = datetime(2024, 3, 28, 19, tzinfo=UTC)
        arrive(watched.workspace, live_bar("AAA", DAYS[-1]), live_bar("AAA", DAYS[-2]))
        seen = watched.look(self.SENSOR, cursor)
        assert days_of(seen) == [str(DAYS[-2])]
        assert json.loads(seen.cursor)["waiting"] == [str(DAYS[-1])]
        watched.now = datetime(2024, 3, 28, 20, 19, 59, tzinfo=UTC)
        still = watched.look(self.SENSOR, seen.cursor)
        assert still.run_requests == []
        watched.now = datetime(2024, 3, 28, 20, 20, tzinfo=UTC)
        closed = watched.look(self.SENSOR, still.cursor)
        assert days_of(closed) == [str(DAYS[-1])]
        assert watched.look(self.SENSOR, closed.cursor).run_requests == []

    def test_new_and_changed_files_request_the_sessions_that_differ(self, watched: Watched) -> None:
        cursor = self.seen_files(watched)
        folder = watched.workspace.settings.workspace
        market_of.revise(folder, "AAA", DAYS[1], 1.01)
        extra = market_of.read_inbox(folder, "BBB").filter(pl.col("date") == DAYS[3])
        extra.with_columns(volume=pl.col("volume") + 1).write_parquet(folder / "inbox" / "late.parquet")
        seen = watched.look(self.SENSOR, cursor)
        assert days_of(seen) == [str(DAYS[1]), str(DAYS[3])]
        assert watched.look(self.SENSOR, seen.cursor).run_requests == []

    def test_revised_past_in_a_file_requests_the_history_of_its_symbol(self, watched: Watched) -> None:
        cursor = self.seen_files(watched)
        market_of.revise(watched.workspace.settings.workspace, "CCC", date(2024, 2, 23), 1.01)
        (request,) = watched.look(self.SENSOR, cursor).run_requests
        assert (request.job_name, ranges([request])) == (HISTORY_JOB, [("CCC", "CCC")])

    def test_files_of_other_kinds_and_of_unknown_symbols_request_nothing(self, watched: Watched) -> None:
        cursor = self.seen_files(watched)
        inbox = watched.workspace.settings.workspace / "inbox"
        (inbox / "README.txt").write_text("bars go here")
        (inbox / ".half.parquet").write_bytes(b"PAR1")
        market_of.daily_bars(symbols=["XXX", "YYY"]).write_parquet(inbox / "others.parquet")
        assert watched.look(self.SENSOR, cursor).run_requests == []

    def test_corrupt_file_is_reported_and_the_others_go_on(
        self, watched: Watched, caplog: pytest.LogCaptureFixture
    ) -> None:
        cursor = self.seen_files(watched)
        folder = watched.workspace.settings.workspace
        (folder / "inbox" / "broken.parquet").write_bytes(b"no parquet at all")
        market_of.revise(folder, "CCC", DAYS[2], 1.01)
        logger = dg.get_dagster_logger()
        logger.addHandler(caplog.handler)
        try:
            seen = watched.look(self.SENSOR, cursor)
        finally:
            logger.removeHandler(caplog.handler)
        assert days_of(seen) == [str(DAYS[2])]
        assert "broken.parquet is left out" in caplog.text
        assert watched.look(self.SENSOR, seen.cursor).run_requests == []
        market_of.daily_bars(DAYS[:1]).write_parquet(folder / "inbox" / "broken.parquet")
        assert days_of(watched.look(self.SENSOR, seen.cursor)) == [str(DAYS[0])]

    def test_the_same_rows_have_the_same_run_keys_in_a_new_process(
        self, watched: Watched, forgetful: Launcher
    ) -> None:
        """A daemon that dies before it has stored the cursor asks again: the run keys stop a second run."""
        cursor = self.seen_files(watched)
        arrive(watched.workspace, live_bar("AAA", DAYS[3]))
        first = watched.look(self.SENSOR, cursor)
        again = Watched(market_of.memory_launcher(forgetful.workspace.settings.workspace)).look(
            self.SENSOR, cursor
        )
        assert [one.run_key for one in first.run_requests] == [one.run_key for one in again.run_requests]
        assert first.cursor == again.cursor

    def test_missing_inbox_is_no_error(self, watched: Watched) -> None:
        cursor = self.seen_files(watched)
        inbox = watched.workspace.settings.workspace / "inbox"
        inbox.rename(inbox.with_name("gone"))
        assert watched.look(self.SENSOR, cursor).run_requests == []


class TestRevisions:
    SENSOR = "revision_sensor"

    def test_skips_without_a_revision(self, watched: Watched) -> None:
        assert watched.look(self.SENSOR).skip_message == "no revision since the last look"

    def test_requests_the_later_sessions_of_the_symbol_in_order_once(self, watched: Watched) -> None:
        folder = watched.workspace.settings.workspace
        market_of.revise(folder, "BBB", DAYS[2], 1.03)
        planner = watched.launcher.planner
        market_of.run(watched.launcher, planner.daily(DAYS[2], DAYS[2], ["BBB"]))
        seen = watched.look(self.SENSOR)
        assert ranges(seen.run_requests) == [(f"{day}|BBB", f"{day}|BBB") for day in DAYS[2:]]
        assert watched.look(self.SENSOR, seen.cursor).run_requests == []

        market_of.revise(folder, "BBB", DAYS[4], 1.03)
        market_of.run(watched.launcher, planner.daily(DAYS[4], DAYS[4], ["BBB"]))
        later = watched.look(self.SENSOR, seen.cursor)
        assert ranges(later.run_requests) == [(f"{DAYS[4]}|BBB", f"{DAYS[4]}|BBB")]
        keys = [one.run_key for one in [*seen.run_requests, *later.run_requests]]
        assert len(set(keys)) == len(keys)

    def test_neighbours_share_a_run_from_the_later_revision_on(self, watched: Watched) -> None:
        row = {"timeframe": "1Day", "old_hash": "a", "new_hash": "b", "asset": "raw_bars", "occurrence": 0}
        rows = [
            row | {"symbol": "CCC", "session_date": DAYS[3]},
            row | {"symbol": "DDD", "session_date": DAYS[2]},
        ]
        watched.workspace.database.insert_missing("revisions", pl.DataFrame(rows))
        assert ranges(watched.look(self.SENSOR).run_requests) == [
            (f"{DAYS[2]}|DDD", f"{DAYS[2]}|DDD"),
            (f"{DAYS[3]}|CCC", f"{DAYS[3]}|DDD"),
            (f"{DAYS[4]}|CCC", f"{DAYS[4]}|DDD"),
        ]

    def test_symbol_that_is_no_longer_followed_is_left_out(self, watched: Watched) -> None:
        row = {"timeframe": "1Day", "old_hash": "a", "new_hash": "b", "asset": "raw_bars", "occurrence": 0}
        rows = [row | {"symbol": symbol, "session_date": DAYS[4]} for symbol in ("CCC", "FFF")]
        watched.workspace.database.insert_missing("revisions", pl.DataFrame(rows))
        watched.workspace.registry.remove("FFF")
        watched.launcher.prepare()
        assert ranges(watched.look(self.SENSOR).run_requests) == [(f"{DAYS[4]}|CCC", f"{DAYS[4]}|CCC")]


class TestRanking:
    @pytest.mark.parametrize(
        ("tags", "days"),
        [
            ({RANGE_START: f"{DAYS[1]}|BBB", RANGE_END: f"{DAYS[1]}|CCC"}, [DAYS[1]]),
            ({RANGE_START: f"{DAYS[3]}|AAA", RANGE_END: f"{DAYS[4]}|AAA"}, [DAYS[3], DAYS[4]]),
            ({"dagster/partition": f"{DAYS[2]}|DDD"}, [DAYS[2]]),
        ],
        ids=["range of symbols", "range of days", "one key of the UI"],
    )
    def test_success_of_a_daily_run_requests_its_sessions(
        self, watched: Watched, tags: dict[str, str], days: list[date]
    ) -> None:
        done = _succeeded(watched, DAILY_JOB, tags)
        requests = watched.ranking_requests(done)
        assert [one.job_name for one in requests] == [RANKING_JOB] * len(days)
        assert ranges(requests) == [(f"{day}|technology", f"{day}|all") for day in days]
        assert all(done.run_id in one.run_key for one in requests)

    def test_run_without_a_session_is_skipped(self, watched: Watched) -> None:
        (skipped,) = watched.ranking_requests(_succeeded(watched, DAILY_JOB, {}))
        assert isinstance(skipped, dg.SkipReason)

    def test_sensor_watches_successes_of_the_daily_job_only(self, watched: Watched) -> None:
        sensor = watched.definitions.resolve_sensor_def("ranking_sensor")
        assert isinstance(sensor, dg.RunStatusSensorDefinition)
        assert [job.name for job in sensor._monitored_jobs] == [DAILY_JOB]  # type: ignore[union-attr, attr-defined]


class _Succeeded:
    """A finished run as the run-status sensor sees it."""

    def __init__(self, run: dg.DagsterRun, event: dg.DagsterEvent) -> None:
        self.run_id = run.run_id
        self.dagster_run = run
        self.all_events = [event]


def _succeeded(watched: Watched, job: str, tags: dict[str, str]) -> Any:
    run = watched.instance.create_run_for_job(watched.definitions.resolve_job_def(job), tags=tags)
    event = dg.DagsterEvent(event_type_value=dg.DagsterEventType.RUN_SUCCESS.value, job_name=job)
    return _Succeeded(run, event)


class TestSchedule:
    @pytest.fixture
    def tick(self, tmp_path: Path) -> Callable[[datetime], Any]:
        """Evaluates the schedule of a workspace whose window is open from 2024-01-02 on, two symbols."""
        settings = load_settings(tmp_path, **settings_with(trading_days={"start": "2024-01-02", "end": None}))
        workspace = Workspace(settings)
        workspace.prepare()
        definitions = CodeLocation(workspace).definitions

        def evaluate(moment: datetime, symbols: tuple[str, ...] = ("AAA", "BBB")) -> Any:
            instance = dg.DagsterInstance.local_temp(str(tmp_path))
            instance.add_dynamic_partitions(SYMBOLS_NAME, list(symbols))
            context = dg.build_schedule_context(instance=instance, scheduled_execution_time=moment)
            return definitions.resolve_schedule_def("daily_schedule").evaluate_tick(context)

        return evaluate

    @pytest.mark.parametrize(
        ("today", "session"),
        [
            ("2024-03-26", "2024-03-25"),
            ("2024-03-25", "2024-03-22"),  # a Monday runs Friday
            ("2024-04-01", "2024-03-28"),  # the Monday after Good Friday runs Thursday
            ("2024-07-05", "2024-07-03"),  # after Independence Day, the half day before it
            ("2024-03-11", "2024-03-08"),  # summer time began on Sunday
            ("2024-11-04", "2024-11-01"),  # and ended
        ],
    )
    def test_morning_of_a_session_requests_the_previous_one(
        self, tick: Callable[[datetime], Any], today: str, session: str
    ) -> None:
        seen = tick(datetime.fromisoformat(f"{today}T06:00").replace(tzinfo=NEW_YORK))
        (request,) = seen.run_requests
        assert ranges([request]) == [(f"{session}|AAA", f"{session}|BBB")]
        assert request.run_key == f"daily:{session}|AAA:{session}|BBB"

    @pytest.mark.parametrize("today", ["2024-03-29", "2024-07-04", "2024-12-25"])
    def test_holiday_is_skipped_with_its_reason(self, tick: Callable[[datetime], Any], today: str) -> None:
        seen = tick(datetime.fromisoformat(f"{today}T06:00").replace(tzinfo=NEW_YORK))
        assert (seen.run_requests, seen.skip_message) == ([], f"{today} is not a session of XNYS")

    def test_first_day_of_the_window_has_nothing_to_run(self, tick: Callable[[datetime], Any]) -> None:
        seen = tick(datetime(2024, 1, 2, 6, tzinfo=NEW_YORK))
        assert seen.run_requests == []
        assert "2023-12-29 is before trading_days.start 2024-01-02" in seen.skip_message

    def test_workspace_without_symbols_is_skipped(self, tick: Any) -> None:
        seen = tick(datetime(2024, 3, 26, 6, tzinfo=NEW_YORK), symbols=())
        assert "no symbol is registered" in seen.skip_message

    def test_ticks_are_at_six_in_new_york_on_weekdays_across_the_clock_change(
        self, forgetful: Launcher
    ) -> None:
        schedule = forgetful.location.definitions.resolve_schedule_def("daily_schedule")
        assert (schedule.cron_schedule, schedule.execution_timezone) == ("0 6 * * 1-5", "America/New_York")
        ticks = schedule_execution_time_iterator(
            datetime(2024, 3, 8, 10, tzinfo=UTC).timestamp(), "0 6 * * 1-5", "America/New_York"
        )
        assert [next(ticks).astimezone(UTC).isoformat() for _ in range(2)] == [
            "2024-03-08T11:00:00+00:00",
            "2024-03-11T10:00:00+00:00",
        ]


@pytest.mark.slow
def test_a_full_cycle_through_the_requests_themselves(watched: Watched) -> None:
    """A revised file arrives: bars, revision, later days and rankings follow from request to request."""
    folder = watched.workspace.settings.workspace
    cursor = watched.look("new_bars_sensor").cursor
    market_of.revise(folder, "AAA", DAYS[3], 1.02)
    (request,) = watched.look("new_bars_sensor", cursor).run_requests
    done = watched.run(request)
    assert set(stale_results(watched.workspace)["date"]) == {DAYS[3], DAYS[4]}
    for later in watched.look("revision_sensor").run_requests:
        watched.run(later)
    for ranking in watched.ranking_requests(done):
        watched.run(ranking)
    assert set(stale_results(watched.workspace).select("asset", "date").iter_rows()) == {
        ("pair_rankings", DAYS[4])
    }
    last = _succeeded(watched, DAILY_JOB, {"dagster/partition": f"{DAYS[4]}|AAA"})
    for ranking in watched.ranking_requests(last):
        watched.run(ranking)
    assert stale_results(watched.workspace).is_empty()
