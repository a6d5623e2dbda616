"""Around a live session: when its bars are promoted, when the client is started, when vendors are asked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import dagster as dg
import polars as pl
import pytest
from dagster._core.storage.runs.schema import RunsTable

from garch_platform.orchestration.code_location import CodeLocation
from garch_platform.orchestration.jobs import DAILY_JOB, HOURLY_JOB, MAINTENANCE_JOB, STREAM_JOB, YAHOO_JOB
from garch_platform.orchestration.partitions import SYMBOLS_NAME
from garch_platform.orchestration.planner import RANGE_END, RANGE_START
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace
from garch_platform_tests.orchestration.small_market import CALENDAR, settings_with, write_inbox

NEW_YORK = ZoneInfo("America/New_York")
THURSDAY, HALF_DAY, HOLIDAY = date(2024, 3, 28), date(2024, 7, 3), date(2024, 7, 4)


def local(day: date, clock: str) -> datetime:
    return datetime.fromisoformat(f"{day}T{clock}").replace(tzinfo=NEW_YORK)


class Edge:
    """A workspace of one-minute bars with two symbols and an open window; the clock is the test's own."""

    def __init__(self, folder: Path, timeframe: str = "1Min", **websocket: Any) -> None:
        values = settings_with(
            trading_days={"start": "2024-01-02", "end": None},
            universe={"timeframe": timeframe},
            websocket={"mode": "alpaca", **websocket},
        )
        self.workspace = Workspace(load_settings(folder, **values))
        self.workspace.prepare()
        self.workspace.registry.write_new(pl.DataFrame({"symbol": ["AAA", "BBB"]}))
        inbox_bar = {"symbol": ["ZZZ"], "timestamp": [local(date(2024, 1, 3), "09:30")], "close": [49.0]}
        write_inbox(folder, pl.DataFrame(inbox_bar))
        self.workspace.sync_symbols(datetime(2024, 1, 2, tzinfo=UTC))
        self.now = local(THURSDAY, "12:00")
        self.definitions = CodeLocation(self.workspace, clock=lambda: self.now).definitions
        self.instance = dg.DagsterInstance.local_temp(str(folder))
        self.instance.add_dynamic_partitions(SYMBOLS_NAME, ["AAA", "BBB"])

    def tick(self, schedule: str, moment: datetime) -> Any:
        context = dg.build_schedule_context(instance=self.instance, scheduled_execution_time=moment)
        return self.definitions.resolve_schedule_def(schedule).evaluate_tick(context)

    def look(self, sensor: str, cursor: str | None = None) -> Any:
        context = dg.build_sensor_context(
            instance=self.instance, cursor=cursor, definitions=self.definitions, sensor_name=sensor
        )
        return self.definitions.resolve_sensor_def(sensor).evaluate_tick(context)

    def arrive(self, moment: datetime, **changes: Any) -> None:
        """One live bar, received a minute after its start."""
        row: dict[str, Any] = {
            "symbol": "AAA",
            "timestamp": moment,
            "timeframe": "1Min",
            **dict.fromkeys(("open", "high", "low", "close"), 50.0),
            "volume": 10.0,
            "feed": "iex",
            "data_source": "alpaca",
            "is_proxy": False,
            "received_at": moment + timedelta(minutes=1),
        }
        self.workspace.database.insert_missing("market_data", pl.DataFrame([row | changes]))

    def asked(self, day: date, at: datetime) -> None:
        """A daily run of ``day`` that was created ``at``."""
        run = dg.DagsterRun(job_name=DAILY_JOB, tags={RANGE_START: f"{day}|AAA", RANGE_END: f"{day}|BBB"})
        self.instance.run_storage.add_historical_run(run, at.astimezone(UTC))


@pytest.fixture
def edge(tmp_path: Path, sqlite_template: Path) -> Edge:
    shutil.copy(sqlite_template, tmp_path / "garch.db")
    return Edge(tmp_path)


class TestPromotion:
    def test_session_is_promoted_15_minutes_after_its_close(self, edge: Edge) -> None:
        edge.arrive(local(THURSDAY, "15:59"))
        seen = edge.tick("promotion_schedule", local(THURSDAY, "16:15"))
        (request,) = seen.run_requests
        assert request.job_name == DAILY_JOB
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == (f"{THURSDAY}|AAA", f"{THURSDAY}|BBB")

    @pytest.mark.parametrize(
        ("day", "clock", "runs", "reason"),
        [
            (HALF_DAY, "13:15", 1, None),
            (HALF_DAY, "16:15", 0, "2024-07-03 closes at 13:00"),
            (THURSDAY, "13:15", 0, "2024-03-28 closes at 16:00"),
            (HOLIDAY, "16:15", 0, "2024-07-04 is not a session of XNYS"),
        ],
    )
    def test_half_days_end_early(
        self, edge: Edge, day: date, clock: str, runs: int, reason: str | None
    ) -> None:
        if CALENDAR.is_session(day):
            edge.arrive(local(day, "10:00"))
        seen = edge.tick("promotion_schedule", local(day, clock))
        assert (len(seen.run_requests), seen.skip_message) == (runs, reason)

    @pytest.mark.parametrize(
        "changes",
        [{"data_source": "recycled"}, {"is_proxy": True}, {"timeframe": "1Day"}, {"feed": "test"}],
        ids=["recycled", "proxy", "other length", "test feed"],
    )
    def test_bars_that_research_may_not_use_promote_nothing(
        self, edge: Edge, changes: dict[str, Any]
    ) -> None:
        edge.arrive(local(THURSDAY, "15:59"), **changes)
        seen = edge.tick("promotion_schedule", local(THURSDAY, "16:15"))
        assert seen.skip_message == "market_data has no bars of Alpaca for 2024-03-28"
        assert edge.workspace.fetch(["AAA"], THURSDAY, THURSDAY).is_empty()

    @pytest.mark.parametrize(("received", "promoted"), [("12:00", False), ("15:59", False), ("16:00", True)])
    def test_half_a_daily_bar_is_no_bar(self, tmp_path: Path, received: str, promoted: bool) -> None:
        edge = Edge(tmp_path, timeframe="1Day")
        at = local(THURSDAY, received)
        edge.arrive(local(THURSDAY, "00:00"), timeframe="1Day", close=99.5, received_at=at)
        edge.now = local(THURSDAY, "16:30")
        assert bool(edge.tick("promotion_schedule", local(THURSDAY, "16:15")).run_requests) is promoted
        assert bool(edge.look("new_bars_sensor").run_requests) is promoted
        bars = edge.workspace.fetch(["AAA"], THURSDAY, THURSDAY)
        assert bars["close"].to_list() == ([99.5] if promoted else [])

    def test_live_minutes_become_bars_of_the_workspaces_length(self, tmp_path: Path) -> None:
        """Of the better feed, and none where the source has the bar."""
        edge = Edge(tmp_path, timeframe="5Min")
        held = {"symbol": ["AAA"], "timestamp": [local(THURSDAY, "09:35")], "close": [70.0]}
        write_inbox(tmp_path, pl.DataFrame(held))
        for minute, close, feed in (
            ("09:30", 1.0, "iex"),
            ("09:31", 2.0, "sip"),
            ("09:33", 4.0, "sip"),
            ("09:36", 5.0, "iex"),
            ("15:59", 6.0, "iex"),
        ):
            ends = {"open": close, "high": close, "low": close, "close": close}
            edge.arrive(local(THURSDAY, minute), feed=feed, **ends)
        edge.now = local(THURSDAY, "16:30")
        assert edge.tick("promotion_schedule", local(THURSDAY, "16:15")).run_requests
        workspace = edge.workspace
        found = workspace.check(workspace.fetch(["AAA"], THURSDAY, THURSDAY))
        bars = workspace.at_timeframe(found.accepted)
        columns = ("timestamp", "timeframe", "open", "close", "volume", "feed")
        assert bars.select(columns).rows() == [
            (local(THURSDAY, "09:30").astimezone(UTC), "5Min", 2.0, 4.0, 20.0, "sip"),
            (local(THURSDAY, "09:35").astimezone(UTC), "5Min", None, 70.0, None, "file"),
            (local(THURSDAY, "15:55").astimezone(UTC), "5Min", 6.0, 6.0, 10.0, "iex"),
        ]

    def test_promoted_bars_carry_the_splits_of_their_day(self, edge: Edge) -> None:
        edge.arrive(local(THURSDAY, "09:30"))
        edge.arrive(local(THURSDAY, "09:31"))
        split = {
            "symbol": "AAA",
            "ex_date": THURSDAY,
            "action": "split",
            "value": 4.0,
            "data_source": "alpaca",
        }
        edge.workspace.database.upsert("corporate_actions", pl.DataFrame([split]))
        bars = edge.workspace.fetch(["AAA"], THURSDAY, THURSDAY).sort("timestamp")
        assert bars["split_factor"].to_list() == [4.0, None]

    def test_promoted_bars_are_candidates_of_the_session(self, edge: Edge) -> None:
        edge.arrive(local(THURSDAY, "09:29"))
        edge.arrive(local(THURSDAY, "09:30"), close=51.5)
        edge.arrive(local(THURSDAY, "15:59"))
        edge.arrive(local(THURSDAY, "16:00"))
        bars = edge.workspace.fetch(["AAA"], THURSDAY, THURSDAY).sort("timestamp")
        assert bars["timestamp"].to_list() == [local(THURSDAY, "09:30"), local(THURSDAY, "15:59")]
        assert bars["close"].to_list() == [51.5, 50.0]
        assert set(bars["data_source"]) == {"alpaca"}


class TestSensorOfLiveBars:
    @pytest.mark.parametrize(("clock", "runs"), [("16:00", 0), ("16:19", 0), ("16:20", 1)])
    def test_waits_until_late_bars_are_in(self, edge: Edge, clock: str, runs: int) -> None:
        edge.arrive(local(THURSDAY, "15:59"))
        edge.now = local(THURSDAY, clock)
        first = edge.look("new_bars_sensor")
        assert len(first.run_requests) == runs
        edge.now = local(THURSDAY, "16:25")
        assert len(edge.look("new_bars_sensor", first.cursor).run_requests) == 1 - runs

    def test_session_that_was_promoted_is_not_run_again(self, edge: Edge) -> None:
        edge.arrive(local(THURSDAY, "15:59"))
        edge.asked(THURSDAY, local(THURSDAY, "16:15"))
        edge.now = local(THURSDAY, "16:21")
        assert edge.look("new_bars_sensor").run_requests == []

    def test_session_that_the_sensor_asked_for_is_not_promoted_again(self, edge: Edge) -> None:
        edge.arrive(local(THURSDAY, "15:59"))
        edge.asked(THURSDAY, local(THURSDAY, "16:16"))
        seen = edge.tick("promotion_schedule", local(THURSDAY, "16:15"))
        assert seen.skip_message == "new_bars_sensor has asked for 2024-03-28 already"

    def test_bar_that_came_after_the_promotion_runs_the_session_again(self, edge: Edge) -> None:
        edge.asked(THURSDAY, local(THURSDAY, "16:15"))
        edge.arrive(local(THURSDAY, "15:59"), received_at=local(THURSDAY, "17:00"))
        edge.now = local(THURSDAY, "17:01")
        assert len(edge.look("new_bars_sensor").run_requests) == 1

    @pytest.mark.parametrize("clock", ["09:29", "16:00"])
    def test_bars_outside_the_session_start_nothing(self, edge: Edge, clock: str) -> None:
        edge.arrive(local(THURSDAY, clock))
        edge.now = local(THURSDAY, "20:00")
        assert edge.look("new_bars_sensor").run_requests == []


class TestSupervisor:
    @pytest.mark.parametrize(
        ("clock", "starts"),
        [("09:24", False), ("09:25", True), ("12:00", True), ("16:04", True), ("16:05", False)],
    )
    def test_client_runs_from_before_the_open_until_after_the_close(
        self, edge: Edge, clock: str, starts: bool
    ) -> None:
        edge.now = local(THURSDAY, clock)
        seen = edge.look("stream_supervisor")
        assert bool(seen.run_requests) is starts
        assert starts or "lasts from 13:30 to 20:00 UTC" in seen.skip_message

    def test_holidays_have_no_client(self, edge: Edge) -> None:
        edge.now = local(HOLIDAY, "12:00")
        assert edge.look("stream_supervisor").skip_message == "2024-07-04 is not a session of XNYS"

    def test_the_recycler_is_not_supervised(self, tmp_path: Path) -> None:
        edge = Edge(tmp_path, mode="recycler")
        assert edge.look("stream_supervisor").skip_message.startswith("websocket.mode is recycler")

    @pytest.mark.parametrize("status", ["NOT_STARTED", "STARTED", "CANCELING"])
    def test_one_client_at_a_time(self, edge: Edge, status: str) -> None:
        run = dg.DagsterRun(job_name=STREAM_JOB, status=dg.DagsterRunStatus[status])
        edge.instance.run_storage.add_run(run)
        assert edge.look("stream_supervisor").skip_message == "the stream client is running"

    @pytest.mark.parametrize(
        ("earlier", "minutes"), [("", 1), ("F", 2), ("FFF", 8), ("FFFFFFFF", 30), ("FFFS", 1), ("SF", 2)]
    )
    def test_client_that_died_is_started_again_later_after_each_failure(
        self, edge: Edge, earlier: str, minutes: int
    ) -> None:
        known = {"F": dg.DagsterRunStatus.FAILURE, "S": dg.DagsterRunStatus.SUCCESS}
        for ended in f"{earlier}F":
            edge.instance.run_storage.add_run(dg.DagsterRun(job_name=STREAM_JOB, status=known[ended]))
        died = (edge.now - timedelta(minutes=minutes, seconds=-1)).astimezone(UTC)
        with edge.instance.run_storage.connect() as connection:  # type: ignore[attr-defined]
            connection.execute(RunsTable.update().values(update_timestamp=died.replace(tzinfo=None)))
        refusal = edge.look("stream_supervisor").skip_message
        assert refusal.endswith(f"less than {timedelta(minutes=minutes)} ago")
        edge.now += timedelta(seconds=2)
        assert len(edge.look("stream_supervisor").run_requests) == 1


class TestVendorsSchedules:
    @pytest.mark.parametrize(
        ("schedule", "clock", "job"),
        [("hourly_history_schedule", "19:00", HOURLY_JOB), ("yahoo_schedule", "08:00", YAHOO_JOB)],
    )
    def test_one_run_over_all_symbols(self, edge: Edge, schedule: str, clock: str, job: str) -> None:
        (request,) = edge.tick(schedule, local(THURSDAY, clock)).run_requests
        assert request.job_name == job
        assert (request.tags[RANGE_START], request.tags[RANGE_END]) == ("AAA", "BBB")

    def test_bars_of_the_workspaces_own_length_are_not_asked_for_beside_it(self, tmp_path: Path) -> None:
        for timeframe in ("1Hour", "1Day"):
            (tmp_path / timeframe).mkdir()
            edge = Edge(tmp_path / timeframe, timeframe=timeframe)
            seen = edge.tick("hourly_history_schedule", local(THURSDAY, "19:00"))
            job = edge.definitions.resolve_job_def(YAHOO_JOB)
            asked = {key.to_user_string() for key in job.asset_layer.executable_asset_keys}
            if timeframe == "1Hour":
                assert seen.skip_message.startswith("the workspace's own bars are hourly")
                assert asked == {"yahoo_bars", "company_info"}
            else:
                assert len(seen.run_requests) == 1
                assert asked == {"company_info"}

    def test_maintenance_on_sessions_only(self, edge: Edge) -> None:
        (request,) = edge.tick("symbol_maintenance_schedule", local(THURSDAY, "05:00")).run_requests
        assert request.run_key == f"maintenance:{THURSDAY}"
        schedule = edge.definitions.resolve_schedule_def("symbol_maintenance_schedule")
        assert schedule.job_name == MAINTENANCE_JOB
        assert edge.tick("symbol_maintenance_schedule", local(HOLIDAY, "05:00")).run_requests == []

    def test_workspace_without_symbols_is_skipped(self, edge: Edge) -> None:
        for symbol in ("AAA", "BBB"):
            edge.instance.delete_dynamic_partition(SYMBOLS_NAME, symbol)
        ask: Callable[..., Any] = edge.tick
        assert "no symbol is registered" in ask("yahoo_schedule", local(THURSDAY, "08:00")).skip_message
