"""Taking bars in: what is stored, what is quarantined, and what stays as it was.

Nothing that is stored is lost because a source is in trouble. A batch at fault as a whole changes no bar;
neither does a symbol that the source has ceased to hold, or of which it holds nothing sound. Each leaves a
row in ``rejections``, filed under the asset and the partition, so that running again replaces it.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from garch_platform.quant.bar_quality import REJECTION_SCHEMA, BarQuality
from garch_platform.workspace import Workspace
from garch_platform.workspace.keys import KeySet
from garch_platform.workspace.revisions import stored_bars

__all__ = ["HISTORY", "KEPT", "REFUSED", "UNREADABLE", "Intake", "quarantine", "take_in"]

HISTORY = "history"
"""Partition under which rejections of the bulk past are filed."""

REFUSED = "batch_refused"
"""Reason of the rejections that say of each key that nothing of its batch was taken."""

KEPT = "stored_bars_kept"
"""Reason of the rejections that say of a symbol that its stored bars stay, for want of sound ones."""

UNREADABLE = "unreadable"
"""Reason of the rejections that name a part of the source, a file or a symbol, that cannot be read."""

FAULTLESS = ("duplicate",)
"""Reasons that say nothing against a batch: the same bar twice is one bar."""


@dataclass(frozen=True)
class Intake:
    """What became of a batch: the bars to store, and the rows of `rejections`."""

    bars: pl.DataFrame
    rejected: pl.DataFrame


def take_in(workspace: Workspace, keys: KeySet, candidates: pl.DataFrame, now: datetime) -> Intake:
    """Hold ``candidates`` for ``keys`` against the bar contract and decide what is stored."""
    quality = workspace.check(candidates, now=now)
    stored = stored_bars(workspace, keys)
    files = _notes(UNREADABLE, keys, workspace.source.unreadable())
    if fault := _batch_fault(workspace, quality, stored):
        refused = _notes(REFUSED, keys, dict.fromkeys(keys.names, fault))
        return Intake(stored, pl.concat([quality.rejected, refused, files]))
    kept = _kept(workspace, quality, stored)
    bars = [
        workspace.at_timeframe(quality.accepted),
        stored.filter(pl.col("symbol").is_in(list(kept))).select(quality.accepted.columns),
    ]
    return Intake(pl.concat(bars), pl.concat([quality.rejected, _notes(KEPT, keys, kept), files]))


def _batch_fault(workspace: Workspace, quality: BarQuality, stored: pl.DataFrame) -> str | None:
    """Why the batch as a whole cannot be taken: too much of it is rejected, or the source is silent.

    One symbol's faults are that symbol's own, however small the batch, unless it is the whole batch.
    """
    limit = workspace.settings.quality.max_rejected_share
    counted = quality.rejected.filter(~pl.col("reason").is_in(FAULTLESS))
    total = len(counted) + len(quality.accepted)
    symbols = {*quality.accepted["symbol"], *quality.rejected["symbol"]}
    common = counted["symbol"].n_unique() > 1 or len(symbols) == 1
    if total and common and len(counted) > limit * total:
        counts = counted["reason"].value_counts(sort=True).head(5).iter_rows()
        reasons = ", ".join(f"{reason} {count}" for reason, count in counts)
        return (
            f"{len(counted)} of {total} rows were rejected ({reasons}), more than quality.max_rejected_share "
            f"{limit:g}: nothing of the batch was taken; repair the source and run again"
        )
    if not total and stored["symbol"].n_unique() > 1:
        return f"the source gave no row, {len(stored)} bars are stored and stay; run again when it has them"
    return None


def _kept(workspace: Workspace, quality: BarQuality, stored: pl.DataFrame) -> dict[str, str]:
    """Symbols whose stored bars stay, each with the reason.

    A symbol that the source still holds, without a row for these sessions, is not among them: its bars
    were taken back, which is a revision.
    """
    without = set(stored["symbol"]) - set(quality.accepted["symbol"])
    if not without:
        return {}
    faulty = without & set(quality.rejected["symbol"])
    unread = (without - faulty) & set(workspace.source.unreadable())
    gone = without - faulty - unread - set(workspace.source.symbols()["symbol"])
    advice = "the stored bars stay; bring sound ones and run again"
    return {
        **dict.fromkeys(sorted(faulty), f"every row that the source gave was rejected; {advice}"),
        **dict.fromkeys(sorted(unread), f"the source could not be read for it; {advice}"),
        **{symbol: f"the source does not hold {symbol} any more; {advice}" for symbol in sorted(gone)},
    }


def _notes(reason: str, keys: KeySet, details: dict[str, str]) -> pl.DataFrame:
    """Rejections that are no bars: one for each entry of ``details`` (symbol or file) and date."""
    days: tuple[date | None, ...] = keys.dates or (None,)
    rows = [(name, day, reason, detail) for name, detail in details.items() for day in days]
    columns = ["symbol", "session_date", "reason", "detail"]
    notes = pl.DataFrame(rows, schema={name: REJECTION_SCHEMA[name] for name in columns}, orient="row")
    absent = [
        pl.lit(None, kind).alias(name) for name, kind in REJECTION_SCHEMA.items() if name not in columns
    ]
    return notes.with_columns(absent).select(list(REJECTION_SCHEMA))


def quarantine(workspace: Workspace, keys: KeySet, rejected: pl.DataFrame, asset: str, now: datetime) -> None:
    """Replace the rejections of ``keys``, and of the source's files, by ``rejected``."""
    partitions = [str(day) for day in keys.dates] or [HISTORY]
    filed = workspace.database.read_table("rejections", asset=[asset], reason=[UNREADABLE])
    files = {*filed["symbol"], *rejected.filter(pl.col("reason") == UNREADABLE)["symbol"]}
    rows = rejected.with_columns(
        asset=pl.lit(asset),
        partition_key=_partition_keys(workspace, keys, rejected),
        recorded_at=pl.lit(now).cast(pl.Datetime("us", "UTC")),
    )
    workspace.database.replace(
        "rejections",
        rows,
        where={"asset": [asset], "symbol": [*keys.names, *sorted(files)], "partition_key": partitions},
    )


def _partition_keys(workspace: Workspace, keys: KeySet, rejected: pl.DataFrame) -> pl.Series:
    """The date under which each rejected row is filed: a bar between sessions counts to the next one."""
    if not keys.dates:
        return pl.repeat(HISTORY, len(rejected), dtype=pl.String, eager=True)
    local_day = pl.col("timestamp").dt.convert_time_zone(str(workspace.calendar.timezone)).dt.date()
    days = rejected.select(pl.coalesce("session_date", local_day, pl.lit(keys.start))).to_series()
    dates = pl.Series(keys.dates)
    position = dates.search_sorted(days, side="left").clip(upper_bound=len(dates) - 1)
    return dates.gather(position).cast(pl.String)
