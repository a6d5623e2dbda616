"""Tables for the terminal, made from what the stores hold."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Any

import polars as pl
from rich import box
from rich.cells import cell_len
from rich.table import Table

from garch_platform.orchestration.doctor import Finding
from garch_platform.orchestration.outcomes import RankingOutcome
from garch_platform.orchestration.workspace import Workspace

__all__ = [
    "CHANCE_NOTE",
    "findings_table",
    "fits",
    "frame_table",
    "gate_table",
    "number",
    "planted_table",
    "records_table",
    "status_table",
    "symbols_table",
    "top_pairs_table",
]

CHANCE_NOTE = (
    "The classic gates pass pairs by chance: the correlation of log prices lets Engle-Granger's 5 % grow to "
    "9-20 % on markets without any cointegration. A rank is a place in a list, not evidence."
)
SHOWN_ROWS = 200
LEVEL_COLOURS = {"ok": "green", "warning": "yellow", "error": "red"}


def number(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` decimals; with three or more, a value that they would hide as 1.2e-5."""
    if value is None:
        return ""
    if digits >= 3 and value and abs(value) < 2 * 10.0**-digits:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:,.{digits}f}"


def top_pairs_table(outcome: RankingOutcome, *, top: int = 10) -> Table:
    """The best pairs of a session; its title says whether any of them passes every gate."""
    best, count = outcome.best(top), len(outcome.rankings)
    if outcome.passed:
        title = f"Top pairs of {outcome.day}: {outcome.passed} of {count:,} pass every gate"
    else:
        title = f"Top pairs of {outcome.day}: none of {count:,} passes every gate; these come nearest"
    table = _table(title)
    with_sector = best["sector"].n_unique() > 1
    table.add_column("rank", justify="right")
    for name in (*(["sector"] if with_sector else []), "y", "x"):
        table.add_column(name, no_wrap=True)
    for name in (
        "score",
        "p-value",
        "price\ncorr.",
        "return\ncorr.",
        "hedge\nratio",
        "half-\nlife",
        "last\nz",
    ):
        table.add_column(name, justify="right", no_wrap=True)
    for row in best.iter_rows(named=True):
        table.add_row(
            "–" if row["rank"] is None else str(row["rank"]),
            *([row["sector"]] if with_sector else []),
            row["symbol_y"],
            row["symbol_x"],
            number(row["score"]),
            number(row["coint_pvalue"]),
            *(number(row[name], 2) for name in ("price_correlation", "return_correlation", "hedge_ratio")),
            *(number(row[name], 1) for name in ("half_life", "spread_zscore")),
        )
    bars = outcome.workspace.settings.formation_timeframe
    table.caption = (
        f"y = intercept + hedge ratio · x in log prices; half-life in {bars} bars; z of the last bar; "
        "without a rank: fell at the score gate"
    )
    return table


def gate_table(outcome: RankingOutcome) -> Table:
    """How many pairs fell at which gate, and why symbols were excluded."""
    table = _table(f"What became of the {len(outcome.rankings):,} pairs")
    table.add_column("gate", no_wrap=True)
    table.add_column("asks for")
    table.add_column("pairs", justify="right")
    for gate, asks, pairs in outcome.gates().iter_rows():
        table.add_row(gate, asks, f"{pairs:,}", end_section=False)
    reasons = outcome.excluded().group_by("reason", maintain_order=True).agg("symbol")
    if len(reasons):
        listed = [f"{reason}: {', '.join(symbols)}" for reason, symbols in reasons.iter_rows()]
        table.caption = "excluded: " + "; ".join(listed)
    return table


def planted_table(found: pl.DataFrame) -> Table:
    """Found against planted, one row a planted pair."""
    hits = int(found["passed"].fill_null(False).sum())
    table = _table(f"Found against planted: {hits} of {len(found)} planted pairs passed every gate")
    for name in ("pair", "planted", "found", "breaks", "p-value", "verdict"):
        table.add_column(
            name, no_wrap=name != "verdict", justify="right" if name in ("planted", "found") else "left"
        )
    for row in found.iter_rows(named=True):
        life, broken = row["half_life_found"], row["breaks_at"]
        table.add_row(
            f"{row['symbol_1']} {row['symbol_2']}",
            f"{row['half_life_bars']:.0f}",
            "" if life is None else f"{life:.0f}",
            "" if broken is None else f"{broken:%Y-%m-%d}",
            number(row["coint_pvalue"]),
            f"rank {row['rank']}" if row["passed"] else _short(row["rejection_reason"] or "not ranked"),
        )
    table.caption = "planted and found: half-life in 1Min bars; p-value of Engle-Granger"
    return table


def symbols_table(workspace: Workspace) -> Table:
    """Registry and coverage of bars, one row a symbol."""
    coverage = workspace.lake.coverage("bars", workspace.settings.timeframe.name)
    rows = workspace.registry.entries().join(coverage, on="symbol", how="left", suffix="_bars")
    with_data = len(rows) - rows["rows"].null_count()
    table = _table(f"{len(rows)} symbols, {with_data} with data ({workspace.settings.timeframe} bars)")
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
            _text(row["first_session"]),
            _text(row["last_session"]),
            state if row["retired"] is None else f"retired {row['retired']}",
        )
    return table


def status_table(workspace: Workspace) -> Table:
    """Counts of the workspace, one row each."""
    settings, database = workspace.settings, workspace.database
    table = _table(str(settings.workspace))
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
    table = _table("garch doctor")
    table.add_column("check", no_wrap=True)
    table.add_column("level", no_wrap=True)
    table.add_column("state", overflow="fold")
    for finding in findings:
        remedy = f"\n[bold]→[/] {_escaped(finding.remedy)}" if finding.remedy else ""
        colour = LEVEL_COLOURS[finding.level]
        table.add_row(finding.check, f"[{colour}]{finding.level}[/]", _escaped(finding.state) + remedy)
    return table


def frame_table(frame: pl.DataFrame, *, title: str) -> Table:
    """A frame as a terminal table; numbers right-aligned, nulls empty, at most 200 rows."""
    table = _table(title)
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left")
    for row in frame.head(SHOWN_ROWS).iter_rows():
        table.add_row(*(_escaped(_text(value)) for value in row))
    if len(frame) > SHOWN_ROWS:
        table.caption = f"{len(frame) - SHOWN_ROWS:,} more rows; use --csv for all"
    return table


def records_table(frame: pl.DataFrame, *, title: str) -> Table:
    """A frame too wide for the terminal: every row as a block of ``column  value`` lines."""
    table = _table(title)
    table.add_column("column", no_wrap=True)
    table.add_column("value", overflow="fold")
    for row in frame.head(SHOWN_ROWS).iter_rows(named=True):
        for position, (name, value) in enumerate(row.items(), start=1):
            table.add_row(name, _escaped(_text(value)), end_section=position == len(row))
    if len(frame) > SHOWN_ROWS:
        table.caption = f"{len(frame) - SHOWN_ROWS:,} more rows; use --csv for all"
    return table


def fits(frame: pl.DataFrame, width: int) -> bool:
    """Whether `frame_table` shows ``frame`` within ``width`` characters without breaking a word."""
    shown = frame.head(SHOWN_ROWS)
    widest = [
        max([cell_len(name), *(cell_len(_text(value)) for value in shown[name])]) for name in frame.columns
    ]
    return sum(widest) + 2 * len(widest) + 1 <= width


def _table(title: str) -> Table:
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )


def _short(reason: str) -> str:
    return reason.replace("unstable variance: ", "")


def _escaped(text: str) -> str:
    return text.replace("[", r"\[")


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return str(value)
