"""Commands that run jobs."""

from __future__ import annotations

from typing import Annotated

import typer

from garch_platform.cli.console import (
    RUN,
    DayOption,
    SymbolsOption,
    day_of,
    names_of,
    open_launcher,
    open_workspace,
    optional_day,
    run_all,
    say,
)
from garch_platform.errors import CalendarError

__all__ = ["app"]

app = typer.Typer()


@app.command(rich_help_panel=RUN)
def materialize(
    date: Annotated[str | None, typer.Option(help="One session.", metavar="YYYY-MM-DD")] = None,
    start: DayOption = None,
    end: DayOption = None,
    symbols: SymbolsOption = None,
    history: Annotated[bool, typer.Option("--history", help="The bulk past instead of sessions.")] = False,
    ranking: Annotated[bool, typer.Option(help="Rank the pairs after each session.")] = True,
) -> None:
    """Run the daily job for one session or a range of them, then rank; or load the bulk past."""
    launcher = open_launcher(open_workspace())
    launcher.prepare()
    names = names_of(symbols)
    if history:
        run_all(launcher, launcher.planner.history(names))
        return
    if date is not None and (start is not None or end is not None):
        raise CalendarError("give either --date or --start and --end, not both")
    if date is None and start is None:
        raise CalendarError("say which session: --date YYYY-MM-DD, or --start and --end")
    first = day_of(date or start)
    last = day_of(date or end or start)
    runs = launcher.planner.daily(first, last, names)
    if ranking:
        runs += launcher.planner.ranking(first, last)
    run_all(launcher, runs)


@app.command(rich_help_panel=RUN)
def refresh(
    start: DayOption = None,
    end: DayOption = None,
    again: Annotated[bool, typer.Option("--again", help="Also what is materialised already.")] = False,
) -> None:
    """Run all three jobs for whatever is missing up to the last closed session."""
    from garch_platform.orchestration.refresh import refresh_plan

    launcher = open_launcher(open_workspace())
    launcher.prepare()
    plan = refresh_plan(launcher, optional_day(start), optional_day(end), again=again)
    say(f"{len(plan.runs)} runs to do, {plan.present} are there already")
    run_all(launcher, plan.runs)
