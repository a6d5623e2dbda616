"""Tables for the terminal, made from what the stores hold."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl
from rich.table import Table

from garch_platform.orchestration.doctor import Finding
from garch_platform.quant.pairs.rules import PROFILES
from garch_platform.reporting.selection import verdict_text
from garch_platform.reporting.tables import escaped, number, plain_table, shown
from garch_platform.workspace import Workspace
from garch_platform.workspace.outcomes import RankingOutcome

__all__ = [
    "findings_table",
    "left_out_text",
    "planted_table",
    "status_table",
    "symbols_table",
]

LEVEL_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


def left_out_text(outcome: RankingOutcome) -> str:
    """Which symbols the classic profile left out, by reason; empty where none."""
    reasons = outcome.excluded().group_by("reason", maintain_order=True).agg("symbol")
    listed = [f"{reason}: {', '.join(symbols)}" for reason, symbols in reasons.iter_rows()]
    return "left out of classic: " + "; ".join(listed) if listed else ""


def planted_table(found: pl.DataFrame) -> Table:
    """Found against planted, one row a planted pair."""
    hits = {profile: found[f"{profile}_rank"].count() for profile in PROFILES}
    table = plain_table(
        f"Found against planted: of {len(found)} planted pairs "
        + " and ".join(f"{count} ({profile})" for profile, count in hits.items())
    )
    for name in ("pair", "planted", "found", "breaks", "EG p", "conf. q", *PROFILES):
        wide = name in PROFILES
        table.add_column(name, no_wrap=not wide, justify="right" if name in ("planted", "found") else "left")
    for row in found.iter_rows(named=True):
        life, broken = row["half_life_found"], row["breaks_at"]
        table.add_row(
            f"{row['symbol_1']} {row['symbol_2']}",
            f"{row['half_life_bars']:.0f}",
            "" if life is None else f"{life:.0f}",
            "" if broken is None else f"{broken:%Y-%m-%d}",
            number(row["coint_pvalue"]),
            number(row["confirmation_qvalue"]),
            *(verdict_text(row, profile) for profile in PROFILES),
        )
    table.caption = (
        "planted and found: half-life in 1Min bars; EG p: Engle-Granger; conf. q: of the confirmation"
    )
    return table


def symbols_table(workspace: Workspace) -> Table:
    """Registry and coverage of bars, one row a symbol."""
    coverage = workspace.lake.coverage("bars", workspace.settings.timeframe.name)
    rows = workspace.registry.entries().join(coverage, on="symbol", how="left", suffix="_bars")
    with_data = len(rows) - rows["rows"].null_count()
    table = plain_table(f"{len(rows)} symbols, {with_data} with data ({workspace.settings.timeframe} bars)")
    table.add_column("symbol", no_wrap=True)
    table.add_column("name", no_wrap=True, max_width=24, overflow="ellipsis")
    table.add_column("sector", no_wrap=True)
    for name in ("bars", "since", "until"):
        table.add_column(name, no_wrap=True, justify="right")
    table.add_column("state", no_wrap=True)
    for row in rows.iter_rows(named=True):
        state = "ok" if row["rows"] else "no data: garch refresh"
        table.add_row(
            row["symbol"],
            row["name"] or "",
            row["sector"] or "",
            f"{row['rows']:,}" if row["rows"] else "",
            shown(row["first_session"]),
            shown(row["last_session"]),
            state if row["retired"] is None else f"retired {row['retired']}",
        )
    return table


def status_table(workspace: Workspace) -> Table:
    """Counts of the workspace, one row each."""
    settings, database = workspace.settings, workspace.database
    table = plain_table(str(settings.workspace))
    for name in ("table", "rows", "symbols", "sessions", "from", "to"):
        table.add_column(name, no_wrap=True, justify="left" if name == "table" else "right")
    for name in ("bars", "features"):
        coverage = workspace.lake.coverage(name, settings.timeframe.name)
        if coverage.is_empty():
            table.add_row(name, "0")
            continue
        first, last = min(coverage["first_session"]), max(coverage["last_session"])
        table.add_row(name, f"{coverage['rows'].sum():,}", str(len(coverage)), "", str(first), str(last))
    for name, column, symbol in (
        ("variance_stability_tracking", "test_date", "symbol"),
        ("garch_models", "fit_date", "symbol"),
        ("pair_rankings", "ranking_date", None),
        ("scan_ledger", "ranking_date", None),
    ):
        rows = database.read_table(name)
        days = sorted(set(rows[column]))
        ends = [str(days[0]), str(days[-1])] if days else ["", ""]
        names = str(rows[symbol].n_unique()) if symbol and days else ""
        table.add_row(name, f"{len(rows):,}", names, str(len(days)) if days else "", *ends)
    for name in ("rejections", "revisions", "market_data"):
        table.add_row(name, f"{len(database.read_table(name)):,}")
    return table


def findings_table(findings: Sequence[Finding]) -> Table:
    """The doctor's findings; below each problem its remedy."""
    table = plain_table("garch doctor")
    table.add_column("check", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("state", overflow="fold")
    for finding in findings:
        remedy = f"\n[bold]→[/] {escaped(finding.remedy)}" if finding.remedy else ""
        colour = LEVEL_COLOURS[finding.level]
        table.add_row(finding.check, f"[{colour}]{finding.level}[/]", escaped(finding.state) + remedy)
    return table
