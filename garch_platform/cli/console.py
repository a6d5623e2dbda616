"""What every command shares: the console, the chosen workspace, dates and lists as typed."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console, RenderableType
from rich.measure import Measurement

from garch_platform.errors import CalendarError, ConfigurationError

if TYPE_CHECKING:
    import polars as pl

    from garch_platform.orchestration.launch import Launcher
    from garch_platform.orchestration.planner import KeyRange
    from garch_platform.reporting.selection import SelectionView
    from garch_platform.workspace import Workspace

__all__ = [
    "LIVE",
    "LOOK",
    "MEND",
    "RUN",
    "START",
    "DayOption",
    "State",
    "SymbolArguments",
    "SymbolsOption",
    "console",
    "day_of",
    "errors",
    "names_of",
    "open_launcher",
    "open_workspace",
    "optional_day",
    "run_all",
    "say",
    "show",
    "show_frame",
    "show_selection",
]

START, RUN, LOOK, LIVE, MEND = "Start", "Run", "Look", "Live", "Mend"
"""Panels of the help page."""
UNREADABLE_WIDTH = 120
"""Columns to assume where no terminal says how wide it is."""

console = Console()
errors = Console(stderr=True)

DayOption = Annotated[str | None, typer.Option(metavar="YYYY-MM-DD")]
SymbolsOption = Annotated[str | None, typer.Option(help="Comma-separated; all if left out.", metavar="A,B,…")]
SymbolArguments = Annotated[list[str], typer.Argument(metavar="SYMBOL…")]


class State:
    """Options that stand before the command."""

    workspace: Path | None = None


def open_workspace(*, new: bool = False) -> Workspace:
    """The chosen workspace; an error where it does not exist, unless it is about to be made."""
    from garch_platform.settings import load_settings
    from garch_platform.workspace import Workspace

    settings = load_settings(State.workspace)
    if not new and not settings.workspace.is_dir():
        raise ConfigurationError(
            f"there is no workspace {settings.workspace}; create it with `garch --workspace "
            f"{settings.workspace} init`, or name another one (--workspace PATH or GARCH_WORKSPACE)"
        )
    return Workspace(settings)


def open_launcher(workspace: Workspace) -> Launcher:
    """The launcher of a workspace."""
    from garch_platform.orchestration.launch import Launcher

    return Launcher(workspace)


def run_all(launcher: Launcher, runs: list[KeyRange]) -> None:
    """Run planned runs one after the other, with progress."""
    from garch_platform.orchestration.progress import run_plan

    run_plan(launcher, runs, console)


def say(text: str) -> None:
    """Print a line."""
    console.print(text, highlight=False, soft_wrap=not console.is_terminal)


def show(renderable: RenderableType) -> None:
    """Print a table; where there is no terminal, as wide as it needs."""
    console.print()
    if console.is_terminal:
        console.print(renderable)
        return
    unbounded = console.options.update(width=100 * UNREADABLE_WIDTH)
    natural = Measurement.get(console, unbounded, renderable).maximum
    Console(width=max(UNREADABLE_WIDTH, natural)).print(renderable)


def show_frame(frame: pl.DataFrame, *, title: str) -> None:
    """Print a frame as a table, or as blocks of lines where it is too wide."""
    from garch_platform.reporting.tables import fits, frame_table, records_table

    as_table = not console.is_terminal or fits(frame, console.width)
    show((frame_table if as_table else records_table)(frame, title=title))


def show_selection(view: SelectionView, *, title: str, top: int = 10, note: str = "") -> None:
    """Print the best pairs, where the others fell, and how the counts compare with chance."""
    from garch_platform.reporting.selection import CHANCE_NOTE, gate_table, pairs_table

    show(pairs_table(view, title=title, top=top))
    gates = gate_table(view)
    gates.caption = note or None
    show(gates)
    for line in (*view.stages(), f"[yellow]{CHANCE_NOTE}[/]"):
        say(line)


def names_of(text: str | None) -> list[str] | None:
    """Names of a comma-separated list."""
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


def day_of(text: str | None) -> date:
    """A date written as YYYY-MM-DD."""
    try:
        return date.fromisoformat(text or "")
    except ValueError:
        raise CalendarError(f"{text!r} is not a date; write it as YYYY-MM-DD") from None


def optional_day(text: str | None) -> date | None:
    """`day_of`, or None."""
    return None if text is None else day_of(text)
