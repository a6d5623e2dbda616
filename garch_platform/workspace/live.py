"""The live edge wired to a workspace: served and followed from the shell, or bounded and recorded in Dagster."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

import polars as pl
from pydantic import ValidationError
from sqlalchemy import select

from garch_platform.errors import ConfigurationError, StreamError
from garch_platform.recycler import service as recycler_service
from garch_platform.recycler.control import RecyclerControl
from garch_platform.settings import Settings, load_secrets
from garch_platform.settings.live import Recycler
from garch_platform.store.schema import METADATA
from garch_platform.stream import service as stream_service
from garch_platform.stream.counts import StreamSummary
from garch_platform.workspace import Workspace
from garch_platform.workspace.live_symbols import followed_symbols

__all__ = [
    "LiveRecord",
    "follow",
    "record_replay",
    "record_session",
    "recycler_control",
    "serve_recycler",
    "serving",
    "with_recycler",
]

MARKET_DATA = METADATA.tables["market_data"].c
GAPS = METADATA.tables["stream_gaps"].c
SERVABLE = ("open", "high", "low", "close", "volume")
"""A bar without one of these cannot be spoken on Alpaca's wire."""


@dataclass(frozen=True)
class LiveRecord:
    """What a bounded run of the stream client delivered.

    Attributes:
        row: of the table ``replay_sessions``.
        latencies_ms: a sample of delivery latencies; empty where bars are not sent as they happen.
        gaps: rows of ``stream_gaps`` that this run wrote.
        behind: symbols of which stored bars are missing, and how many.
    """

    row: dict[str, Any]
    latencies_ms: list[float]
    gaps: pl.DataFrame
    behind: dict[str, int] = field(default_factory=dict)


def recycler_control(workspace: Workspace) -> RecyclerControl:
    """Commands to the recycler that listens where the settings say."""
    return _control(workspace.settings)


def _control(settings: Settings) -> RecyclerControl:
    recycler, secrets = settings.websocket.recycler, load_secrets()
    return RecyclerControl(
        recycler.server_url,
        secrets.garch_recycler_key,
        secrets.garch_recycler_secret,
        certificate=recycler.tls_certificate,
    )


def serve_recycler(workspace: Workspace, changes: Mapping[str, Any]) -> None:
    """Serve the workspace's bars until SIGTERM or SIGINT; ``changes`` replace ``websocket.recycler``."""
    settings = with_recycler(workspace.settings, changes)
    asyncio.run(recycler_service.run(recycler_service.build(settings, load_secrets(), workspace.lake)))


def follow(workspace: Workspace, symbols: Sequence[str] | None = None) -> StreamSummary:
    """Follow the stream until SIGTERM or SIGINT."""
    chosen = followed_symbols(workspace, symbols)
    client = stream_service.build(workspace.settings, load_secrets(), workspace.database, chosen)
    return stream_service.run(client)


def with_recycler(settings: Settings, changes: Mapping[str, Any], *, mode: str | None = None) -> Settings:
    """``settings`` with some of ``websocket.recycler`` replaced, checked like those of a file.

    Raises:
        ConfigurationError: a value is none of those allowed.
    """
    websocket = settings.websocket
    try:
        recycler = Recycler.model_validate(websocket.recycler.model_dump() | dict(changes))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(str(part) for part in problem['loc'])}: {problem['msg']} (got {problem['input']!r})"
            if problem["loc"]
            else problem["msg"]
            for problem in error.errors()
        )
        raise ConfigurationError(f"websocket.recycler is not valid: {problems}") from None
    changed = websocket.model_copy(update={"recycler": recycler, "mode": mode or websocket.mode})
    return settings.model_copy(update={"websocket": changed})


def record_replay(
    workspace: Workspace,
    session_id: str,
    *,
    start: date | None,
    end: date | None,
    symbols: Sequence[str],
    speed: str,
    clock: str,
    attach: bool,
) -> LiveRecord:
    """Replay stored sessions through the stream client and record what arrived.

    Args:
        workspace: whose lake is replayed, and into whose ``market_data``.
        session_id: key of the row of ``replay_sessions``.
        start: first session; the last stored one if None.
        end: last session, included; ``start`` if None.
        symbols: that are replayed; those that the live edge follows if empty.
        speed: a factor, or ``max``.
        clock: ``historical`` or ``live``.
        attach: to the recycler that is running, for as long as its replay lasts.

    Raises:
        StreamError: there is nothing to replay, or no recycler to attach to.
    """
    chosen = followed_symbols(workspace, list(symbols) or None)
    if attach:
        status = recycler_control(workspace).status()
        if status["passes"] is None:
            raise StreamError(
                f"the recycler at {status['url']} replays without end; attach to a bounded replay "
                "(garch recycle --mode single_pass), or leave --attach out"
            )
        chosen = [symbol for symbol in chosen if symbol in status["symbols"]]
        if not chosen:
            raise StreamError(f"the recycler at {status['url']} serves none of the symbols that are followed")
        settings = with_recycler(workspace.settings, {"clock": status["clock"]}, mode="recycler")
        days = (date.fromisoformat(status["first_session"]), date.fromisoformat(status["last_session"]))
    else:
        days = _sessions(workspace, start, end)
        changes = {
            "server_url": f"ws://127.0.0.1:{_free_port()}",
            "tls_certificate": None,
            "tls_key": None,
            "symbols": chosen,
            "replay_mode": "date_range",
            "date_range": {"start_date": days[0], "end_date": days[1]},
            "replay_speed": speed,
            "clock": clock,
        }
        settings = with_recycler(workspace.settings, changes, mode="recycler")
    client = stream_service.build(settings, load_secrets(), workspace.database, chosen)
    with nullcontext() if attach else serving(workspace, settings):
        summary = stream_service.run(client, until_replay_ends=True)
        status = _control(settings).status()
    servable = _servable(workspace, chosen, *days)
    proxied = len(set(chosen) & set(status.get("proxies", {})))
    recycler = settings.websocket.recycler
    return _recorded(
        workspace,
        session_id,
        summary,
        expected=len(servable),
        behind=_behind(workspace, settings, servable) if recycler.clock == "historical" else None,
        replay_mode=str(status.get("mode", recycler.replay_mode)),
        replay_speed=str(status.get("speed", recycler.replay_speed)),
        clock=recycler.clock,
        first_session=days[0],
        last_session=days[1],
        proxied_symbols=proxied,
    )


def record_session(
    workspace: Workspace, session_id: str, now: datetime, *, tail_seconds: float
) -> LiveRecord:
    """Follow Alpaca's stream until ``tail_seconds`` after the close of today's session, and record it.

    Raises:
        StreamError: the session is over, or there is none today.
    """
    calendar = workspace.calendar
    today = now.astimezone(calendar.timezone).date()
    close = calendar.bounds(calendar.require_session(today))[1]
    if now >= close:
        raise StreamError(f"the session {today} closed at {close:%H:%M} UTC; its bars come over REST")
    symbols = followed_symbols(workspace)
    client = stream_service.build(workspace.settings, load_secrets(), workspace.database, symbols)
    until = datetime.fromtimestamp(close.timestamp() + tail_seconds, UTC)
    summary = stream_service.run(client, until=until)
    return _recorded(
        workspace, session_id, summary, expected=None, behind=None, first_session=today, last_session=today
    )


@contextmanager
def serving(workspace: Workspace, settings: Settings) -> Iterator[None]:
    """A recycler in a thread with an event loop of its own, for as long as the block lasts."""
    server = recycler_service.build(settings, load_secrets(), workspace.lake)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="recycler", daemon=True)
    thread.start()

    def wait_for(work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, loop).result()

    try:
        wait_for(server.start())
        try:
            yield
        finally:
            wait_for(server.stop())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _sessions(workspace: Workspace, start: date | None, end: date | None) -> tuple[date, date]:
    if start is None:
        coverage = workspace.lake.coverage("bars", workspace.settings.timeframe.name)
        if coverage.is_empty():
            raise StreamError(
                f"the lake of {workspace.settings.workspace} holds no {workspace.settings.timeframe} bars to "
                "replay; run `garch refresh`"
            )
        start = end or max(coverage["last_session"])
    return start, end or start


def _servable(workspace: Workspace, symbols: Sequence[str], start: date, end: date) -> pl.DataFrame:
    """``symbol`` and ``timestamp`` of each bar that the lake holds and a replay can send."""
    rows = workspace.lake.scan(
        "bars", timeframe=workspace.settings.timeframe.name, symbols=symbols, start=start, end=end
    )
    return rows.drop_nulls(SERVABLE).select("symbol", "timestamp").unique().collect()


def _behind(workspace: Workspace, settings: Settings, servable: pl.DataFrame) -> dict[str, int]:
    """By symbol, how many of the ``servable`` bars ``market_data`` does not hold as its own."""
    if servable.is_empty():
        return {}
    found = workspace.database.read(
        select(MARKET_DATA.symbol, MARKET_DATA.timestamp).where(
            MARKET_DATA.data_source == "recycled",
            MARKET_DATA.feed == settings.websocket.feed,
            MARKET_DATA.is_proxy.is_(False),
            MARKET_DATA.timeframe == settings.timeframe.name,
            MARKET_DATA.timestamp.between(servable["timestamp"].min(), servable["timestamp"].max()),
        )
    )
    missing = servable.join(found, on=["symbol", "timestamp"], how="anti")
    return dict(missing.group_by("symbol").len().sort("symbol").iter_rows())


def _recorded(
    workspace: Workspace,
    session_id: str,
    summary: StreamSummary,
    *,
    expected: int | None,
    behind: dict[str, int] | None,
    **details: Any,
) -> LiveRecord:
    counts = summary.counts
    if behind is not None:
        lacking = sum(behind.values())
    else:
        lacking = max(0, (expected or 0) - (summary.bars - counts.duplicates) - counts.filled)
    problems = {
        f"{lacking} of {expected} bars are missing": lacking,
        f"{summary.spooled_files} batches wait in the spool for the database": summary.spooled_files,
        f"{summary.pending_gaps} gaps are still to be asked for": summary.pending_gaps,
        f"{counts.lost} rows found no room and are to be asked for": counts.lost,
        f"{counts.set_aside} rows were refused by the database and set aside": counts.set_aside,
        f"not connected: {summary.error}": summary.error,
        "told to stop before its end": summary.stopped,
    }
    reasons = [text for text, is_so in problems.items() if is_so]
    row = {
        "session_id": session_id,
        "data_source": "alpaca" if summary.mode == "alpaca" else "recycled",
        "started_at": summary.started_at,
        "ended_at": summary.ended_at,
        "symbols": len(summary.symbols),
        "bars_expected": expected,
        "bars_received": summary.bars,
        "bars_written": counts.written,
        "bars_filled": counts.filled,
        "duplicates": counts.duplicates,
        "gaps": counts.gaps,
        "reconnects": counts.reconnects,
        "latency_p50_ms": summary.latency_p50_ms,
        "latency_p99_ms": summary.latency_p99_ms,
        "latency_max_ms": summary.latency_max_ms,
        "status": "incomplete" if reasons else "complete",
        "reason": "; ".join(reasons) or None,
        **details,
    }
    workspace.database.upsert("replay_sessions", pl.DataFrame([row]))
    gaps = workspace.database.read(
        select(GAPS.symbol, GAPS.gap_start, GAPS.gap_end, GAPS.cause, GAPS.bars_filled)
        .where(GAPS.detected_at >= summary.started_at, GAPS.data_source == row["data_source"])
        .order_by(GAPS.gap_start, GAPS.symbol)
    )
    return LiveRecord(row, [value for _, value in summary.latencies], gaps, behind or {})
