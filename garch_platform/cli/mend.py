"""Commands that find and repair."""

from __future__ import annotations

from typing import Annotated

import typer

from garch_platform import __version__
from garch_platform.cli.console import (
    MEND,
    console,
    day_of,
    open_launcher,
    open_workspace,
    run_all,
    say,
    show,
)

__all__ = ["app"]

app = typer.Typer()


@app.command("advance-start", rich_help_panel=MEND)
def advance_start() -> None:
    """After trading_days.start was moved: hand the sessions before it to the bulk past and load it again."""
    workspace = open_workspace()
    workspace.prepare()
    moved = workspace.advance_start()
    start = workspace.settings.trading_days.start
    console.print(f"{len(moved)} symbols: the bulk past now ends before {start}")
    if moved:
        launcher = open_launcher(workspace)
        launcher.prepare()
        run_all(launcher, launcher.planner.history(moved))


@app.command(rich_help_panel=MEND)
def maintain(
    before: Annotated[str, typer.Option(help="Compact periods that ended before.", metavar="YYYY-MM-DD")],
) -> None:
    """Compact the lake's closed periods and drop files past reproducibility_days; rows do not change."""
    for table in open_workspace().lake.maintain(day_of(before)):
        console.print(table)


@app.command(rich_help_panel=MEND)
def stale(
    run: Annotated[bool, typer.Option("--run", help="Run what is stale again.")] = False,
) -> None:
    """List results whose input bars were revised after they were computed."""
    from garch_platform.reporting.tables import frame_table
    from garch_platform.workspace.revisions import stale_results

    workspace = open_workspace()
    found = stale_results(workspace)
    if found.is_empty():
        say("nothing is stale")
    else:
        show(
            frame_table(found, title=f"{len(found)} stale results; garch stale --run brings them up to date")
        )
    if run and not found.is_empty():
        launcher = open_launcher(workspace)
        launcher.prepare()
        run_all(launcher, launcher.stale_plan())


@app.command(rich_help_panel=MEND)
def retry(
    failed: Annotated[
        str, typer.Option("--failed", help="Session whose failed symbols run again.", metavar="YYYY-MM-DD")
    ],
) -> None:
    """Run the symbols of a session again that have no bars, no verdict or a failed fit."""
    from garch_platform.orchestration.refresh import failed_symbols

    launcher = open_launcher(open_workspace())
    launcher.prepare()
    day = day_of(failed)
    launcher.planner.sessions(day, day)
    names = failed_symbols(launcher, day)
    if not names:
        say(f"no symbol failed on {day}")
        return
    say(f"{len(names)} symbols of {day}: {', '.join(names)}")
    run_all(launcher, launcher.planner.daily(day, day, names) + launcher.planner.ranking(day, day))


@app.command(rich_help_panel=MEND)
def doctor() -> None:
    """Check Python, stores, migrations, ports, calendar and data freshness; exit 1 if a check fails."""
    from garch_platform.orchestration.doctor import diagnose
    from garch_platform.orchestration.tables import findings_table

    findings = diagnose(open_workspace(new=True))
    show(findings_table(findings))
    raise typer.Exit(1 if any(finding.level == "error" for finding in findings) else 0)


@app.command(rich_help_panel=MEND)
def version() -> None:
    """Print the version."""
    console.print(__version__)
