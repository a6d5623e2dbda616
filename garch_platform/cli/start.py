"""Commands that begin: a workspace, the demo, the UI."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from garch_platform.cli.console import (
    START,
    open_launcher,
    open_workspace,
    run_all,
    say,
    show,
    show_selection,
)

__all__ = ["app"]

app = typer.Typer()


@app.command(rich_help_panel=START)
def init() -> None:
    """Create the workspace: settings.yaml to edit, inbox, database, DAGSTER_HOME."""
    from garch_platform.workspace.new_workspace import create

    workspace = open_workspace(new=True)
    settings_file, written = create(workspace.settings)
    open_launcher(workspace).prepare()
    say(f"workspace   {workspace.settings.workspace}")
    say(f"settings    {settings_file}" + ("" if written else "  (kept as it is)"))
    say(f"bars        {workspace.settings.files_path}  (Parquet or CSV; files.path in the settings)")
    say("next        edit the settings, then: garch symbols add SYMBOL..., garch refresh")


@app.command(rich_help_panel=START)
def demo(
    root: Annotated[Path, typer.Option(help="Folder of the two demo workspaces.")] = Path(".garch"),
    report: Annotated[Path | None, typer.Option(help="Where to write the HTML report.")] = None,
) -> None:
    """Run the main job end to end on real daily closes and on a simulated market; write a report."""
    from garch_platform.orchestration.refresh import refresh_plan
    from garch_platform.orchestration.tables import left_out_text, planted_table
    from garch_platform.workspace.demo import DEMOS, found_against_planted, open_demo
    from garch_platform.workspace.outcomes import RankingOutcome
    from garch_platform.workspace.report import write_report

    workspaces = {name: open_demo(name, root) for name in DEMOS}
    for name, workspace in workspaces.items():
        launcher = open_launcher(workspace)
        launcher.prepare()
        say(f"\n[bold]{name}[/]: {DEMOS[name]}, {len(workspace.symbols())} symbols")
        run_all(launcher, refresh_plan(launcher).runs)
        outcome = RankingOutcome.of(workspace)
        show_selection(outcome.view, title=f"Pairs of {outcome.day}", note=left_out_text(outcome))
    show(planted_table(found_against_planted(workspaces["demo-simulated"])))
    path = write_report(list(workspaces.values()), report or root / "report.html")
    say(f"\nreport: {path}\nnext:   make ui   (the asset graph on http://127.0.0.1:3000)")


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
    launcher = open_launcher(open_workspace())
    launcher.prepare()
    say(f"Dagster UI of {launcher.workspace.settings.workspace}: http://{host}:{port}  (Ctrl-C ends it)")
    raise typer.Exit(serve(launcher, host=host, port=port))
