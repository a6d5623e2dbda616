"""Bars: each symbol's bulk past, then one session at a time."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import polars as pl

from garch_platform.orchestration.metadata import mark_failed, without_rows
from garch_platform.orchestration.partitions import KeySet
from garch_platform.orchestration.revisions import record_revisions, stored_bars
from garch_platform.orchestration.workspace import Workspace
from garch_platform.quant.bar_quality import REJECTION_SCHEMA, BarQuality, check_bars

__all__ = ["REFUSED", "bar_history", "raw_bars"]

HISTORY = "history"
"""Partition under which rejections of the bulk past are filed."""

REFUSED = "batch_refused"
"""Reason of the rejections that say of each key that nothing of its batch was taken."""


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
    quality = check_bars(
        candidates,
        max_log_move=workspace.settings.quality.max_log_move,
        now=now,
        sessions=workspace.calendar.schedule,
    )
    stored = stored_bars(workspace, keys)
    fault = _batch_fault(workspace, quality, stored)
    bars = stored if fault else workspace.at_timeframe(quality.accepted)
    asset = context.asset_key.to_user_string()
    rejected = pl.concat([quality.rejected, _refusals(keys, fault)])
    _quarantine(workspace, keys, rejected, asset, now)
    revised = record_revisions(workspace, keys, bars, asset=asset)
    mark_failed(context, without_rows(keys, bars, date_column="session_date" if keys.dates else None))
    return dg.Output(
        bars,
        metadata={"candidates": len(candidates), "rejected": len(quality.rejected), "revised": len(revised)},
    )


def _batch_fault(workspace: Workspace, quality: BarQuality, stored: pl.DataFrame) -> str | None:
    """Why the batch as a whole cannot be taken: too much is rejected, or a source has gone silent."""
    limit = workspace.settings.quality.max_rejected_share
    rejected, total = len(quality.rejected), len(quality.rejected) + len(quality.accepted)
    if quality.rejected_share > limit:
        counts = quality.rejected["reason"].value_counts(sort=True).head(5).iter_rows()
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts)
        return (
            f"{rejected} of {total} rows were rejected ({reasons}), more than quality.max_rejected_share "
            f"{limit:g}: nothing of the batch was taken; repair the source and run again"
        )
    if not total and stored["symbol"].n_unique() > 1:
        return f"the source gave no row, {len(stored)} bars are stored and stay; run again when it has them"
    return None


def _refusals(keys: KeySet, fault: str | None) -> pl.DataFrame:
    refused = [(name, day, REFUSED, fault) for name in keys.names for day in keys.dates or (None,) if fault]
    columns = ["symbol", "session_date", "reason", "detail"]
    rows = pl.DataFrame(refused, schema={name: REJECTION_SCHEMA[name] for name in columns}, orient="row")
    absent = [
        pl.lit(None, dtype).alias(name) for name, dtype in REJECTION_SCHEMA.items() if name not in columns
    ]
    return rows.with_columns(absent).select(list(REJECTION_SCHEMA))


def _quarantine(
    workspace: Workspace, keys: KeySet, rejected: pl.DataFrame, asset: str, now: datetime
) -> None:
    rows = rejected.with_columns(
        asset=pl.lit(asset),
        partition_key=_partition_keys(workspace, keys, rejected),
        recorded_at=pl.lit(now).cast(pl.Datetime("us", "UTC")),
    )
    partitions = [str(day) for day in keys.dates] or [HISTORY]
    workspace.database.replace(
        "rejections",
        rows.select(
            "symbol", "timeframe", "timestamp", "session_date", "feed",
            "reason", "detail", "asset", "partition_key", "recorded_at",
        ),
        where={"asset": [asset], "symbol": list(keys.names), "partition_key": partitions},
    )  # fmt: skip


def _partition_keys(workspace: Workspace, keys: KeySet, rejected: pl.DataFrame) -> pl.Series:
    """The date under which each rejected row is filed: a bar between sessions counts to the next one."""
    if not keys.dates:
        return pl.repeat(HISTORY, len(rejected), dtype=pl.String, eager=True)
    local_day = pl.col("timestamp").dt.convert_time_zone(str(workspace.calendar.timezone)).dt.date()
    days = rejected.select(pl.coalesce("session_date", local_day, pl.lit(keys.start))).to_series()
    dates = pl.Series(keys.dates)
    position = dates.search_sorted(days, side="left").clip(upper_bound=len(dates) - 1)
    return dates.gather(position).cast(pl.String)
