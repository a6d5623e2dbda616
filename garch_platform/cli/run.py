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
    show,
)
from garch_platform.errors import CalendarError, ConfigurationError

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


@app.command(rich_help_panel=RUN)
def replay(
    start: DayOption = None,
    end: DayOption = None,
    symbols: SymbolsOption = None,
    speed: Annotated[str | None, typer.Option(help="A factor (1.0 = one bar a minute), or max.")] = None,
    clock: Annotated[str | None, typer.Option(help="historical or live.")] = None,
    attach: Annotated[bool, typer.Option("--attach", help="To the recycler that is running.")] = False,
) -> None:
    """Run recycler_job: stored sessions through recycler and stream client, and what arrived of them."""
    from garch_platform.orchestration.jobs import RECYCLER_JOB
    from garch_platform.orchestration.planner import KeyRange
    from garch_platform.workspace.live_tables import replay_table

    launcher = open_launcher(open_workspace())
    launcher.prepare()
    planned = KeyRange.whole(
        RECYCLER_JOB,
        start_date=start,
        end_date=end,
        symbols=names_of(symbols),
        speed=speed,
        clock=clock,
        attach=attach or None,
    )
    run_all(launcher, [planned])
    show(replay_table(launcher.workspace))


@app.command(rich_help_panel=RUN)
def job(
    name: Annotated[str, typer.Argument(help="hourly_history_job, yahoo_job or symbol_maintenance_job.")],
    symbols: SymbolsOption = None,
) -> None:
    """Run one of the vendors' jobs now: hourly history, Yahoo's data, the maintenance of symbols."""
    from garch_platform.orchestration.jobs import HOURLY_JOB, MAINTENANCE_JOB, YAHOO_JOB
    from garch_platform.orchestration.planner import KeyRange

    known = (HOURLY_JOB, YAHOO_JOB, MAINTENANCE_JOB)
    if name not in known:
        raise ConfigurationError(f"job {name!r} cannot be run here; use one of {', '.join(known)}")
    launcher = open_launcher(open_workspace())
    launcher.prepare()
    by_symbol = name != MAINTENANCE_JOB
    runs = launcher.planner.of_symbols(name, names_of(symbols)) if by_symbol else [KeyRange.whole(name)]
    run_all(launcher, runs)
