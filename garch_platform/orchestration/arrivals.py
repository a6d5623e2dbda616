"""What has arrived since a sensor looked last: inbox files, and live bars in ``market_data``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from sqlalchemy import or_, select

from garch_platform.errors import GarchPlatformError, SourceError
from garch_platform.orchestration.jobs import DAILY_JOB
from garch_platform.orchestration.planner import RANGE_START
from garch_platform.orchestration.workspace import PROMOTED_SOURCES, Workspace
from garch_platform.quant.bar_hash import content_hash
from garch_platform.sessions import FIRST_DAY, LAST_DAY
from garch_platform.sources.bar_file import bar_paths
from garch_platform.store.schema import METADATA

__all__ = [
    "SETTLED_AFTER",
    "changed_bars",
    "changed_files",
    "has_live_bars",
    "live_sessions",
    "requested_since",
]

SETTLED_AFTER = timedelta(minutes=15)
"""From a session's close until its live bars are taken: late trades and updated bars are in by then."""

MARKET_DATA = METADATA.tables["market_data"]


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


def changed_bars(
    workspace: Workspace, files: Sequence[Path], symbols: Sequence[str]
) -> tuple[set[str], set[date]]:
    """What ``files`` hold of ``symbols`` that the lake does not have in the same words.

    Returns the symbols whose bulk past changed and the changed sessions of the daily window. A file that
    cannot be read is reported and left for its next change; the others go on.
    """
    ends = dict(workspace.symbols().select("symbol", "history_end").iter_rows())
    past: set[str] = set()
    days: set[date] = set()
    for path in files:
        try:
            found = workspace.files_source(path).fetch(symbols, FIRST_DAY, LAST_DAY)
        except GarchPlatformError as error:
            dg.get_dagster_logger().error("%s is left out: %s", path, error)
            continue
        for symbol, day in _unlike_the_lake(workspace, found).iter_rows():
            if day < ends[symbol]:
                past.add(symbol)
            else:
                days.add(day)
    return past, days


def _unlike_the_lake(workspace: Workspace, candidates: pl.DataFrame) -> pl.DataFrame:
    accepted = workspace.at_timeframe(workspace.check(candidates).accepted)
    if accepted.is_empty():
        return accepted.select("symbol", "session_date")
    stored = workspace.lake.scan(
        "bars",
        timeframe=workspace.settings.timeframe.name,
        symbols=accepted["symbol"].unique().to_list(),
        start=min(accepted["session_date"]),
        end=max(accepted["session_date"]),
    ).collect()
    key = ["symbol", "session_date", "content_hash"]
    return content_hash(accepted).join(content_hash(stored), on=key, how="anti").select(key[:2])


def live_sessions(workspace: Workspace, state: Mapping[str, Any]) -> tuple[set[date], dict[str, Any]]:
    """Sessions of usable live bars that came or were corrected since ``state``, and the new state.

    Usable are bars of Alpaca, of the workspace's timeframe, inside the session: neither recycled nor
    proxied ones, and none from before the open or after the close.
    """
    seen_id, seen_at = state.get("market_data_id", 0), state.get("received_at")
    since = datetime.fromisoformat(seen_at) if seen_at else datetime.max.replace(tzinfo=UTC)
    table, step = MARKET_DATA.c, workspace.settings.timeframe
    rows = workspace.database.read(
        select(
            *(
                table.id,
                table.timestamp,
                table.timeframe,
                table.data_source,
                table.is_proxy,
                table.received_at,
            )
        ).where(or_(table.id > seen_id, table.received_at > since))
    )
    if rows.is_empty():
        return set(), {"market_data_id": seen_id, "received_at": seen_at}
    local_day = pl.col("timestamp").dt.convert_time_zone(str(workspace.calendar.timezone)).dt.date()
    usable = (
        rows.filter(
            pl.col("data_source").is_in(PROMOTED_SOURCES),
            ~pl.col("is_proxy"),
            pl.col("timeframe") == step.name,
        )
        .with_columns(session_date=local_day)
        .join(workspace.calendar.schedule, on="session_date")
        .filter(pl.col("timestamp").is_between("open_at", "close_at", closed="left") | step.is_daily)
    )
    newest = {
        "market_data_id": max(seen_id, *rows["id"]),
        "received_at": max([seen_at or "", *(moment.isoformat() for moment in rows["received_at"])]),
    }
    return set(usable["session_date"]), newest


def requested_since(instance: dg.DagsterInstance, day: date, moment: datetime) -> bool:
    """Whether a daily run of ``day`` was asked for after ``moment``."""
    found = instance.get_runs(dg.RunsFilter(job_name=DAILY_JOB, created_after=moment.astimezone(UTC)))
    return any(run.tags.get(RANGE_START, "").startswith(str(day)) for run in found)


def has_live_bars(workspace: Workspace, day: date) -> bool:
    """Whether ``market_data`` holds a bar of the session ``day`` that research may use."""
    table, (_, end) = MARKET_DATA.c, workspace.calendar.bounds(day)
    found = workspace.database.read(
        select(table.id)
        .where(
            table.timeframe == workspace.settings.timeframe.name,
            table.data_source.in_(PROMOTED_SOURCES),
            table.is_proxy.is_(False),
            table.timestamp >= datetime.combine(day, time(), workspace.calendar.timezone),
            table.timestamp < end,
        )
        .limit(1)
    )
    return not found.is_empty()
