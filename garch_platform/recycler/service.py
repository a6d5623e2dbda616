"""The recycler as a service: settings, lake and secrets become a running server, which stops cleanly."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from garch_platform.recycler.clock import ReplayClock
from garch_platform.recycler.player import Player
from garch_platform.recycler.server import RecyclerServer
from garch_platform.recycler.tape import BarLake, Tape
from garch_platform.settings import Secrets, Settings

__all__ = ["build", "run"]

LOG = logging.getLogger(__name__)

SIGNALS = (signal.SIGTERM, signal.SIGINT)


def build(settings: Settings, secrets: Secrets, lake: BarLake, *, port: int | None = None) -> RecyclerServer:
    """A server of what ``websocket.recycler`` asks for; it does not listen yet.

    ``date_range`` bounds the sessions of every mode, also with one of its ends alone.

    Args:
        settings: of the workspace.
        secrets: with the recycler's key and secret.
        lake: that the bars are read from.
        port: in place of the settings'; 0 takes a free one.

    Raises:
        StreamError: the lake has no bars of the timeframe, symbols and sessions that can be sent.
        ConfigurationError: a symbol is its own proxy, or the server must not run with these credentials.
    """
    wanted = settings.websocket.recycler
    tape = Tape(
        lake,
        settings.timeframe,
        symbols=wanted.symbols,
        default_proxy=wanted.default_proxy,
        proxies=wanted.proxies,
        start=wanted.date_range.start_date,
        end=wanted.date_range.end_date,
        place=f"the workspace {settings.workspace}",
    )
    clock = ReplayClock(
        settings.timeframe,
        speed=wanted.replay_speed,
        stamps=wanted.clock,
        session_gaps=wanted.session_gaps,
    )
    player = Player(tape, clock, mode=wanted.replay_mode, loop_count=wanted.loop_count)
    server = RecyclerServer(player, wanted, secrets, port=port)
    tape.open()
    return server


async def run(
    server: RecyclerServer,
    *,
    stop: asyncio.Event | None = None,
    ready: Callable[[RecyclerServer], None] | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or ``stop``; the end of the replay alone ends nothing.

    Args:
        server: that `build` made.
        stop: ends the service when set.
        ready: is told when clients can connect.

    Raises:
        StreamError: the address cannot be listened at, or the replay failed on its way.
        StoreError: the lake refused to be read.
    """
    stop = stop or asyncio.Event()
    with _stopping_at_signals(stop):
        async with server:
            LOG.info("%s", described(server))
            if ready is not None:
                ready(server)
            await _until(stop, server)
        LOG.info("the recycler at %s has stopped", server.url)


def described(server: RecyclerServer) -> str:
    """One line: where it listens, what it replays, how fast, and which symbols are proxied."""
    status = server.status()
    passes = "" if status["mode"] != "loop" else f" ({status['passes'] or 'without end'})"
    start, end = status["date_range"]
    bounds = f" in date_range {start or 'the first'} to {end or 'the last'}" if start or end else ""
    pairs = [f"{symbol} from {proxy}" for symbol, proxy in status["proxies"].items()]
    parts = [
        f"recycler at {server.url}/v2/iex: {status['mode']}{passes}",
        f"clock {status['clock']}",
        f"speed {status['speed']}",
        f"{status['timeframe']} bars of {len(status['symbols'])} symbols",
        f"sessions {status['first_session']} to {status['last_session']} ({status['sessions']}{bounds})",
        f"proxies: {', '.join(pairs) or 'none'}",
    ]
    return ", ".join(parts)


async def _until(stop: asyncio.Event, server: RecyclerServer) -> None:
    """Wait for ``stop``; a replay that fails ends the wait with its error."""
    stopped = asyncio.ensure_future(stop.wait())
    finished = asyncio.ensure_future(server.finished())
    try:
        done, _ = await asyncio.wait({stopped, finished}, return_when=asyncio.FIRST_COMPLETED)
        if finished in done:
            finished.result()
            await stopped
    finally:
        for waiting in (stopped, finished):
            waiting.cancel()
        await asyncio.gather(stopped, finished, return_exceptions=True)


@contextmanager
def _stopping_at_signals(stop: asyncio.Event) -> Iterator[None]:
    """Let SIGTERM and SIGINT set ``stop``; outside the main thread signals are somebody else's."""
    loop = asyncio.get_running_loop()
    try:
        for number in SIGNALS:
            loop.add_signal_handler(number, stop.set)
    except (ValueError, RuntimeError, NotImplementedError):
        yield
        return
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
