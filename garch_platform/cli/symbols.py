"""``garch symbols``: the registry of symbols that a workspace follows."""

from __future__ import annotations

from typing import Annotated

import typer

from garch_platform.cli.console import (
    SymbolArguments,
    day_of,
    open_launcher,
    open_workspace,
    say,
    show,
    show_frame,
)

__all__ = ["app"]

app = typer.Typer(no_args_is_help=True, help="The registry of symbols that a workspace follows.")


@app.command("list")
def symbols_list() -> None:
    """The registry, as the YAML file has it."""
    registry = open_workspace().registry
    show_frame(registry.entries(), title=str(registry.path))


@app.command("status")
def symbols_status() -> None:
    """The live edge (mode, server, replay, proxies), and which symbols have data, since when, how much."""
    from garch_platform.orchestration.tables import symbols_table
    from garch_platform.workspace.live_tables import edge_table

    workspace = open_workspace()
    show(edge_table(workspace))
    show(symbols_table(workspace))


@app.command("pairs")
def symbols_pairs() -> None:
    """Let the live edge follow the legs of the pairs that passed on the last ranked session."""
    from garch_platform.workspace.live_symbols import pair_symbols

    _follow(pair_symbols(open_workspace()))


@app.command("testing")
def symbols_testing() -> None:
    """Let the live edge follow a few symbols only (websocket.testing_symbols), to try it out."""
    from garch_platform.workspace.live_symbols import trial_symbols

    _follow(trial_symbols(open_workspace()))


@app.command("all")
def symbols_all() -> None:
    """Let the live edge follow every active symbol again."""
    _follow([])


@app.command("add")
def symbols_add(
    symbols: SymbolArguments,
    sector: Annotated[str | None, typer.Option(help="Looked up if left out.")] = None,
    name: Annotated[str | None, typer.Option(help="Looked up if left out.")] = None,
) -> None:
    """Add symbols to the registry; their past is loaded by the next refresh (or by the sensor)."""
    from garch_platform.workspace.new_symbols import register, unranked

    workspace = open_workspace()
    entries = register(workspace, symbols, sector=sector, name=name)
    open_launcher(workspace).prepare()
    for note in unranked(workspace, entries):
        say(f"[yellow]note[/] {note}")
    say(f"added {', '.join(symbols)}; next: garch refresh")


@app.command("remove")
def symbols_remove(symbols: SymbolArguments) -> None:
    """Take symbols out of the registry and retire their keys; stored rows stay."""
    workspace = open_workspace()
    for symbol in symbols:
        workspace.registry.remove(symbol)
    open_launcher(workspace).prepare()
    say(f"removed {', '.join(symbols)}; their rows are kept")


@app.command("retire")
def symbols_retire(
    symbols: SymbolArguments,
    on: Annotated[str, typer.Option(help="First day without trading.", metavar="YYYY-MM-DD")],
) -> None:
    """Note that symbols stop trading on a day; they keep their place in the registry."""
    workspace = open_workspace()
    for symbol in symbols:
        workspace.registry.retire(symbol, day_of(on))
    open_launcher(workspace).prepare()
    say(f"retired {', '.join(symbols)} on {on}")


@app.command("sync")
def symbols_sync() -> None:
    """Bring the symbols table and Dagster's keys in line with the registry file."""
    added, retired = open_launcher(open_workspace()).prepare()
    say(f"added: {', '.join(added) or 'none'}; retired: {', '.join(retired) or 'none'}")


def _follow(symbols: list[str]) -> None:
    from garch_platform.stream.status import read_status
    from garch_platform.workspace.live_symbols import follow_only
    from garch_platform.workspace.live_tables import edge_table

    workspace = open_workspace()
    follow_only(workspace, symbols)
    show(edge_table(open_workspace()))
    status = read_status(workspace.settings.workspace)
    if status is not None and status.is_running:
        say(
            f"[yellow]note[/] the stream client runs as process {status.pid}: it follows them when started again"
        )
