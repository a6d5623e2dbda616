"""What has arrived since a sensor looked last: inbox files, and live bars in ``market_data``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from sqlalchemy import func, or_, select

from garch_platform.errors import GarchPlatformError, SourceError
from garch_platform.orchestration.jobs import DAILY_JOB
from garch_platform.orchestration.planner import RANGE_START
from garch_platform.quant.bar_hash import content_hash
from garch_platform.sessions import FIRST_DAY, LAST_DAY
from garch_platform.sources.bar_file import bar_paths
from garch_platform.store.schema import METADATA
from garch_platform.workspace import Workspace
from garch_platform.workspace.promotion import in_sessions, promoted_rows

__all__ = [
    "LATE_AFTER",
    "SETTLED_AFTER",
    "changed_bars",
    "changed_files",
    "has_live_bars",
    "live_sessions",
    "requested_since",
]

SETTLED_AFTER = timedelta(minutes=15)
"""From a session's close until its live bars are promoted: late trades and updated bars are in by then."""

LATE_AFTER = SETTLED_AFTER + timedelta(minutes=5)
"""From the close until new bars are taken for late ones: the promotion had its time."""

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

    Usable are bars that research may use, inside the session; a daily one once the session is over.
    """
    seen_id, seen_at = state.get("market_data_id", 0), state.get("received_at")
    since = datetime.fromisoformat(seen_at) if seen_at else datetime.max.replace(tzinfo=UTC)
    table = MARKET_DATA.c
    usable = promoted_rows(workspace.settings.timeframe)
    newest = workspace.database.read(
        select(func.max(table.id).label("id"), func.max(table.received_at).label("received_at")).where(
            *usable
        )
    )
    rows = workspace.database.read(
        select(table.timestamp, func.max(table.received_at).label("received_at"))
        .where(*usable, or_(table.id > seen_id, table.received_at > since))
        .group_by(table.timestamp)
    )
    found = in_sessions(rows, workspace.calendar, workspace.settings.timeframe)
    moment = newest["received_at"][0]
    return set(found["session_date"]), {
        "market_data_id": max(seen_id, newest["id"][0] or 0),
        "received_at": moment.isoformat() if moment else seen_at,
    }


def requested_since(instance: dg.DagsterInstance, day: date, moment: datetime) -> bool:
    """Whether a daily run of ``day`` was asked for after ``moment``."""
    found = instance.get_runs(dg.RunsFilter(job_name=DAILY_JOB, created_after=moment.astimezone(UTC)))
    return any(run.tags.get(RANGE_START, "").startswith(str(day)) for run in found)


def has_live_bars(workspace: Workspace, day: date) -> bool:
    """Whether ``market_data`` holds a bar of the session ``day`` that research may use."""
    table, zone = MARKET_DATA.c, workspace.calendar.timezone
    step = workspace.settings.timeframe
    rows = workspace.database.read(
        select(table.timestamp, table.received_at).where(
            *promoted_rows(step),
            table.timestamp >= datetime.combine(day, time(), zone),
            table.timestamp < workspace.calendar.bounds(day)[1],
        )
    )
    return not in_sessions(rows, workspace.calendar, step).is_empty()
