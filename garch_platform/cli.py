"""``garch``: the platform from the shell.

Every command works on one workspace: ``--workspace PATH``, else ``GARCH_WORKSPACE``, else the
configured one. Errors that the platform raises on purpose are printed as one message, exit code 1.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from garch_platform import __version__
from garch_platform.errors import CalendarError, GarchPlatformError

if TYPE_CHECKING:
    from garch_platform.orchestration.launch import Launcher
    from garch_platform.orchestration.planner import KeyRange
    from garch_platform.orchestration.workspace import Workspace

__all__ = ["app", "main"]

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Volatility and pairs research.")
symbols_app = typer.Typer(no_args_is_help=True, help="The registry of symbols that a workspace follows.")
app.add_typer(symbols_app, name="symbols")
console = Console()
errors = Console(stderr=True)

DayOption = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD")]
SymbolsOption = Annotated[str | None, typer.Option(help="Comma-separated; all if left out.", metavar="A,B,…")]


class _State:
    workspace: Path | None = None


def main() -> None:
    """Entry point: run a command, print deliberate errors without a traceback."""
    try:
        app()
    except GarchPlatformError as error:
        errors.print(f"[bold red]error[/] {type(error).__name__}: ", end="")
        errors.print(str(error), markup=False, highlight=False)
        sys.exit(1)


@app.callback()
def _options(
    workspace: Annotated[
        Path | None, typer.Option(help="State folder to work in.", envvar="GARCH_WORKSPACE", metavar="PATH")
    ] = None,
) -> None:
    _State.workspace = workspace


@app.command()
def version() -> None:
    """Print the version."""
    console.print(__version__)


@app.command()
def init() -> None:
    """Create the workspace: folder, database, DAGSTER_HOME, and an empty symbol registry."""
    workspace = _workspace()
    launcher = _launcher(workspace)
    launcher.prepare()
    console.print(f"workspace {workspace.settings.workspace} is ready")
    console.print(
        "next: garch symbols add SYMBOL --sector technology, put bars into its inbox, garch refresh"
    )


@app.command()
def demo(
    root: Annotated[Path, typer.Option(help="Folder of the two demo workspaces.")] = Path(".garch"),
    report: Annotated[Path | None, typer.Option(help="Where to write the HTML report.")] = None,
) -> None:
    """Run the main job end to end on real daily closes and on a simulated market; write a report."""
    from garch_platform.orchestration.demo import DEMOS, found_against_planted, open_demo
    from garch_platform.orchestration.refresh import refresh_plan
    from garch_platform.orchestration.report import write_report
    from garch_platform.orchestration.tables import gate_table, planted_table, top_pairs_table

    workspaces = {name: open_demo(name, root) for name in DEMOS}
    for name, workspace in workspaces.items():
        launcher = _launcher(workspace)
        launcher.prepare()
        console.rule(f"{name}: {len(workspace.symbols())} symbols, {workspace.settings.timeframe} bars")
        _run_all(launcher, refresh_plan(launcher).runs)
        console.print(top_pairs_table(workspace))
        console.print(gate_table(workspace))
    console.print(planted_table(found_against_planted(workspaces["demo-simulated"])))
    path = write_report(list(workspaces.values()), report or root / "report.html")
    console.print(f"\nreport: {path}\nnext:   make ui   (the asset graph at http://127.0.0.1:3000)")


@app.command()
def ui(
    port: Annotated[int, typer.Option(help="Port on the loopback address.")] = 3000,
    host: Annotated[str, typer.Option()] = "127.0.0.1",
) -> None:
    """Serve Dagster's UI and daemon for the workspace until interrupted."""
    from garch_platform.orchestration.serve import serve

    launcher = _launcher(_workspace())
    launcher.prepare()
    console.print(
        f"Dagster UI of {launcher.workspace.settings.workspace}: http://{host}:{port}  (Ctrl-C ends it)"
    )
    raise typer.Exit(serve(launcher, host=host, port=port))


@app.command()
def materialize(
    date: Annotated[str | None, typer.Option(help="One session.", metavar="YYYY-MM-DD")] = None,
    start: DayOption = None,
    end: DayOption = None,
    symbols: SymbolsOption = None,
    history: Annotated[bool, typer.Option("--history", help="The bulk past instead of sessions.")] = False,
    ranking: Annotated[bool, typer.Option(help="Rank the pairs after each session.")] = True,
) -> None:
    """Run the daily job for one session or a range of them, then rank; or load the bulk past."""
    launcher = _launcher(_workspace())
    launcher.prepare()
    names = _names(symbols)
    if history:
        _run_all(launcher, launcher.planner.history(names))
        return
    if date is not None and (start is not None or end is not None):
        raise CalendarError("give either --date or --start and --end, not both")
    if date is None and start is None:
        raise CalendarError("say which session: --date YYYY-MM-DD, or --start and --end")
    first = _day(date or start)
    last = _day(date or end or start)
    runs = launcher.planner.daily(first, last, names)
    if ranking:
        runs += launcher.planner.ranking(first, last)
    _run_all(launcher, runs)


@app.command()
def refresh(
    start: DayOption = None,
    end: DayOption = None,
    again: Annotated[bool, typer.Option("--again", help="Also what is materialised already.")] = False,
) -> None:
    """Run all three jobs for whatever is missing up to the last closed session."""
    from garch_platform.orchestration.refresh import refresh_plan

    launcher = _launcher(_workspace())
    launcher.prepare()
    plan = refresh_plan(launcher, _optional_day(start), _optional_day(end), again=again)
    console.print(f"{len(plan.runs)} runs to do, {plan.present} are there already")
    _run_all(launcher, plan.runs)


@app.command()
def rank(
    date: Annotated[str | None, typer.Option(help="Session; the last one ranked if left out.")] = None,
    top: Annotated[int, typer.Option(min=1)] = 10,
) -> None:
    """Show the ranked pairs of a session and at which gate the others fell."""
    from garch_platform.orchestration.tables import gate_table, top_pairs_table

    workspace = _workspace()
    console.print(top_pairs_table(workspace, _optional_day(date), top=top))
    console.print(gate_table(workspace, _optional_day(date)))


@app.command()
def report(path: Annotated[Path, typer.Argument(help="HTML file to write.")] = Path("report.html")) -> None:
    """Write the self-contained HTML report of the workspace."""
    from garch_platform.orchestration.report import write_report

    console.print(f"report: {write_report([_workspace()], path)}")


@app.command()
def stale(
    run: Annotated[bool, typer.Option("--run", help="Run what is stale again.")] = False,
) -> None:
    """List results whose input bars were revised after they were computed."""
    from garch_platform.orchestration.revisions import stale_results
    from garch_platform.orchestration.tables import frame_table

    workspace = _workspace()
    found = stale_results(workspace)
    console.print(
        "nothing is stale" if found.is_empty() else frame_table(found, title=f"{len(found)} stale results")
    )
    if run and not found.is_empty():
        launcher = _launcher(workspace)
        launcher.prepare()
        _run_all(launcher, launcher.stale_plan())


@app.command()
def retry(
    failed: Annotated[
        str, typer.Option("--failed", help="Session whose failed symbols run again.", metavar="YYYY-MM-DD")
    ],
) -> None:
    """Run the symbols of a session again that have no bars, no verdict or a failed fit."""
    from garch_platform.orchestration.refresh import failed_symbols

    launcher = _launcher(_workspace())
    launcher.prepare()
    day = _day(failed)
    launcher.planner.sessions(day, day)
    names = failed_symbols(launcher, day)
    if not names:
        console.print(f"no symbol failed on {day}")
        return
    console.print(f"{len(names)} symbols of {day}: {', '.join(names)}")
    _run_all(launcher, launcher.planner.daily(day, day, names) + launcher.planner.ranking(day, day))


@app.command()
def status() -> None:
    """Say what the workspace holds: symbols, bars, sessions done, rankings, rejections."""
    from garch_platform.orchestration.tables import status_table

    console.print(status_table(_workspace()))


@app.command()
def doctor() -> None:
    """Check Python, stores, migrations, ports, calendar and data freshness; exit 1 if a check fails."""
    from garch_platform.orchestration.doctor import diagnose
    from garch_platform.orchestration.tables import findings_table

    findings = diagnose(_workspace())
    console.print(findings_table(findings))
    raise typer.Exit(1 if any(finding.level == "error" for finding in findings) else 0)


@app.command()
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over the lake and the database.")],
    as_of: Annotated[str | None, typer.Option(help="What CURRENT_DATE means.", metavar="YYYY-MM-DD")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """Query both stores at once with DuckDB's SQL, read-only."""
    from garch_platform.orchestration.tables import frame_table
    from garch_platform.store.sql import query as run_query

    workspace = _workspace()
    rows = run_query(query, lake=workspace.lake, database=workspace.database, as_of=_optional_day(as_of))
    if csv:
        sys.stdout.write(rows.write_csv())
    else:
        console.print(frame_table(rows, title=f"{len(rows)} rows"))


@symbols_app.command("list")
def symbols_list() -> None:
    """The registry, as the YAML file has it."""
    from garch_platform.orchestration.tables import frame_table

    console.print(frame_table(_workspace().registry.entries(), title="symbols.yaml"))


@symbols_app.command("status")
def symbols_status() -> None:
    """Which symbols have data, since when and how many bars."""
    from garch_platform.orchestration.tables import symbols_table

    console.print(symbols_table(_workspace()))


@symbols_app.command("add")
def symbols_add(
    symbols: Annotated[list[str], typer.Argument(metavar="SYMBOL…")],
    sector: Annotated[str | None, typer.Option(help="Looked up if left out.")] = None,
    name: Annotated[str | None, typer.Option(help="Looked up if left out.")] = None,
) -> None:
    """Add symbols to the registry; their past is loaded by the next refresh (or by the sensor)."""
    workspace = _workspace()
    launcher = _launcher(workspace)
    known = workspace.describe(symbols)
    for symbol in symbols:
        entry = known.get(symbol, {})
        workspace.registry.add(
            symbol,
            name=name or entry.get("name"),
            sector=sector or entry.get("sector"),
            asset_class=entry.get("asset_class") or "equity",
        )
    launcher.prepare()
    console.print(f"added {', '.join(symbols)}; next: garch refresh")


@symbols_app.command("remove")
def symbols_remove(symbols: Annotated[list[str], typer.Argument(metavar="SYMBOL…")]) -> None:
    """Take symbols out of the registry and retire their keys; stored rows stay."""
    workspace = _workspace()
    launcher = _launcher(workspace)
    for symbol in symbols:
        workspace.registry.remove(symbol)
    launcher.prepare()
    console.print(f"removed {', '.join(symbols)}; their rows are kept")


@symbols_app.command("sync")
def symbols_sync() -> None:
    """Bring the symbols table and Dagster's keys in line with the registry file."""
    added, retired = _launcher(_workspace()).prepare()
    console.print(f"added: {', '.join(added) or 'none'}; retired: {', '.join(retired) or 'none'}")


def _workspace() -> Workspace:
    from garch_platform.orchestration.workspace import Workspace
    from garch_platform.settings import load_settings

    return Workspace(load_settings(_State.workspace))


def _launcher(workspace: Workspace) -> Launcher:
    from garch_platform.orchestration.launch import Launcher

    return Launcher(workspace)


def _run_all(launcher: Launcher, runs: list[KeyRange]) -> None:
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
    )

    columns = [
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    ]
    failed = []
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("nothing to run" if not runs else f"{runs[0].job}", total=len(runs))
        for number, outcome in enumerate(launcher.run(runs), start=1):
            following = runs[number] if number < len(runs) else None
            progress.update(
                task, advance=1, description=f"{following.job} {following.label}" if following else "done"
            )
            if not outcome.success:
                failed.append(outcome)
                progress.console.print(f"[red]failed[/] {outcome.planned.job} {outcome.planned.label}")
                progress.console.print(outcome.message, markup=False, highlight=False)
    if failed:
        raise GarchPlatformError(
            f"{len(failed)} of {len(runs)} runs failed; see above, or the runs page of `garch ui`"
        )


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _day(text: str | None) -> date:
    try:
        return date.fromisoformat(text or "")
    except ValueError:
        raise CalendarError(f"{text!r} is not a date; write it as YYYY-MM-DD") from None


def _optional_day(text: str | None) -> date | None:
    return None if text is None else _day(text)
