"""``garch``: the platform from the shell.

Every command works on one workspace: ``--workspace PATH``, else ``GARCH_WORKSPACE``, else the
configured one. Errors that the platform raises on purpose are printed as one message, exit code 1.
On a terminal tables fit its width; elsewhere (a pipe, a file) every row stays on one line.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from garch_platform.cli import live, look, mend, research, run, start, symbols
from garch_platform.cli.console import LIVE, START, State, errors
from garch_platform.errors import GarchPlatformError

__all__ = ["app", "main"]

HELP = "Volatility and pairs research: bars, features, stability, GARCH fits, ranked pairs."

app = typer.Typer(no_args_is_help=True, add_completion=False, help=HELP, rich_markup_mode="rich")
for part in (start, research, run, look, mend):
    app.add_typer(part.app)
app.add_typer(symbols.app, name="symbols", rich_help_panel=START)
app.add_typer(live.recycle, name="recycle", rich_help_panel=LIVE)
app.add_typer(live.stream, name="stream", rich_help_panel=LIVE)


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
    State.workspace = workspace
