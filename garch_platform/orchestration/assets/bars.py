"""Bars: each symbol's bulk past, then one session at a time."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl

from garch_platform.orchestration.metadata import mark_failed, plot, without_rows
from garch_platform.workspace import Workspace
from garch_platform.workspace.ingest import quarantine, take_in
from garch_platform.workspace.keys import KeySet
from garch_platform.workspace.revisions import record_revisions

__all__ = ["bar_history", "raw_bars"]


def bar_history(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.Output[pl.DataFrame]:
    """All bars of a symbol before its `history_end`, loaded in bulk from the configured source.

    A new symbol is one run, however many years it brings. Rows that break the bar contract go to
    `rejections` with their reason; the rest go to the lake's `bars` table.
    """
    keys = KeySet.of(context.partition_keys)
    return _accept(context, workspace, keys, workspace.history(keys.names))


def raw_bars(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.Output[pl.DataFrame]:
    """The bars of one session from the configured source, and live bars promoted from `market_data`.

    Fetching a session again replaces its rows; if their content changed after features had been
    computed from them, a row in `revisions` names the symbol and the session. A batch that is at fault
    as a whole changes no bar: the stored ones stay, and the check `batch_quality` fails.
    """
    keys = KeySet.of(context.partition_keys)
    since = workspace.calendar.previous(keys.start) + timedelta(days=1)
    fetched = workspace.fetch(keys.names, since, keys.end)
    in_keys = pl.col("session_date").is_null() | pl.col("session_date").is_in(keys.dates)
    return _accept(context, workspace, keys, fetched.filter(in_keys))


def _accept(
    context: dg.AssetExecutionContext, workspace: Workspace, keys: KeySet, candidates: pl.DataFrame
) -> dg.Output[pl.DataFrame]:
    now = datetime.now(UTC)
    asset = context.asset_key.to_user_string()
    intake = take_in(workspace, keys, candidates, now)
    quarantine(workspace, keys, intake.rejected, asset, now)
    revised = record_revisions(workspace, keys, intake.bars, asset=asset)
    mark_failed(context, without_rows(keys, intake.bars, date_column="session_date" if keys.dates else None))
    sizes = intake.bars.group_by("symbol").len().sort("symbol")
    return dg.Output(
        intake.bars,
        metadata={
            "candidates": len(candidates),
            "rejected": len(intake.rejected),
            "revised": len(revised),
            "bars_by_symbol": plot(lambda axes: axes.hist(sizes["len"], bins=20), title="Bars by symbol"),
            "lake_version_read": workspace.lake.version("bars") or 0,
        },
    )
