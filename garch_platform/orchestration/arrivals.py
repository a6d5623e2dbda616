"""What has arrived since a sensor looked last: inbox files, and live bars in ``market_data``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
from sqlalchemy import or_, select

from garch_platform.errors import GarchPlatformError, SourceError
from garch_platform.orchestration.workspace import PROMOTED_SOURCES, Workspace
from garch_platform.quant.bar_hash import content_hash
from garch_platform.sessions import FIRST_DAY, LAST_DAY
from garch_platform.sources.bar_file import bar_paths
from garch_platform.store.schema import METADATA

__all__ = ["changed_bars", "changed_files", "live_sessions"]

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
    """Sessions of usable live bars that came or were corrected since ``state``, and the new state."""
    seen_id, seen_at = state.get("market_data_id", 0), state.get("received_at")
    since = datetime.fromisoformat(seen_at) if seen_at else datetime.max.replace(tzinfo=UTC)
    table = MARKET_DATA.c
    rows = workspace.database.read(
        select(table.id, table.timestamp, table.data_source, table.is_proxy, table.received_at).where(
            or_(table.id > seen_id, table.received_at > since)
        )
    )
    if rows.is_empty():
        return set(), {"market_data_id": seen_id, "received_at": seen_at}
    usable = rows.filter(pl.col("data_source").is_in(PROMOTED_SOURCES), ~pl.col("is_proxy"))
    zone = workspace.calendar.timezone
    days = {moment.astimezone(zone).date() for moment in usable["timestamp"]}
    newest = {
        "market_data_id": max(seen_id, *rows["id"]),
        "received_at": max([seen_at or "", *(moment.isoformat() for moment in rows["received_at"])]),
    }
    return {day for day in days if workspace.calendar.is_session(day)}, newest
