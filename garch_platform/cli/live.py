"""The live edge: ``garch recycle`` replays stored bars, ``garch stream`` follows a feed."""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from garch_platform.cli.console import (
    LIVE,
    SymbolsOption,
    names_of,
    open_workspace,
    say,
    show,
)
from garch_platform.errors import ConfigurationError

if TYPE_CHECKING:
    from garch_platform.recycler.control import RecyclerControl

__all__ = ["recycle", "stream"]

recycle = typer.Typer(
    invoke_without_command=True, help="Replay the lake's bars as Alpaca's stream, until interrupted."
)
stream = typer.Typer(
    invoke_without_command=True, help="Follow Alpaca or the recycler into market_data, until interrupted."
)
CHATTY = ("garch_platform.recycler.server.sockets", "alpaca.data.live.websocket")
"""Loggers that report every connection and request."""
SpeedArgument = Annotated[str, typer.Argument(help="A factor (1.0 = one bar a minute), or max.")]


@recycle.callback(rich_help_panel=LIVE)
def recycle_start(
    context: typer.Context,
    symbols: SymbolsOption = None,
    mode: Annotated[str | None, typer.Option(help="loop, date_range or single_pass.")] = None,
    speed: Annotated[str | None, typer.Option(help="A factor, or max.")] = None,
    start: Annotated[
        str | None, typer.Option(help="First session (date_range).", metavar="YYYY-MM-DD")
    ] = None,
    end: Annotated[str | None, typer.Option(help="Last session (date_range).", metavar="YYYY-MM-DD")] = None,
    clock: Annotated[str | None, typer.Option(help="live or historical.")] = None,
) -> None:
    """Replay the lake's bars as Alpaca's stream, until interrupted.

    What is left out is as ``websocket.recycler`` in the settings says.
    """
    if context.invoked_subcommand is not None:
        return
    from garch_platform.workspace.live import serve_recycler

    _log_to_terminal()
    changes: dict[str, Any] = {
        "symbols": names_of(symbols),
        "replay_mode": mode or ("date_range" if start or end else None),
        "replay_speed": speed,
        "clock": clock,
        "date_range": {"start_date": start, "end_date": end} if start or end else None,
    }
    given = {name: value for name, value in changes.items() if value is not None}
    serve_recycler(open_workspace(), given)


@recycle.command("status")
def recycle_status() -> None:
    """Where the replay stands: session, speed, symbols, proxies, clients."""
    from garch_platform.workspace.live_tables import recycler_table

    show(recycler_table(_control().status()))


@recycle.command("pause")
def recycle_pause() -> None:
    """Hold the replay; clients stay connected."""
    _answer(_control().pause())


@recycle.command("resume")
def recycle_resume() -> None:
    """Go on after a pause."""
    _answer(_control().resume())


@recycle.command("seek")
def recycle_seek(
    moment: Annotated[
        str, typer.Argument(help="A session or a moment in UTC.", metavar="YYYY-MM-DD[THH:MM]")
    ],
) -> None:
    """Go on from another moment of the stored bars."""
    _control().seek(moment)
    say(f"the next bar is the first at or after {moment}")


@recycle.command("speed")
def recycle_speed(factor: SpeedArgument) -> None:
    """Change the speed of the running replay."""
    _answer(_control().speed("max" if factor == "max" else _number(factor)))


@stream.callback(rich_help_panel=LIVE)
def stream_start(context: typer.Context, symbols: SymbolsOption = None) -> None:
    """Follow Alpaca or the recycler (``websocket.mode``) into market_data, until interrupted."""
    if context.invoked_subcommand is not None:
        return
    from garch_platform.workspace.live import follow

    _log_to_terminal()
    follow(open_workspace(), names_of(symbols))


@stream.command("status")
def stream_status() -> None:
    """Whether the client runs, what it receives, how late, and what waits in its spool."""
    from garch_platform.workspace.live_tables import stream_table

    show(stream_table(open_workspace()))


def _control() -> RecyclerControl:
    from garch_platform.workspace.live import recycler_control

    return recycler_control(open_workspace())


def _answer(status: dict[str, Any]) -> None:
    from garch_platform.workspace.live_tables import recycler_line

    say(recycler_line(status))


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ConfigurationError(f"speed {text!r} is no number; give a factor such as 60, or max") from None


def _log_to_terminal() -> None:
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
