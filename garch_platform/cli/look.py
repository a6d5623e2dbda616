"""Commands that show what the stores hold."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from garch_platform.cli.console import (
    LOOK,
    open_workspace,
    optional_day,
    say,
    show,
    show_frame,
    show_selection,
)

__all__ = ["app"]

app = typer.Typer()


@app.command(rich_help_panel=LOOK)
def rank(
    date: Annotated[str | None, typer.Option(help="Session; the last one ranked if left out.")] = None,
    top: Annotated[int, typer.Option(min=1)] = 10,
) -> None:
    """Show the best pairs of a session, and at which gate the others fell."""
    from garch_platform.orchestration.tables import left_out_text
    from garch_platform.workspace.outcomes import RankingOutcome

    outcome = RankingOutcome.of(open_workspace(), optional_day(date))
    show_selection(outcome.view, title=f"Pairs of {outcome.day}", top=top, note=left_out_text(outcome))


@app.command(rich_help_panel=LOOK)
def report(path: Annotated[Path, typer.Argument(help="HTML file to write.")] = Path("report.html")) -> None:
    """Write the self-contained HTML report of the workspace."""
    from garch_platform.workspace.report import write_report

    say(f"report: {write_report([open_workspace()], path)}")


@app.command(rich_help_panel=LOOK)
def status() -> None:
    """Say what the workspace holds: symbols, bars, sessions done, rankings, rejections."""
    from garch_platform.orchestration.tables import status_table

    show(status_table(open_workspace()))


@app.command(rich_help_panel=LOOK)
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over the lake and the database.")],
    as_of: Annotated[str | None, typer.Option(help="What CURRENT_DATE means.", metavar="YYYY-MM-DD")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """Query both stores at once with DuckDB's SQL, read-only."""
    from garch_platform.store.sql import query as run_query

    workspace = open_workspace()
    rows = run_query(query, lake=workspace.lake, database=workspace.database, as_of=optional_day(as_of))
    if csv:
        sys.stdout.write(rows.write_csv())
    else:
        show_frame(rows, title=f"{len(rows):,} rows")
