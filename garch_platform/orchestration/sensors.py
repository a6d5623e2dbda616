"""Sensors: new symbols, new bars, revised bars, and the ranking that follows a day's success.

Each keeps its place in a cursor and gives each request a run key made of what it saw, so that the
same rows or files never start a run twice.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from sqlalchemy import select

from garch_platform.errors import GarchPlatformError, SourceError
from garch_platform.orchestration.jobs import DAILY_JOB, HISTORY_JOB, RANKING_JOB
from garch_platform.orchestration.partitions import KeySet, Partitions
from garch_platform.orchestration.planner import RANGE_END, RANGE_START, RequestPlanner
from garch_platform.orchestration.revisions import stale_dates
from garch_platform.orchestration.workspace import PROMOTED_SOURCES, Workspace
from garch_platform.sessions import LAST_DAY
from garch_platform.sources.bar_file import bar_paths
from garch_platform.store.schema import METADATA

__all__ = ["build_sensors", "changed_files", "new_bar_sessions"]

INTERVAL_SECONDS = 30
MARKET_DATA = METADATA.tables["market_data"]


def build_sensors(
    workspace: Workspace, partitions: Partitions, jobs: Mapping[str, Any], clock: Callable[[], datetime]
) -> list[dg.SensorDefinition]:
    """The four sensors of one workspace; ``jobs`` by name, ``clock`` gives the moment of looking."""

    def planner(instance: dg.DagsterInstance) -> RequestPlanner:
        return RequestPlanner(workspace.settings, partitions, instance, clock())

    @dg.sensor(
        name="new_symbols_sensor",
        job_name=HISTORY_JOB,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description="Registry changed: add and retire symbol keys, load the past of the new ones.",
    )
    def new_symbols_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        workspace.sync_symbols(clock())
        wanted = workspace.registry.entries()["symbol"].to_list()
        keys = planner(context.instance).symbol_keys()
        added = [symbol for symbol in wanted if symbol not in keys]
        removed = [key for key in keys if key not in wanted]
        if not added and not removed:
            return dg.SkipReason("the registry and the symbol keys agree")
        changes: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
        requests: list[dg.RunRequest] = []
        if added:
            changes.append(partitions.symbols.build_add_request(added))
            batches = planner(context.instance).history_batches(added)
            requests = [
                run.run_request(f"history:{run.first}:{run.last}:{context.cursor or 0}") for run in batches
            ]
        if removed:
            changes.append(partitions.symbols.build_delete_request(removed))
        return dg.SensorResult(
            run_requests=requests,
            dynamic_partitions_requests=changes,
            cursor=str(int(context.cursor or 0) + 1),
        )

    @dg.sensor(
        name="new_bars_sensor",
        job_name=DAILY_JOB,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description="New rows in market_data or new files in the inbox: run the closed sessions they belong to.",
    )
    def new_bars_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        state = json.loads(context.cursor or "{}")
        files, seen_files = changed_files(workspace, state.get("files", {}))
        live, last_id = _live_sessions(workspace, state.get("market_data_id", 0))
        asked = planner(context.instance)
        arrived = (
            new_bar_sessions(workspace, files)
            | live
            | {date.fromisoformat(d) for d in state.get("waiting", [])}
        )
        closed = workspace.calendar.last_closed(asked.now)
        window = workspace.settings.trading_days
        inside = sorted(d for d in arrived if d >= window.start and (window.end is None or d <= window.end))
        ready = [day for day in inside if day <= closed]
        cursor = {
            "market_data_id": last_id,
            "files": seen_files,
            "waiting": [str(day) for day in inside if day > closed],
        }
        stamp = f"{last_id}:{_fingerprint(seen_files)}"
        requests = [
            run.run_request(f"bars:{run.first}:{run.last}:{stamp}")
            for day in ready
            for run in asked.daily(day, day)
        ]
        return dg.SensorResult(
            run_requests=requests,
            cursor=json.dumps(cursor),
            skip_reason=None if requests else "no new bars of a closed session",
        )

    @dg.sensor(
        name="revision_sensor",
        job_name=DAILY_JOB,
        minimum_interval_seconds=INTERVAL_SECONDS,
        description="Stored bars were revised: run every later session of the symbol again, in order.",
    )
    def revision_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        last = int(context.cursor or 0)
        found = workspace.database.read_table("revisions").filter(pl.col("id") > last)
        if found.is_empty():
            return dg.SkipReason("no revision since the last look")
        newest = int(found["id"].max())  # type: ignore[arg-type]
        asked = planner(context.instance)
        followed = found.filter(pl.col("symbol").is_in(asked.symbol_keys()))
        requests = [
            run.run_request(f"revision:{newest}:{run.first}:{run.last}")
            for day, symbols in stale_dates(workspace, followed)
            for run in asked.daily(day, day, symbols)
        ]
        return dg.SensorResult(run_requests=requests, cursor=str(newest))

    @dg.run_status_sensor(
        name="ranking_sensor",
        run_status=dg.DagsterRunStatus.SUCCESS,
        monitored_jobs=[jobs[DAILY_JOB]],
        request_job=jobs[RANKING_JOB],
        minimum_interval_seconds=INTERVAL_SECONDS,
        description="A day's run succeeded: rank the pairs of its sessions.",
    )
    def ranking_sensor(context: dg.RunStatusSensorContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        days = _run_dates(context.dagster_run.tags)
        if not days:
            yield dg.SkipReason("the run names no session")
            return
        for run in planner(context.instance).ranking(days[0], days[-1]):
            yield run.run_request(f"ranking:{context.dagster_run.run_id}:{run.first}")

    return [new_symbols_sensor, new_bars_sensor, revision_sensor, ranking_sensor]


def changed_files(
    workspace: Workspace, seen: dict[str, list[int]]
) -> tuple[list[Path], dict[str, list[int]]]:
    """Files of the inbox whose size or modification time is not the one in ``seen``, and the new state."""
    if workspace.settings.universe.source != "files":
        return [], {}
    try:
        found = bar_paths(workspace.settings.files_path)
    except SourceError:
        return [], {}
    state = {str(path): [path.stat().st_size, path.stat().st_mtime_ns] for path in found}
    return [path for path in found if seen.get(str(path)) != state[str(path)]], state


def new_bar_sessions(workspace: Workspace, files: Sequence[Path]) -> set[date]:
    """Sessions of the daily window for which ``files`` hold bars of registered symbols.

    A file that cannot be read is reported and left for its next change; the others go on.
    """
    symbols = workspace.registry.entries()["symbol"].to_list()
    window = workspace.settings.trading_days
    days: set[date] = set()
    for path in files:
        try:
            bars = workspace.files_source(path).fetch(symbols, window.start, window.end or LAST_DAY)
        except GarchPlatformError as error:
            dg.get_dagster_logger().error("%s is left out: %s", path, error)
            continue
        days |= set(bars["session_date"].drop_nulls())
    return days


def _live_sessions(workspace: Workspace, after: int) -> tuple[set[date], int]:
    rows = workspace.database.read(
        select(MARKET_DATA.c.id, MARKET_DATA.c.timestamp, MARKET_DATA.c.data_source, MARKET_DATA.c.is_proxy)
        .where(MARKET_DATA.c.id > after, MARKET_DATA.c.timeframe == workspace.settings.timeframe.name)
        .order_by(MARKET_DATA.c.id)
    )
    if rows.is_empty():
        return set(), after
    usable = rows.filter(pl.col("data_source").is_in(PROMOTED_SOURCES), ~pl.col("is_proxy"))
    zone = workspace.calendar.timezone
    days = {moment.astimezone(zone).date() for moment in usable["timestamp"]}
    return {day for day in days if workspace.calendar.is_session(day)}, int(rows["id"][-1])


def _run_dates(tags: Mapping[str, str]) -> list[date]:
    keys = [tags[name] for name in (RANGE_START, RANGE_END, "dagster/partition") if name in tags]
    return list(KeySet.of(keys).dates)


def _fingerprint(files: Mapping[str, Sequence[int]]) -> str:
    return hashlib.blake2b(json.dumps(sorted(files.items())).encode(), digest_size=8).hexdigest()
