"""Bars: each symbol's bulk past, then one session at a time."""

from datetime import UTC, datetime

import dagster as dg
import polars as pl

from garch_platform.orchestration.metadata import mark_failed, without_rows
from garch_platform.orchestration.partitions import KeySet
from garch_platform.orchestration.revisions import record_revisions
from garch_platform.orchestration.workspace import Workspace
from garch_platform.quant.bar_quality import BarQuality, check_bars

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
    computed from them, a row in `revisions` names the symbol and the session.
    """
    keys = KeySet.of(context.partition_keys)
    fetched = workspace.fetch(keys.names, keys.start, keys.end)
    in_keys = pl.col("session_date").is_null() | pl.col("session_date").is_in(keys.dates)
    return _accept(context, workspace, keys, fetched.filter(in_keys))


def _accept(
    context: dg.AssetExecutionContext, workspace: Workspace, keys: KeySet, candidates: pl.DataFrame
) -> dg.Output[pl.DataFrame]:
    now = datetime.now(UTC)
    quality = check_bars(
        candidates,
        max_log_move=workspace.settings.quality.max_log_move,
        now=now,
        sessions=workspace.calendar.schedule,
    )
    bars = workspace.at_timeframe(quality.accepted)
    asset = context.asset_key.to_user_string()
    _quarantine(workspace, keys, quality, asset, now)
    revised = record_revisions(workspace, keys, bars, asset=asset)
    mark_failed(context, without_rows(keys, bars, date_column="session_date" if keys.dates else None))
    return dg.Output(
        bars,
        metadata={"candidates": len(candidates), "rejected": len(quality.rejected), "revised": len(revised)},
    )


def _quarantine(workspace: Workspace, keys: KeySet, quality: BarQuality, asset: str, now: datetime) -> None:
    partition = f"{keys.start}..{keys.end}" if keys.dates else "history"
    rows = quality.rejected.with_columns(
        asset=pl.lit(asset),
        partition_key=pl.coalesce(pl.col("session_date").cast(pl.String), pl.lit(partition))
        if keys.dates
        else pl.lit(partition),
        recorded_at=pl.lit(now).cast(pl.Datetime("us", "UTC")),
    )
    partitions = [partition, *(str(day) for day in keys.dates)]
    workspace.database.replace(
        "rejections",
        rows.select(
            "symbol", "timeframe", "timestamp", "session_date", "feed",
            "reason", "detail", "asset", "partition_key", "recorded_at",
        ),
        where={"asset": [asset], "symbol": list(keys.names), "partition_key": partitions},
    )  # fmt: skip
