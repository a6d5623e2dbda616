"""Bars of another length than the workspace's own, beside them in the lake.

Research reads the workspace's own timeframe, so that these rows inform and never mix in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from garch_platform.bars import Timeframe
from garch_platform.errors import ConfigurationError
from garch_platform.sessions import FIRST_DAY
from garch_platform.sources import BarSource
from garch_platform.sources.alpaca import ACTIONS
from garch_platform.workspace import Workspace
from garch_platform.workspace.ingest import HISTORY, UNREADABLE

__all__ = ["OtherBars", "load_other_bars"]


@dataclass(frozen=True)
class OtherBars:
    """What `load_other_bars` stored, rejected, and could not read (by symbol)."""

    stored: pl.DataFrame
    rejected: pl.DataFrame
    unreadable: dict[str, str]


def load_other_bars(
    workspace: Workspace,
    source: BarSource,
    timeframe: Timeframe,
    symbols: Sequence[str],
    *,
    asset: str,
    now: datetime,
) -> OtherBars:
    """Fetch what ``source`` has of ``symbols`` since their last stored session, and store what is sound.

    The last stored session is fetched again: it may have been incomplete. A symbol that cannot be read, or
    only without its splits and dividends, keeps its rows, and the next run begins where they end.

    Raises:
        ConfigurationError: ``timeframe`` is the workspace's own, which `bar_history` and `raw_bars` load.
    """
    if timeframe == workspace.settings.timeframe:
        raise ConfigurationError(
            f"universe.timeframe is {timeframe} already: bar_history and raw_bars load those bars; "
            f"{asset} is for workspaces of another timeframe"
        )
    end = workspace.calendar.last_closed(now)
    stored, rejected, unreadable = [], [], dict[str, str]()
    for start, group in _resume_points(workspace, timeframe, symbols).items():
        quality = workspace.check(source.fetch(group, start, end), now=now)
        failed = source.unreadable()
        if ACTIONS in failed:
            failed |= dict.fromkeys(group, f"without splits and dividends: {failed[ACTIONS]}")
        unreadable |= failed
        bars = quality.accepted.filter(~pl.col("symbol").is_in(list(failed)))
        got = sorted(set(bars["symbol"]))
        if got:
            since = max(start, min(bars["session_date"]))
            workspace.lake.replace(
                "bars",
                bars,
                timeframe=timeframe.name,
                symbols=got,
                start=since,
                end=end,
            )
        stored.append(bars)
        rejected.append(quality.rejected)
    found = OtherBars(pl.concat(stored), pl.concat(rejected), unreadable)
    _quarantine(workspace, symbols, found, asset, now)
    return found


def _resume_points(
    workspace: Workspace, timeframe: Timeframe, symbols: Sequence[str]
) -> dict[date, list[str]]:
    """Symbols by the session from which they are fetched: the last stored one, or the beginning."""
    coverage = workspace.lake.coverage("bars", timeframe.name)
    last = dict(coverage.select("symbol", "last_session").iter_rows())
    groups: dict[date, list[str]] = {}
    for symbol in symbols:
        groups.setdefault(last.get(symbol, FIRST_DAY), []).append(symbol)
    return groups


def _quarantine(
    workspace: Workspace, symbols: Sequence[str], found: OtherBars, asset: str, now: datetime
) -> None:
    notes = pl.DataFrame(
        [(symbol, UNREADABLE, detail) for symbol, detail in found.unreadable.items()],
        schema={"symbol": pl.String, "reason": pl.String, "detail": pl.String},
        orient="row",
    )
    rows = pl.concat([found.rejected, notes], how="diagonal").with_columns(
        asset=pl.lit(asset),
        partition_key=pl.lit(HISTORY),
        recorded_at=pl.lit(now).cast(pl.Datetime("us", "UTC")),
    )
    names = [*symbols, *found.unreadable]
    workspace.database.replace(
        "rejections", rows, where={"asset": [asset], "symbol": names, "partition_key": [HISTORY]}
    )
