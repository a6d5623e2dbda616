"""The live edge for the terminal: what is served, what is received, what stands in for what."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from garch_platform.errors import GarchPlatformError, StreamError
from garch_platform.orchestration.live import recycler_control
from garch_platform.orchestration.live_symbols import followed_symbols, stand_ins
from garch_platform.orchestration.workspace import Workspace
from garch_platform.reporting.tables import escaped, plain_table, shown
from garch_platform.settings.live import Recycler
from garch_platform.stream.status import read_status

__all__ = ["edge_table", "recycler_line", "recycler_table", "stream_table"]

NAMED = 12
"""Symbols that are spelled out; of more, the number is said."""


def edge_table(workspace: Workspace) -> Table:
    """The live edge as configured: mode, server, replay, symbols, records available, proxies."""
    websocket = workspace.settings.websocket
    table = _facts("Live edge")
    table.add_row("mode", websocket.mode)
    if websocket.mode == "alpaca":
        table.add_row("server", escaped(websocket.url or f"Alpaca's stream, feed {websocket.feed}"))
    else:
        table.add_row("server", f"{websocket.recycler.server_url}, {_answers(workspace)}")
        table.add_row("replay", replay_text(websocket.recycler))
    try:
        symbols = followed_symbols(workspace)
    except GarchPlatformError as error:
        table.add_row("symbols", escaped(str(error)))
        return table
    table.add_row("symbols", _names(symbols))
    coverage = workspace.lake.coverage("bars", workspace.settings.timeframe.name)
    held = coverage.filter(coverage["symbol"].is_in(symbols))
    table.add_row(
        "records", f"{held['rows'].sum():,} bars of {len(held)} symbols ({workspace.settings.timeframe})"
    )
    if websocket.mode == "recycler":
        proxies = stand_ins(workspace, symbols)
        served = [f"{symbol} by {proxy}" for symbol, proxy in proxies.items() if proxy]
        silent = [symbol for symbol, proxy in proxies.items() if not proxy]
        table.add_row("proxies", _names(served) if served else "none: every symbol has bars of its own")
        if silent:
            table.add_row("silent", f"{_names(silent)}: no bars, and no proxy that has any")
    return table


def replay_text(recycler: Recycler) -> str:
    """Mode, passes and speed of a replay in words."""
    passes = {-1: "for ever", 1: "once"}.get(recycler.loop_count, f"{recycler.loop_count} times")
    days = recycler.date_range
    what = {
        "loop": f"loop {passes}",
        "date_range": f"{days.start_date} to {days.end_date}",
        "single_pass": "single pass",
    }[recycler.replay_mode]
    speed = "as fast as clients take it" if recycler.replay_speed == "max" else f"{recycler.replay_speed:g}x"
    return f"{what}, {speed}, {recycler.clock} clock"


def recycler_table(status: dict[str, Any]) -> Table:
    """All that a running recycler says of itself."""
    table = _facts("Recycler")
    for name, value in status.items():
        table.add_row(name.replace("_", " "), escaped(_text(value)))
    return table


def recycler_line(status: dict[str, Any]) -> str:
    """Where a running replay stands, in one line."""
    state = "paused" if status.get("paused") else "running"
    return f"{state} at {status.get('position')}, speed {status.get('speed')}"


def stream_table(workspace: Workspace) -> Table:
    """The stream client as it last described itself."""
    status = read_status(workspace.settings.workspace)
    table = _facts("Stream client")
    if status is None:
        table.add_row("state", "has not run in this workspace; start it with `garch stream`")
        return table
    for name, value in status.facts().items():
        table.add_row(name, escaped(_text(value)))
    return table


def _answers(workspace: Workspace) -> str:
    try:
        status = recycler_control(workspace).status()
    except StreamError:
        return "nothing listens there (garch recycle)"
    return recycler_line(status)


def _facts(title: str) -> Table:
    table = plain_table(title)
    table.add_column("", no_wrap=True)
    table.add_column("", overflow="fold")
    table.show_header = False
    return table


def _names(names: list[str]) -> str:
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)}: {', '.join(names[:NAMED])}{rest}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list):
        return _names([str(one) for one in value]) if value else "none"
    return shown(value)
