"""The stream client as a service: built from settings, ended by a signal, one a workspace."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Final

from garch_platform.settings import Secrets, Settings
from garch_platform.stream.client import StreamClient, StreamOptions
from garch_platform.stream.counts import StreamSummary
from garch_platform.stream.endpoint import endpoint_of
from garch_platform.stream.hours import MarketHours
from garch_platform.stream.live_database import LiveDatabase

__all__ = ["build", "run"]

SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


def build(
    settings: Settings, secrets: Secrets, database: LiveDatabase, symbols: Sequence[str]
) -> StreamClient:
    """The client that ``websocket`` describes.

    Args:
        settings: of the workspace.
        secrets: credentials of the server.
        database: the workspace's own; the client writes ``market_data`` and ``stream_gaps``.
        symbols: registered symbols to follow; at least one.

    Raises:
        ConfigurationError: credentials are missing.
        StreamError: there are no symbols.
    """
    endpoint = endpoint_of(settings, secrets)
    websocket, rest = settings.websocket, settings.alpaca
    return StreamClient(
        endpoint,
        symbols,
        database,
        settings.workspace,
        hours=MarketHours(settings.calendar, is_daily=endpoint.timeframe.is_daily),
        options=StreamOptions(
            flush_seconds=websocket.flush_seconds,
            flush_rows=websocket.flush_rows,
            mute_seconds=websocket.mute_seconds,
            health_seconds=websocket.health_seconds,
            spool_megabytes=websocket.spool_megabytes,
            metrics_port=websocket.metrics_port,
            history_days=rest.minute_days,
            attempts=rest.attempts,
            page_limit=rest.page_limit,
            symbols_per_request=rest.symbols_per_request,
            requests_per_minute=rest.requests_per_minute,
        ),
    )


def run(
    client: StreamClient, *, until: datetime | None = None, until_replay_ends: bool = False
) -> StreamSummary:
    """Run ``client`` until SIGTERM, SIGINT or one of the ends of `StreamClient.run`.

    The signals end it cleanly where this is the process's main thread.

    Raises:
        StreamError: another client of the workspace runs, or the server refused for good.
    """

    async def until_signalled() -> StreamSummary:
        stop = asyncio.Event()
        with _stopping_at_signals(stop):
            return await client.run(stop, until=until, until_replay_ends=until_replay_ends)

    return asyncio.run(until_signalled())


@contextmanager
def _stopping_at_signals(stop: asyncio.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set ``stop``, and give them back to whoever had them.

    Outside the main thread signals are somebody else's.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        loop.add_signal_handler(number, stop.set)
    try:
        yield
    finally:
        for number, handler in before.items():
            loop.remove_signal_handler(number)
            if handler is not None:
                signal.signal(number, handler)
