"""Tables for the terminal and the report, made from what the stores hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any

import polars as pl
from rich.table import Table

from garch_platform.orchestration.doctor import Finding
from garch_platform.orchestration.workspace import Workspace

__all__ = [
    "CHANCE_NOTE",
    "findings_table",
    "frame_table",
    "gate_counts",
    "gate_table",
    "last_ranking_date",
    "planted_table",
    "status_table",
    "symbols_table",
    "top_pairs",
    "top_pairs_table",
]

CHANCE_NOTE = (
    "The classic gates pass pairs by chance: correlation of log prices lets Engle-Granger's 5 % grow to "
    "9-20 % on markets without any cointegration. A rank is a place in a list, not evidence."
)
PAIR_COLUMNS = (
    "rank",
    "passed",
    "sector",
    "symbol_y",
    "symbol_x",
    "score",
    "coint_pvalue",
    "price_correlation",
    "return_correlation",
    "hedge_ratio",
    "half_life",
    "spread_zscore",
)
SHOWN_ROWS = 200


def last_ranking_date(workspace: Workspace) -> date | None:
    """The latest session that has a ranking."""
    days = workspace.database.read_table("pair_rankings")["ranking_date"]
    return days.max()  # type: ignore[return-value]


def _rankings(workspace: Workspace, day: date | None) -> tuple[pl.DataFrame, date | None]:
    chosen = day or last_ranking_date(workspace)
    return workspace.database.read_table(
        "pair_rankings", ranking_date=[] if chosen is None else [chosen]
    ), chosen


def top_pairs(
    workspace: Workspace, day: date | None = None, *, top: int = 10
) -> tuple[pl.DataFrame, date | None]:
    """The ``top`` best-scored pairs of each sector on ``day`` (the last ranked session if None).

    Pairs that pass every gate come first and have a rank; the others show how near they came.
    """
    rankings, chosen = _rankings(workspace, day)
    order = {"sector": False, "rank": False, "score": True}
    best = rankings.drop_nulls("score").sort(list(order), descending=list(order.values()), nulls_last=True)
    return best.group_by("sector", maintain_order=True).head(top).select(PAIR_COLUMNS), chosen


def gate_counts(workspace: Workspace, day: date | None = None) -> pl.DataFrame:
    """How many pairs fell at which gate: ``outcome``, ``pairs``; rejected ones named by their gate."""
    rankings, _ = _rankings(workspace, day)
    gate = pl.col("rejection_reason").str.split(":").list.first()
    return (
        rankings.group_by(outcome=pl.when("passed").then(pl.lit("passed all gates")).otherwise(gate))
        .agg(pairs=pl.len())
        .sort("pairs", "outcome", descending=[True, False])
    )


def top_pairs_table(workspace: Workspace, day: date | None = None, *, top: int = 10) -> Table:
    """The best pairs as a terminal table; its caption says what the gates are worth."""
    best, chosen = top_pairs(workspace, day, top=top)
    bars = workspace.settings.formation_timeframe
    title = f"Top pairs of {chosen}" if chosen else "No ranking yet; run `garch refresh`"
    table = frame_table(best.rename({"half_life": f"half_life ({bars} bars)"}), title=title)
    table.caption = CHANCE_NOTE
    return table


def gate_table(workspace: Workspace, day: date | None = None) -> Table:
    """What was rejected and at which gate."""
    counts = gate_counts(workspace, day)
    return frame_table(counts, title=f"{counts['pairs'].sum()} pairs tested, by outcome")


def planted_table(found: pl.DataFrame) -> Table:
    """Found against planted, one row a planted pair."""
    hits = int(found["passed"].fill_null(False).sum())
    shown = found.select(
        "symbol_1",
        "symbol_2",
        pl.col("half_life_bars").alias("half-life planted (1Min bars)"),
        pl.col("half_life_found").alias("found"),
        pl.col("breaks_at"),
        "coint_pvalue",
        "rank",
        "rejection_reason",
    )
    return frame_table(shown, title=f"Found against planted: {hits} of {len(found)} planted pairs passed")


def symbols_table(workspace: Workspace) -> Table:
    """Registry and coverage of bars, one row a symbol."""
    coverage = workspace.lake.coverage("bars", workspace.settings.timeframe.name)
    rows = (
        workspace.registry.entries()
        .join(coverage, on="symbol", how="left", suffix="_bars")
        .select("symbol", "name", "sector", "rows", "first_session", "last_session")
        .with_columns(data=pl.when(pl.col("rows").is_null()).then(pl.lit("no data")).otherwise(pl.lit("ok")))
    )
    return frame_table(rows, title=f"{len(rows)} symbols, {workspace.settings.timeframe} bars")


def status_table(workspace: Workspace) -> Table:
    """Counts of the workspace, one row each."""
    settings, database = workspace.settings, workspace.database
    table = Table(title=str(settings.workspace))
    table.add_column("what")
    table.add_column("state")
    timeframe = settings.timeframe.name
    for name in ("bars", "features"):
        coverage = workspace.lake.coverage(name, timeframe)
        state = "none"
        if not coverage.is_empty():
            first, last = min(coverage["first_session"]), max(coverage["last_session"])
            state = f"{coverage['rows'].sum():,} rows, {len(coverage)} symbols, {first} to {last}"
        table.add_row(name, state)
    for name, column in (
        ("variance_stability_tracking", "test_date"),
        ("garch_models", "fit_date"),
        ("pair_rankings", "ranking_date"),
    ):
        rows = database.read_table(name)
        days = set(rows[column])
        table.add_row(name, f"{len(rows):,} rows, {len(days)} sessions, last {max(days)}" if days else "none")
    for name in ("rejections", "revisions", "market_data"):
        table.add_row(name, f"{len(database.read_table(name)):,} rows")
    return table


def findings_table(findings: Sequence[Finding]) -> Table:
    """The doctor's findings, each problem with its remedy."""
    colours = {"ok": "green", "warning": "yellow", "error": "red"}
    table = Table(title="garch doctor")
    for name in ("check", "state", "remedy"):
        table.add_column(name, overflow="fold")
    for finding in findings:
        table.add_row(
            finding.check, f"[{colours[finding.level]}]{finding.level}[/] {finding.state}", finding.remedy
        )
    return table


def frame_table(frame: pl.DataFrame, *, title: str) -> Table:
    """A frame as a terminal table; numbers right-aligned, nulls empty, at most 200 rows."""
    table = Table(title=title, title_justify="left", caption_justify="left")
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left", overflow="fold")
    for row in frame.head(SHOWN_ROWS).iter_rows():
        table.add_row(*(_text(value) for value in row))
    if len(frame) > SHOWN_ROWS:
        table.caption = f"{len(frame) - SHOWN_ROWS} more rows; use --csv for all"
    return table


def _text(value: Any) -> str:
    if value is None:
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
