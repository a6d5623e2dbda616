"""``garch``: the platform from the shell.

Every command works on one workspace: ``--workspace PATH``, else ``GARCH_WORKSPACE``, else the
configured one. Errors that the platform raises on purpose are printed as one message, exit code 1.
On a terminal tables fit its width; elsewhere (a pipe, a file) every row stays on one line.
"""

from __future__ import annotations

import sys
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer
from rich.console import Console, RenderableType
from rich.measure import Measurement

from garch_platform import __version__
from garch_platform.errors import CalendarError, ConfigurationError, GarchPlatformError

if TYPE_CHECKING:
    import polars as pl

    from garch_platform.orchestration.launch import Launcher
    from garch_platform.orchestration.planner import KeyRange
    from garch_platform.orchestration.workspace import Workspace

__all__ = ["app", "main"]

HELP = "Volatility and pairs research: bars, features, stability, GARCH fits, ranked pairs."
START, RUN, LOOK, MEND = "Start", "Run", "Look", "Mend"
UNREADABLE_WIDTH = 120
"""Columns to assume where no terminal says how wide it is."""

app = typer.Typer(no_args_is_help=True, add_completion=False, help=HELP, rich_markup_mode="rich")
symbols_app = typer.Typer(no_args_is_help=True, help="The registry of symbols that a workspace follows.")
app.add_typer(symbols_app, name="symbols", rich_help_panel=START)
console = Console()
errors = Console(stderr=True)

DayOption = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD")]
SymbolsOption = Annotated[str | None, typer.Option(help="Comma-separated; all if left out.", metavar="A,B,…")]
SymbolArguments = Annotated[list[str], typer.Argument(metavar="SYMBOL…")]


class _State:
    workspace: Path | None = None


def main() -> None:
    """Entry point: run a command, print deliberate errors without a traceback."""
    try:
        app()
    except GarchPlatformError as error:
        _fail(type(error).__name__, str(error))
    except PermissionError as error:
        _fail(
            "PermissionError", f"{error.filename} cannot be used ({error.strerror}); check the folder's owner"
        )


def _fail(kind: str, message: str) -> NoReturn:
    soft = not errors.is_terminal
    errors.print(f"[bold red]error[/] {kind}: ", end="", soft_wrap=soft)
    errors.print(message, markup=False, highlight=False, soft_wrap=soft)
    sys.exit(1)


@app.callback()
def _options(
    workspace: Annotated[
        Path | None, typer.Option(help="State folder to work in.", envvar="GARCH_WORKSPACE", metavar="PATH")
    ] = None,
) -> None:
    _State.workspace = workspace


@app.command(rich_help_panel=START)
def init() -> None:
    """Create the workspace: settings.yaml to edit, inbox, database, DAGSTER_HOME."""
    from garch_platform.orchestration.new_workspace import create

    workspace = _workspace(new=True)
    settings_file, written = create(workspace.settings)
    _launcher(workspace).prepare()
    _say(f"workspace   {workspace.settings.workspace}")
    _say(f"settings    {settings_file}" + ("" if written else "  (kept as it is)"))
    _say(f"bars        {workspace.settings.files_path}  (Parquet or CSV; files.path in the settings)")
    _say("next        edit the settings, then: garch symbols add SYMBOL..., garch refresh")


@app.command(rich_help_panel=START)
def demo(
    root: Annotated[Path, typer.Option(help="Folder of the two demo workspaces.")] = Path(".garch"),
    report: Annotated[Path | None, typer.Option(help="Where to write the HTML report.")] = None,
) -> None:
    """Run the main job end to end on real daily closes and on a simulated market; write a report."""
    from garch_platform.orchestration.demo import DEMOS, found_against_planted, open_demo
    from garch_platform.orchestration.outcomes import RankingOutcome
    from garch_platform.orchestration.refresh import refresh_plan
    from garch_platform.orchestration.report import write_report
    from garch_platform.orchestration.tables import CHANCE_NOTE, gate_table, planted_table, top_pairs_table

    workspaces = {name: open_demo(name, root) for name in DEMOS}
    for name, workspace in workspaces.items():
        launcher = _launcher(workspace)
        launcher.prepare()
        _say(f"\n[bold]{name}[/]: {DEMOS[name]}, {len(workspace.symbols())} symbols")
        _run_all(launcher, refresh_plan(launcher).runs)
        outcome = RankingOutcome.of(workspace)
        _show(top_pairs_table(outcome))
        _show(gate_table(outcome))
        _say(outcome.trials())
    _show(planted_table(found_against_planted(workspaces["demo-simulated"])))
    _say(f"[yellow]{CHANCE_NOTE}[/]")
    path = write_report(list(workspaces.values()), report or root / "report.html")
    _say(f"\nreport: {path}\nnext:   make ui   (the asset graph on http://127.0.0.1:3000)")


@app.command(rich_help_panel=START)
def ui(
    port: Annotated[
        int, typer.Option(help="Port to serve on.", min=1, max=65535, envvar="GARCH_UI_PORT")
    ] = 3000,
    host: Annotated[str, typer.Option(help="Address to serve on.")] = "127.0.0.1",
) -> None:
    """Serve Dagster's UI and daemon for the workspace until interrupted."""
    from garch_platform.orchestration.serve import require_free_port, serve

    require_free_port(host, port)
    launcher = _launcher(_workspace())
    launcher.prepare()
    _say(f"Dagster UI of {launcher.workspace.settings.workspace}: http://{host}:{port}  (Ctrl-C ends it)")
    raise typer.Exit(serve(launcher, host=host, port=port))


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


@app.command(rich_help_panel=RUN)
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
    _say(f"{len(plan.runs)} runs to do, {plan.present} are there already")
    _run_all(launcher, plan.runs)


@app.command("advance-start", rich_help_panel=MEND)
def advance_start() -> None:
    """After trading_days.start was moved: hand the sessions before it to the bulk past and load it again."""
    workspace = _workspace()
    workspace.prepare()
    moved = workspace.advance_start()
    start = workspace.settings.trading_days.start
    console.print(f"{len(moved)} symbols: the bulk past now ends before {start}")
    if moved:
        launcher = _launcher(workspace)
        launcher.prepare()
        _run_all(launcher, launcher.planner.history(moved))


@app.command(rich_help_panel=MEND)
def maintain(
    before: Annotated[str, typer.Option(help="Compact periods that ended before.", metavar="YYYY-MM-DD")],
) -> None:
    """Compact the lake's closed periods and drop files past reproducibility_days; rows do not change."""
    for table in _workspace().lake.maintain(_day(before)):
        console.print(table)


@app.command(rich_help_panel=LOOK)
def rank(
    date: Annotated[str | None, typer.Option(help="Session; the last one ranked if left out.")] = None,
    top: Annotated[int, typer.Option(min=1)] = 10,
) -> None:
    """Show the best pairs of a session, and at which gate the others fell."""
    from garch_platform.orchestration.outcomes import RankingOutcome
    from garch_platform.orchestration.tables import CHANCE_NOTE, gate_table, top_pairs_table

    outcome = RankingOutcome.of(_workspace(), _optional_day(date))
    _show(top_pairs_table(outcome, top=top))
    _show(gate_table(outcome))
    _say(f"{outcome.trials()}\n[yellow]{CHANCE_NOTE}[/]")


@app.command(rich_help_panel=LOOK)
def report(path: Annotated[Path, typer.Argument(help="HTML file to write.")] = Path("report.html")) -> None:
    """Write the self-contained HTML report of the workspace."""
    from garch_platform.orchestration.report import write_report

    _say(f"report: {write_report([_workspace()], path)}")


@app.command(rich_help_panel=MEND)
def stale(
    run: Annotated[bool, typer.Option("--run", help="Run what is stale again.")] = False,
) -> None:
    """List results whose input bars were revised after they were computed."""
    from garch_platform.orchestration.revisions import stale_results
    from garch_platform.orchestration.tables import frame_table

    workspace = _workspace()
    found = stale_results(workspace)
    if found.is_empty():
        _say("nothing is stale")
    else:
        _show(
            frame_table(found, title=f"{len(found)} stale results; garch stale --run brings them up to date")
        )
    if run and not found.is_empty():
        launcher = _launcher(workspace)
        launcher.prepare()
        _run_all(launcher, launcher.stale_plan())


@app.command(rich_help_panel=MEND)
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
        _say(f"no symbol failed on {day}")
        return
    _say(f"{len(names)} symbols of {day}: {', '.join(names)}")
    _run_all(launcher, launcher.planner.daily(day, day, names) + launcher.planner.ranking(day, day))


@app.command(rich_help_panel=LOOK)
def status() -> None:
    """Say what the workspace holds: symbols, bars, sessions done, rankings, rejections."""
    from garch_platform.orchestration.tables import status_table

    _show(status_table(_workspace()))


@app.command(rich_help_panel=MEND)
def doctor() -> None:
    """Check Python, stores, migrations, ports, calendar and data freshness; exit 1 if a check fails."""
    from garch_platform.orchestration.doctor import diagnose
    from garch_platform.orchestration.tables import findings_table

    findings = diagnose(_workspace(new=True))
    _show(findings_table(findings))
    raise typer.Exit(1 if any(finding.level == "error" for finding in findings) else 0)


@app.command(rich_help_panel=LOOK)
def sql(
    query: Annotated[str, typer.Argument(help="One SELECT over the lake and the database.")],
    as_of: Annotated[str | None, typer.Option(help="What CURRENT_DATE means.", metavar="YYYY-MM-DD")] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print CSV instead of a table.")] = False,
) -> None:
    """Query both stores at once with DuckDB's SQL, read-only."""
    from garch_platform.store.sql import query as run_query

    workspace = _workspace()
    rows = run_query(query, lake=workspace.lake, database=workspace.database, as_of=_optional_day(as_of))
    if csv:
        sys.stdout.write(rows.write_csv())
    else:
        _show_frame(rows, title=f"{len(rows):,} rows")


@app.command(rich_help_panel=MEND)
def version() -> None:
    """Print the version."""
    console.print(__version__)


@symbols_app.command("list")
def symbols_list() -> None:
    """The registry, as the YAML file has it."""
    registry = _workspace().registry
    _show_frame(registry.entries(), title=str(registry.path))


@symbols_app.command("status")
def symbols_status() -> None:
    """Which symbols have data, since when and how many bars."""
    from garch_platform.orchestration.tables import symbols_table

    _show(symbols_table(_workspace()))


@symbols_app.command("add")
def symbols_add(
    symbols: SymbolArguments,
    sector: Annotated[str | None, typer.Option(help="Looked up if left out.")] = None,
    name: Annotated[str | None, typer.Option(help="Looked up if left out.")] = None,
) -> None:
    """Add symbols to the registry; their past is loaded by the next refresh (or by the sensor)."""
    from garch_platform.orchestration.new_symbols import register, unranked

    workspace = _workspace()
    entries = register(workspace, symbols, sector=sector, name=name)
    _launcher(workspace).prepare()
    for note in unranked(workspace, entries):
        _say(f"[yellow]note[/] {note}")
    _say(f"added {', '.join(symbols)}; next: garch refresh")


@symbols_app.command("remove")
def symbols_remove(symbols: SymbolArguments) -> None:
    """Take symbols out of the registry and retire their keys; stored rows stay."""
    workspace = _workspace()
    for symbol in symbols:
        workspace.registry.remove(symbol)
    _launcher(workspace).prepare()
    _say(f"removed {', '.join(symbols)}; their rows are kept")


@symbols_app.command("retire")
def symbols_retire(
    symbols: SymbolArguments,
    on: Annotated[str, typer.Option(help="First day without trading.", metavar="YYYY-MM-DD")],
) -> None:
    """Note that symbols stop trading on a day; they keep their place in the registry."""
    workspace = _workspace()
    for symbol in symbols:
        workspace.registry.retire(symbol, _day(on))
    _launcher(workspace).prepare()
    _say(f"retired {', '.join(symbols)} on {on}")


@symbols_app.command("sync")
def symbols_sync() -> None:
    """Bring the symbols table and Dagster's keys in line with the registry file."""
    added, retired = _launcher(_workspace()).prepare()
    _say(f"added: {', '.join(added) or 'none'}; retired: {', '.join(retired) or 'none'}")


def _workspace(*, new: bool = False) -> Workspace:
    from garch_platform.orchestration.workspace import Workspace
    from garch_platform.settings import load_settings

    settings = load_settings(_State.workspace)
    if not new and not settings.workspace.is_dir():
        raise ConfigurationError(
            f"there is no workspace {settings.workspace}; create it with `garch --workspace "
            f"{settings.workspace} init`, or name another one (--workspace PATH or GARCH_WORKSPACE)"
        )
    return Workspace(settings)


def _launcher(workspace: Workspace) -> Launcher:
    from garch_platform.orchestration.launch import Launcher

    return Launcher(workspace)


def _run_all(launcher: Launcher, runs: list[KeyRange]) -> None:
    from garch_platform.orchestration.progress import run_plan

    run_plan(launcher, runs, console)


def _say(text: str) -> None:
    console.print(text, highlight=False, soft_wrap=not console.is_terminal)


def _show(renderable: RenderableType) -> None:
    console.print()
    if console.is_terminal:
        console.print(renderable)
        return
    unbounded = console.options.update(width=100 * UNREADABLE_WIDTH)
    natural = Measurement.get(console, unbounded, renderable).maximum
    Console(width=max(UNREADABLE_WIDTH, natural)).print(renderable)


def _show_frame(frame: pl.DataFrame, *, title: str) -> None:
    from garch_platform.orchestration.tables import fits, frame_table, records_table

    as_table = not console.is_terminal or fits(frame, console.width)
    _show((frame_table if as_table else records_table)(frame, title=title))


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def _day(text: str | None) -> date:
    try:
        return date.fromisoformat(text or "")
    except ValueError:
        raise CalendarError(f"{text!r} is not a date; write it as YYYY-MM-DD") from None


def _optional_day(text: str | None) -> date | None:
    return None if text is None else _day(text)
