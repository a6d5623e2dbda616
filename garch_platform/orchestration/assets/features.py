"""Features: returns, z-scores and rolling statistics of every bar."""

from collections.abc import Sequence
from typing import Any

import dagster as dg
import polars as pl

from garch_platform.orchestration.metadata import mark_failed, plot, without_rows
from garch_platform.quant.adjustment import with_split_adjustment
from garch_platform.quant.features import FeatureWindows, compute_features
from garch_platform.workspace import Workspace
from garch_platform.workspace.keys import KeySet
from garch_platform.workspace.revisions import record_late_features
from garch_platform.workspace.windows import feature_lookback, previous_features

__all__ = ["LAKE_COLUMNS", "compute", "feature_history", "features"]

LAKE_COLUMNS = {
    "timeframe": pl.String,
    "feature_date": pl.Date,
    "computation_method": pl.String,
    "data_source": pl.String,
    "split_adjustment": pl.Float64,
}
"""Columns that the lake's ``features`` table holds beside those that `compute_features` makes."""

METHOD = "expanding_window_t_minus_1"


def feature_history(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace], bar_history: pl.DataFrame
) -> dg.Output[pl.DataFrame]:
    """Features of a symbol's whole bulk past; the state from which daily features go on."""
    keys = KeySet.of(context.partition_keys)
    rows = compute(workspace, bar_history, previous=None)
    mark_failed(context, without_rows(keys, rows))
    return dg.Output(rows, metadata=_shown(workspace, rows))


def features(
    context: dg.AssetExecutionContext, workspace: dg.ResourceParam[Workspace], raw_bars: pl.DataFrame
) -> dg.Output[pl.DataFrame]:
    """Log close, log return, z-score on t-1 statistics, rolling mean and deviation, annualised volatility, moving averages and RSI of one session, continued from the rows before it.

    A symbol that lacks the features of an earlier stored bar is computed again from all its bars.
    """  # noqa: E501
    keys = KeySet.of(context.partition_keys)
    windows = _windows(workspace)
    previous = previous_features(workspace, keys.names, keys.start, rows=windows.tail)
    broken = _broken_chains(workspace, keys, previous)
    continued = compute(workspace, raw_bars.filter(~pl.col("symbol").is_in(broken)), previous=previous)
    rebuilt = compute(workspace, _all_bars(workspace, broken, keys), previous=None)
    rows = pl.concat([continued, rebuilt]).filter(pl.col("session_date").is_in(keys.dates))
    record_late_features(workspace, keys, rows)
    mark_failed(context, without_rows(keys, rows, date_column="session_date"))
    return dg.Output(
        rows, metadata=_shown(workspace, rows) | {"rebuilt_from_bars": ", ".join(broken) or "none"}
    )


def _windows(workspace: Workspace) -> FeatureWindows:
    return FeatureWindows(**workspace.settings.features.model_dump())


def compute(workspace: Workspace, bars: pl.DataFrame, *, previous: pl.DataFrame | None) -> pl.DataFrame:
    """Features of ``bars`` as the lake stores them, continued from the rows ``previous``.

    Raw closes are taken in the share of the beginning, so that a split is no return.
    """
    timeframe = workspace.settings.timeframe
    adjusted = with_split_adjustment(bars, _last_adjustments(previous))
    rows = compute_features(
        adjusted.select(
            "symbol", "timestamp", "session_date", close=pl.col("close") * pl.col("split_adjustment")
        ),
        windows=_windows(workspace),
        bars_per_year=workspace.calendar.bars_per_year(timeframe),
        intraday=not timeframe.is_daily,
        previous=previous,
    )
    sources = adjusted.select("symbol", "timestamp", "timeframe", "data_source", "split_adjustment")
    return rows.join(sources, on=["symbol", "timestamp"], how="left").with_columns(
        feature_date=pl.col("session_date"), computation_method=pl.lit(METHOD)
    )


def _last_adjustments(previous: pl.DataFrame | None) -> dict[str, float]:
    """The split adjustment of each symbol's last row; rows of an older version have none."""
    if previous is None or "split_adjustment" not in previous.columns:
        return {}
    rows = previous.sort("timestamp").group_by("symbol").agg(pl.col("split_adjustment").last().fill_null(1.0))
    return dict(rows.iter_rows())


def _broken_chains(workspace: Workspace, keys: KeySet, previous: pl.DataFrame) -> list[str]:
    """Symbols with a stored bar, inside the reach of ``previous``, that has no feature row."""
    session = ["symbol", "session_date"]
    stored = workspace.lake.scan(
        "bars",
        timeframe=workspace.settings.timeframe.name,
        symbols=list(keys.names),
        start=feature_lookback(workspace, keys.start, rows=_windows(workspace).tail),
        end=workspace.calendar.previous(keys.start),
        columns=session,
    )
    reach = previous.group_by("symbol").agg(since=pl.col("session_date").min())
    bars = stored.unique().collect().join(reach, on="symbol", how="left")
    reached = bars.filter(pl.col("since").is_null() | (pl.col("session_date") >= pl.col("since")))
    return sorted(reached.join(previous, on=session, how="anti")["symbol"].unique())


def _all_bars(workspace: Workspace, symbols: Sequence[str], keys: KeySet) -> pl.DataFrame:
    return workspace.lake.scan(
        "bars", timeframe=workspace.settings.timeframe.name, symbols=list(symbols), end=keys.end
    ).collect()


def _shown(workspace: Workspace, rows: pl.DataFrame) -> dict[str, Any]:
    recent = rows.drop_nulls("volatility_annualized").sort("timestamp").group_by("symbol").tail(500)

    def draw(axes: Any) -> None:
        for (symbol,), line in recent.group_by("symbol", maintain_order=True):
            label = str(symbol) if recent["symbol"].n_unique() <= 8 else None
            axes.plot(line["timestamp"], line["volatility_annualized"], lw=0.7, label=label)
        axes.set_ylabel("annualised", fontsize=7)

    return {
        "rolling_volatility": plot(draw, title="Rolling volatility, annualised fraction"),
        "lake_version_read": workspace.lake.version("bars") or 0,
    }
