"""Sensors: new symbols, new bars, revised bars, and the ranking that follows a day's success.

Each keeps its place in a cursor and gives each request a run key made of what it saw, so that the
same rows or files never start a run twice.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date, datetime
from typing import Any

import dagster as dg
import polars as pl

from garch_platform.orchestration.arrivals import (
    LATE_AFTER,
    changed_bars,
    changed_files,
    live_sessions,
    requested_since,
)
from garch_platform.orchestration.jobs import DAILY_JOB, HISTORY_JOB, RANKING_JOB
from garch_platform.orchestration.partitions import Partitions
from garch_platform.orchestration.planner import RANGE_END, RANGE_START, KeyRange, RequestPlanner
from garch_platform.workspace import Workspace
from garch_platform.workspace.keys import KeySet, contiguous
from garch_platform.workspace.revisions import stale_dates

__all__ = ["build_sensors", "catch_up"]

INTERVAL_SECONDS = 30
UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


def build_sensors(
    workspace: Workspace, partitions: Partitions, jobs: Mapping[str, Any], clock: Callable[[], datetime]
) -> list[dg.SensorDefinition]:
    """The four sensors of one workspace; ``jobs`` by name, ``clock`` gives the moment of looking."""

    def planner(instance: dg.DagsterInstance) -> RequestPlanner:
        return RequestPlanner(workspace.settings, partitions, instance, clock(), workspace.retired())

    @dg.sensor(
        name="new_symbols_sensor",
        jobs=[jobs[HISTORY_JOB], jobs[DAILY_JOB]],
        minimum_interval_seconds=INTERVAL_SECONDS,
        description="Registry changed: add and retire symbol keys; load the past and the missed sessions of new ones.",
    )
    def new_symbols_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        workspace.sync_symbols(clock())
        return _follow_registry(
            context, planner(context.instance), workspace.registry.entries()["symbol"].to_list()
        )

    @dg.sensor(
        name="new_bars_sensor",
        jobs=[jobs[HISTORY_JOB], jobs[DAILY_JOB]],
        minimum_interval_seconds=INTERVAL_SECONDS,
        description="New rows in market_data, or bars in the inbox that the lake lacks: run their closed sessions.",
    )
    def new_bars_sensor(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        state = json.loads(context.cursor or "{}")
        files, seen_files = changed_files(workspace, state.get("files", {}))
        live, seen_live = live_sessions(workspace, state)
        asked = planner(context.instance)
        keys = asked.symbol_keys()
        if not keys:
            return dg.SkipReason("no symbol is registered; run `garch symbols add SYMBOL` first")
        past, sessions = changed_bars(workspace, files, keys)
        waiting = {date.fromisoformat(day) for day in state.get("waiting", [])}
        window = workspace.settings.trading_days
        inside = sorted(
            day
            for day in sessions | live | waiting
            if day >= window.start and (window.end is None or day <= window.end)
        )
        closed = workspace.calendar.last_closed(asked.now - LATE_AFTER)
        cursor = {
            **seen_live,
            "files": seen_files,
            "waiting": [str(day) for day in inside if day > closed],
        }
        runs = asked.history(sorted(past)) if past else []
        promoted = {day for day in (live | waiting) - sessions if _promoted(context.instance, day, seen_live)}
        due = [day for day in inside if day <= closed and day not in promoted]
        runs += [run for day in due for run in asked.daily(day, day)]
        stamp = _fingerprint({**seen_live, **seen_files})
        requests = [run.run_request(f"bars:{run.first}:{run.last}:{stamp}") for run in runs]
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
        busy = context.instance.get_runs_count(dg.RunsFilter(job_name=DAILY_JOB, statuses=list(UNDER_WAY)))
        if busy:
            return dg.SkipReason(
                f"{busy} daily runs are under way; what they revise is planned when they end"
            )
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


def _promoted(instance: dg.DagsterInstance, day: date, seen: Mapping[str, Any]) -> bool:
    """Whether the promotion schedule has asked for ``day`` since its last live bar came."""
    received = seen.get("received_at")
    return received is not None and requested_since(instance, day, datetime.fromisoformat(received))


def _follow_registry(
    context: dg.SensorEvaluationContext, asked: RequestPlanner, wanted: Sequence[str]
) -> dg.SensorResult | dg.SkipReason:
    keys = asked.symbol_keys()
    added = [symbol for symbol in wanted if symbol not in keys]
    removed = [key for key in keys if key not in wanted]
    loaded = context.instance.get_materialized_partitions(dg.AssetKey("feature_history"))
    state = json.loads(context.cursor or "{}")
    requested = set(state.get("requested", [])) & set(wanted)
    fresh = set(added) | {symbol for symbol in wanted if symbol not in loaded and symbol not in requested}
    order = [key for key in keys if key not in removed] + added
    changes: list[dg.AddDynamicPartitionsRequest | dg.DeleteDynamicPartitionsRequest] = []
    if added:
        changes.append(asked.partitions.symbols.build_add_request(added))
    if removed:
        changes.append(asked.partitions.symbols.build_delete_request(removed))
    if not changes and not fresh:
        return dg.SkipReason("the registry and the symbol keys agree, and every past is loaded or asked for")
    looks = state.get("looks", 0) + 1
    planned = catch_up(asked, order, fresh, _sessions_done(context.instance))
    return dg.SensorResult(
        run_requests=[run.run_request(f"new:{looks}:{run.job}:{run.first}:{run.last}") for run in planned],
        dynamic_partitions_requests=changes,
        cursor=json.dumps({"requested": sorted(requested | fresh), "looks": looks}),
    )


def catch_up(
    asked: RequestPlanner, order: Sequence[str], fresh: set[str], sessions: Sequence[date]
) -> list[KeyRange]:
    """Runs for ``fresh`` symbols: their bulk past, then in one run the ``sessions`` that others have already.

    ``order`` is that of the keys as it will be when the runs start.
    """
    positions = [number for number, key in enumerate(order) if key in fresh]
    stretches = [list(order[first : last + 1]) for first, last in contiguous(positions)]
    runs = [run for names in stretches for run in asked.history_batches(names)]
    if sessions:
        runs += [
            KeyRange(DAILY_JOB, f"{sessions[0]}|{names[0]}", f"{sessions[-1]}|{names[-1]}", tuple(names))
            for names in stretches
        ]
    return runs


def _sessions_done(instance: dg.DagsterInstance) -> list[date]:
    return list(KeySet.of(instance.get_materialized_partitions(dg.AssetKey("raw_bars"))).dates)


def _run_dates(tags: Mapping[str, str]) -> list[date]:
    keys = [tags[name] for name in (RANGE_START, RANGE_END, "dagster/partition") if name in tags]
    return list(KeySet.of(keys).dates)


def _fingerprint(state: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(state, sort_keys=True).encode(), digest_size=8).hexdigest()
