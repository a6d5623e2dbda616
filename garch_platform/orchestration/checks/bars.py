"""Checks of bars: the batch, duplicates, gaps, outliers."""

import dagster as dg
import polars as pl

from garch_platform.bars import BAR_KEY, BAR_SCHEMA
from garch_platform.orchestration.checks.evidence import evidence, flag_keys
from garch_platform.quant.bar_outliers import find_outliers
from garch_platform.quant.bar_quality import find_gaps
from garch_platform.quant.resampling import bucket_start
from garch_platform.workspace import Workspace
from garch_platform.workspace.ingest import HISTORY, KEPT, REFUSED, UNREADABLE
from garch_platform.workspace.keys import KeySet

__all__ = ["bar_contract", "batch_quality", "duplicates", "gaps", "history_quality", "outliers"]


def batch_quality(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.AssetCheckResult:
    """The batch was taken (blocks if not); no file was unreadable and no stored bar had to be kept (warns)."""
    keys = KeySet.of(context.partition_keys)
    return _batch_result(workspace, keys, "raw_bars", [str(day) for day in keys.dates])


def history_quality(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace]
) -> dg.AssetCheckResult:
    """The same of the bulk past (blocks, warns)."""
    return _batch_result(workspace, KeySet.of(context.partition_keys), "bar_history", [HISTORY])


def _batch_result(
    workspace: Workspace, keys: KeySet, asset: str, partitions: list[str]
) -> dg.AssetCheckResult:
    filed = workspace.database.read_table("rejections", asset=[asset], partition_key=partitions)
    rejected = filed.filter(pl.col("symbol").is_in(keys.names) | (pl.col("reason") == UNREADABLE))
    refused = rejected.filter(pl.col("reason") == REFUSED)["detail"].unique().to_list()
    noted = rejected.filter(pl.col("reason").is_in([KEPT, UNREADABLE])).unique(["symbol", "detail"])
    notes = [
        f"{name}: {detail}" for name, detail in noted.select("symbol", "detail").sort("symbol").iter_rows()
    ]
    rows = rejected.filter(pl.col("reason") != REFUSED).select("symbol", "timestamp", "reason", "detail")
    return dg.AssetCheckResult(
        passed=not refused and not notes,
        severity=dg.AssetCheckSeverity.ERROR if refused else dg.AssetCheckSeverity.WARN,
        description="; ".join([*refused, *notes]) or None,
        metadata={"allowed_share": workspace.settings.quality.max_rejected_share, **evidence(rows)},
    )


def bar_contract(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace], raw_bars: pl.DataFrame
) -> dg.AssetCheckResult:
    """The stored bars meet the contract: order of open, high, low and close, prices, session (blocks)."""
    rejected = workspace.check(raw_bars.select(list(BAR_SCHEMA))).rejected
    return dg.AssetCheckResult(passed=rejected.is_empty(), metadata=evidence(rejected))


def duplicates(context: dg.AssetCheckExecutionContext, raw_bars: pl.DataFrame) -> dg.AssetCheckResult:
    """No two stored bars share (symbol, timeframe, timestamp, feed) (blocks)."""
    twice = raw_bars.filter(pl.struct(BAR_KEY).is_duplicated())
    return dg.AssetCheckResult(passed=twice.is_empty(), metadata=evidence(twice.select(*BAR_KEY, "close")))


def gaps(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace], raw_bars: pl.DataFrame
) -> dg.AssetCheckResult:
    """Every bar that the calendar expects is there; a symbol without any bar in the session is named (warns)."""
    keys = KeySet.of(context.partition_keys)
    calendar, timeframe = workspace.calendar, workspace.settings.timeframe
    expected = pl.concat(
        calendar.expected_timestamps(day, timeframe).to_frame().with_columns(session_date=pl.lit(day))
        for day in keys.dates
    )
    opens = calendar.schedule.select("session_date", "open_at")
    placed = raw_bars.join(opens, on="session_date").with_columns(timestamp=bucket_start(timeframe.minutes))
    found = find_gaps(placed, expected.select("session_date", "timestamp"))
    present = raw_bars.select("symbol", "session_date").unique()
    pairs = pl.DataFrame({"symbol": keys.names}).join(pl.DataFrame({"session_date": keys.dates}), how="cross")
    silent = pairs.join(present, on=["symbol", "session_date"], how="anti")
    flag_keys(context, keys, silent.with_columns(detail=pl.lit("no bar in this session")), "session_date")
    missing = found.filter(pl.col("missing") > 0)
    return dg.AssetCheckResult(
        passed=silent.is_empty() and missing.is_empty(),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={
            "symbols_without_bars": ", ".join(silent["symbol"].unique().sort()) or "none",
            "missing_bars": int(missing["missing"].sum()),
            **evidence(missing.sort("missing", descending=True)),
        },
    )


def outliers(
    context: dg.AssetCheckExecutionContext, workspace: dg.ResourceParam[Workspace], raw_bars: pl.DataFrame
) -> dg.AssetCheckResult:
    """No single-bar spike, no move that looks like a split that nobody declared (warns)."""
    keys = KeySet.of(context.partition_keys)
    before = workspace.calendar.previous(keys.start)
    earlier = workspace.lake.scan(
        "bars",
        timeframe=workspace.settings.timeframe.name,
        symbols=list(keys.names),
        start=before,
        end=before,
    ).collect()
    bars = pl.concat([earlier.select(raw_bars.columns), raw_bars])
    found = find_outliers(bars, max_log_move=workspace.settings.quality.max_log_move)
    recent = found.filter(pl.col("timestamp") >= raw_bars["timestamp"].min()) if len(raw_bars) else found
    return dg.AssetCheckResult(
        passed=recent.is_empty(), severity=dg.AssetCheckSeverity.WARN, metadata=evidence(recent)
    )
