"""Alpaca's own clients, as they are published, on the recycler: alpaca-py, and their npm package for Node."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import shutil
import subprocess
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol

import pytest
from alpaca.data.live import StockDataStream
from alpaca.data.models import Bar as AlpacaBar
from websockets.http11 import Request, Response

from garch_platform.recycler.server import RecyclerServer
from garch_platform.recycler.tape import Tape
from garch_platform.recycler.tick import Bar, Tick
from garch_platform.recycler.wall_time import WallTime
from garch_platform_tests.recycler.market import DAYS, MINUTE, MemoryLake, market_bars, player_of
from garch_platform_tests.recycler.replay import (
    KEY,
    SECRET,
    ScriptedReplay,
    make_server,
    make_tick,
    recycler_settings,
    secrets,
)

NODE_FOLDER = Path(__file__).resolve().parents[1] / "node"
PACKAGE = NODE_FOLDER / "node_modules" / "@alpacahq" / "alpaca-trade-api"
NODE = shutil.which("node")

Received = tuple[datetime, Bar]


class Client(Protocol):
    """What the scenarios ask of either client."""

    bars: list[Received]
    days: list[Received]
    errors: list[str]


async def until(is_so: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


class PythonClient:
    """alpaca-py's stream, run by its own ``run`` in a thread of its own."""

    def __init__(self, url: str, *, symbols: Sequence[str], key: str, secret: str, caught: list[str]) -> None:
        self.bars: list[Received] = []
        self.days: list[Received] = []
        self.errors = caught
        self._stream = StockDataStream(key, secret, url_override=url)
        self._stream.subscribe_bars(self._keep(self.bars), *symbols)
        self._stream.subscribe_daily_bars(self._keep(self.days), *symbols)
        self._thread = threading.Thread(target=self._stream.run, daemon=True)

    @staticmethod
    def _keep(kept: list[Received]) -> Callable[[Any], Awaitable[None]]:
        async def handler(bar: AlpacaBar) -> None:
            numbers = (bar.open, bar.high, bar.low, bar.close, bar.volume, bar.trade_count, bar.vwap)
            kept.append((bar.timestamp, Bar(bar.symbol, *numbers)))  # type: ignore[arg-type]

        return handler

    async def start(self) -> None:
        """Connect."""
        self._thread.start()

    async def stop(self) -> None:
        """Ask it to end; it does so when it wakes up, which the server's end makes it do."""
        if self._thread.is_alive():
            await asyncio.to_thread(self._stream.stop)

    async def join(self) -> None:
        """Wait for its end."""
        await asyncio.to_thread(self._thread.join, 10)


class NodeClient:
    """The npm package's stream, in a process of its own that prints what it gets."""

    def __init__(self, url: str, *, symbols: Sequence[str], key: str, secret: str, caught: list[str]) -> None:
        self.bars: list[Received] = []
        self.days: list[Received] = []
        self.errors: list[str] = []
        self._arguments = ["stream.cjs", url, key, secret, ",".join(symbols)]
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect."""
        self._process = await asyncio.create_subprocess_exec(
            str(NODE), *self._arguments, cwd=NODE_FOLDER, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        self._reading = asyncio.create_task(self._read())

    async def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        async for line in self._process.stdout:
            event = json.loads(line)
            if event["kind"] == "error":
                self.errors.append(event["message"])
            elif event["kind"] in ("bar", "day"):
                names = ("symbol", "open", "high", "low", "close", "volume")
                bar = Bar(*(event[name] for name in names), event.get("tradeCount"), event.get("vwap"))
                kept = self.bars if event["kind"] == "bar" else self.days
                kept.append((datetime.fromisoformat(event["timestampRaw"]), bar))

    async def stop(self) -> None:
        """Disconnect."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    async def join(self) -> None:
        """Wait for its end."""
        if self._process is not None and self._reading is not None:
            await asyncio.wait_for(self._process.wait(), 10)
            await self._reading


def missing() -> str | None:
    """Why Node's client cannot be called, if it cannot."""
    if NODE is None:
        return "node is not installed"
    if not PACKAGE.is_dir():
        return "Alpaca's npm package is not installed; run `npm install` in garch_platform_tests/node"
    return None


without_node = pytest.mark.skipif(missing() is not None, reason=str(missing()))
CLIENTS = pytest.mark.parametrize(
    "kind",
    [pytest.param(PythonClient, id="alpaca-py"), pytest.param(NodeClient, id="npm", marks=without_node)],
)


@pytest.fixture
def caught(caplog: pytest.LogCaptureFixture) -> list[str]:
    """What alpaca-py tells of errors: it has no other way than its log."""
    found: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            found.append(record.getMessage())

    log, keeper = logging.getLogger("alpaca.data.live.websocket"), Keeper(logging.ERROR)
    log.addHandler(keeper)
    yield found  # type: ignore[misc]
    log.removeHandler(keeper)


@asynccontextmanager
async def following(
    kind: Callable[..., Any],
    server: RecyclerServer,
    caught: list[str],
    *,
    symbols: Sequence[str] = ("AAPL", "MSFT"),
    secret: str = SECRET,
    path: str = "/v2/iex",
) -> AsyncIterator[Any]:
    """A server that runs, and a client on its way to it."""
    async with AsyncExitStack() as end:
        await server.start()
        end.push_async_callback(server.stop)
        client = kind(f"{server.url}{path}", symbols=symbols, key=KEY, secret=secret, caught=caught)
        await client.start()
        try:
            yield client
        finally:
            await client.stop()
    await client.join()


def is_subscribed(server: RecyclerServer) -> bool:
    """Whether a client waits for bars."""
    return server._fanout.has_listeners


def expected(ticks: Sequence[Tick], *symbols: str) -> list[Received]:
    """What a client of ``symbols`` has to get."""
    return [(tick.timestamp, bar) for tick in ticks for bar in tick.bars if bar.symbol in symbols]


@CLIENTS
def test_bars_arrive_equal_with_every_field(kind: Callable[..., Any], caught: list[str]) -> None:
    ticks = [make_tick(step, ["AAPL", "MSFT", "SPY"]) for step in range(50)]
    bare = ticks[-1].bars[0]._replace(trade_count=None, vwap=None, volume=0.5)
    ticks[-1] = ticks[-1]._replace(bars=(bare, *ticks[-1].bars[1:]))

    async def scenario() -> None:
        replay = ScriptedReplay(["AAPL", "MSFT", "SPY"])
        server = make_server(replay)
        handshakes: list[Request] = []
        answer = server._answers.answer

        async def seen(request: Request) -> Response | None:
            handshakes.append(request)
            return await answer(request)

        server._answers.answer = seen  # type: ignore[method-assign]
        async with following(kind, server, caught) as client:
            await until(lambda: is_subscribed(server))
            replay.give(*ticks)
            await until(lambda: len(client.bars) == 100)
            assert client.bars == expected(ticks, "AAPL", "MSFT")
            assert caught == client.errors == []
            assert [one.headers.get_all("Origin") for one in handshakes] == [[]]

    asyncio.run(scenario())


def test_alpaca_py_gets_daily_bars_and_a_star_means_all() -> None:
    ticks = [make_tick(step, ["AAPL", "MSFT"]) for step in range(3)]

    async def scenario() -> None:
        replay = ScriptedReplay()
        server = make_server(replay)
        async with following(PythonClient, server, [], symbols=["*"]) as client:
            await until(lambda: is_subscribed(server))
            replay.give(*ticks)
            await until(lambda: len(client.days) == 6)
            assert client.bars == expected(ticks, "AAPL", "MSFT")
            assert {moment for moment, _ in client.days} == {datetime(2018, 3, 1, 5, tzinfo=UTC)}
            assert [day.volume for _, day in client.days[::2]] == [1000.0, 2001.0, 3003.0]

    asyncio.run(scenario())


@CLIENTS
def test_over_loop_boundaries_times_increase_and_the_bars_are_those_of_the_lake(
    kind: Callable[..., Any], caught: list[str]
) -> None:
    bars = market_bars({"AAPL": range(5), "MSFT": [0, 2, 4]}, DAYS[:2])

    async def scenario() -> None:
        tape = Tape(MemoryLake(bars), MINUTE, symbols=[], default_proxy=None, proxies={})
        player = player_of(tape, WallTime(), mode="loop", loop_count=3)  # type: ignore[arg-type]
        server = RecyclerServer(player, recycler_settings(), secrets(), port=0)
        async with following(kind, server, caught) as client:
            await until(lambda: len(client.bars) == 3 * bars.height)
        for symbol in ("AAPL", "MSFT"):
            moments = [moment for moment, bar in client.bars if bar.symbol == symbol]
            assert all(earlier < later for earlier, later in itertools.pairwise(moments))
            stored = bars.filter(symbol=symbol).sort("timestamp")
            columns = stored.select(*Bar._fields).rows()
            assert [tuple(bar) for _, bar in client.bars if bar.symbol == symbol] == columns * 3

    asyncio.run(scenario())


@CLIENTS
def test_a_restarted_server_is_found_again(kind: Callable[..., Any], caught: list[str]) -> None:
    async def scenario() -> None:
        first, second = ScriptedReplay(), ScriptedReplay()
        server = make_server(first)
        async with following(kind, server, caught) as client:
            await until(lambda: is_subscribed(server))
            first.give(make_tick(0, ["AAPL"]))
            await until(lambda: len(client.bars) == 1)
            await server.stop()
            async with make_server(second, port=server.port) as again:
                await until(lambda: is_subscribed(again))
                second.give(make_tick(1, ["AAPL"]))
                await until(lambda: len(client.bars) == 2)
            assert client.bars == expected([make_tick(0, ["AAPL"]), make_tick(1, ["AAPL"])], "AAPL")

    asyncio.run(scenario())


@CLIENTS
@pytest.mark.parametrize(
    ("code", "message", "options", "arguments"),
    [
        (402, "auth failed", {}, {"secret": "wrong"}),
        (405, "symbol limit exceeded", {"symbol_limit": 1}, {}),
        (406, "connection limit exceeded", {"connection_limit": 1}, {}),
        (409, "insufficient subscription", {"feeds": ("iex",)}, {"path": "/v2/sip"}),
    ],
)
def test_refusals_are_seen_as_the_clients_own_errors(
    kind: Callable[..., Any],
    caught: list[str],
    code: int,
    message: str,
    options: dict[str, Any],
    arguments: dict[str, Any],
) -> None:
    async def scenario() -> None:
        server = make_server(ScriptedReplay(), **options)
        server._places = 1 if code == 406 else 0
        async with following(kind, server, caught, **arguments) as client:
            await until(lambda: any(message in told for told in client.errors))
            assert not is_subscribed(server)

    asyncio.run(scenario())
