"""The live edge for the terminal: what is served, what is received, what stands in for what."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich.table import Table

from garch_platform.errors import GarchPlatformError, StreamError
from garch_platform.reporting.tables import escaped, plain_table, shown
from garch_platform.settings.live import Recycler
from garch_platform.stream.status import read_status
from garch_platform.workspace import Workspace
from garch_platform.workspace.live import recycler_control
from garch_platform.workspace.live_symbols import followed_symbols, stand_ins

__all__ = ["edge_table", "recycler_line", "recycler_table", "replay_table", "stream_table"]

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
        unneeded = "none are needed: every symbol has bars of its own"
        table.add_row("proxies", _names(served) if served else "none" if silent else unneeded)
        if silent:
            table.add_row(
                "silent", f"{_names(silent)}: the recycler does not serve them, nor a proxy with bars"
            )
    return table


def replay_text(recycler: Recycler) -> str:
    """Mode, passes and speed of a replay in words."""
    passes = {-1: "for ever", 1: "once"}.get(recycler.loop_count, f"{recycler.loop_count} times")
    days = recycler.date_range
    what = {"loop": f"loop {passes}", "date_range": "once", "single_pass": "single pass"}[
        recycler.replay_mode
    ]
    if days.start_date or days.end_date:
        what += f" over {days.start_date or 'the first session'} to {days.end_date or 'the last'}"
    speed = "as fast as clients take it" if recycler.replay_speed == "max" else f"{recycler.replay_speed:g}x"
    return f"{what}, {speed}, {recycler.clock} clock"


def lag_text(seconds: float | None) -> str:
    """How long ago the latest bar ended."""
    if seconds is None:
        return "no bar yet"
    return f"{seconds:.1f} s" if seconds >= 0 else f"{-seconds:.0f} s ahead: the replay runs faster than time"


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


def replay_table(workspace: Workspace) -> Table:
    """The last recorded session of the stream client: what was expected, what arrived."""
    rows = workspace.database.read_table("replay_sessions").sort("started_at")
    table = _facts("Replay session")
    for name, value in rows.tail(1).to_dicts()[0].items() if len(rows) else ():
        if value is not None:
            table.add_row(name.replace("_", " "), escaped(shown(value)))
    return table


def stream_table(workspace: Workspace) -> Table:
    """The stream client as it last described itself."""
    status = read_status(workspace.settings.workspace)
    table = _facts("Stream client")
    if status is None:
        table.add_row("state", "has not run in this workspace; start it with `garch stream`")
        return table
    state = "running" if status.is_running else "stopped"
    table.add_row("state", f"{state}, process {status.pid}, since {shown(status.started_at)} UTC")
    table.add_row("server", escaped(f"{status.mode}, {status.server}"))
    table.add_row("connected", "yes" if status.connected else "no")
    table.add_row("subscribed", _names(status.subscribed))
    newest = sorted(status.last_bar.items(), key=lambda item: item[1], reverse=True)
    for position, (symbol, moment) in enumerate(newest[:NAMED]):
        table.add_row("" if position else "last bars", f"{symbol}  {shown(moment)}")
    table.add_row("lag", f"{lag_text(status.lag_seconds)} at {shown(status.written_at)} UTC")
    table.add_row("spool", f"{status.spool_files} batches, {status.spool_bytes:,} bytes")
    table.add_row("gaps", f"{status.pending_gaps} still to be asked for")
    table.add_row("counts", ", ".join(f"{name} {value:,}" for name, value in asdict(status.counts).items()))
    if status.error:
        table.add_row("error", escaped(status.error))
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
    if not names:
        return "none"
    rest = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return f"{len(names)}: {', '.join(names[:NAMED])}{rest}"


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key}: {_text(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list):
        return _names([str(one) for one in value if one is not None])
    return shown(value)
