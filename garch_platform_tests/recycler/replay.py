"""A replay without a lake: ticks that a test makes, given when the test says, and a server around it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import Any, Literal

import msgpack
import polars as pl
from pydantic import SecretStr
from websockets.asyncio.client import ClientConnection, connect

from garch_platform.recycler.replay import REPLAYED
from garch_platform.recycler.server import RecyclerServer
from garch_platform.recycler.tick import Bar, Tick
from garch_platform.settings import load_settings
from garch_platform.settings.live import Recycler, Secrets
from garch_platform_tests.recycler.read_wire import decode_messages

START = datetime(2018, 3, 1, 14, 30, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
KEY = "test-key"
SECRET = "test-secret-5d1c"
MSGPACK_HEADER = {"Content-Type": "application/msgpack"}


def make_bar(symbol: str, step: int = 0, *, trade_count: int | None = 7, vwap: float | None = 101.3) -> Bar:
    """A bar that differs by symbol and step, with prices that need all their digits."""
    base = 100 + step / 7 + sum(map(ord, symbol)) / 1000
    return Bar(symbol, base, base + 0.1, base - 0.1, base + 1 / 30, 1000.0 + step, trade_count, vwap)


def make_tick(step: int, symbols: Sequence[str], *, start: datetime = START) -> Tick:
    """One tick with a bar of every symbol."""
    moment = start + step * MINUTE
    return Tick(moment, moment, tuple(make_bar(symbol, step) for symbol in symbols), is_last_of_session=False)


def framed(rows: Iterable[tuple[datetime, Bar]]) -> pl.DataFrame:
    """Stamps and bars as a replay gives them."""
    return pl.DataFrame([(stamp, *bar) for stamp, bar in rows], schema=REPLAYED.schema, orient="row")


def told(frames: Iterable[pl.DataFrame]) -> list[tuple[datetime, Bar]]:
    """Stamps and bars of what a replay gave."""
    return [(stamp, Bar(*bar)) for frame in frames for stamp, *bar in frame.iter_rows()]


class ScriptedReplay:
    """Gives the ticks that `give` queues, or, at speed ``max``, those of a list one after the other."""

    def __init__(self, symbols: Sequence[str] = ("AAPL", "MSFT"), ticks: Sequence[Tick] = ()) -> None:
        self.names = list(symbols)
        self.speed: float | Literal["max"] = "max" if ticks else 1.0
        self.is_paused = False
        self.sought: datetime | date | None = None
        self.emitted: list[Tick] = []
        self.timeframe = "1Min"
        self.stand_ins: dict[str, list[dict[str, Any]]] = {}
        self._script = list(ticks)
        self._queue: asyncio.Queue[Tick | Exception | None] = asyncio.Queue()

    def give(self, *ticks: Tick) -> None:
        """Let the next ticks be due."""
        for tick in ticks:
            self._queue.put_nowait(tick)

    def end(self, failure: Exception | None = None) -> None:
        """Let the replay end, or fail."""
        self._queue.put_nowait(failure)

    async def ticks(self) -> AsyncIterator[Tick]:
        for tick in self._script:
            self.emitted.append(tick)
            yield tick
        if self._script:
            return
        while (tick := await self._queue.get()) is not None:
            if isinstance(tick, Exception):
                raise tick
            self.emitted.append(tick)
            yield tick

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False

    def seek(self, moment: datetime | date) -> None:
        self.sought = moment

    def set_speed(self, speed: float | Literal["max"]) -> None:
        self.speed = speed

    def status(self) -> dict[str, Any]:
        return {
            "speed": self.speed,
            "paused": self.is_paused,
            "timeframe": self.timeframe,
            "mode": "scripted",
        }

    def symbols(self) -> list[str]:
        return self.names

    def proxies(self) -> dict[str, list[dict[str, Any]]]:
        return self.stand_ins

    def replayed(
        self, symbols: Sequence[str], start: datetime | None, end: datetime | None, *, since: str = ""
    ) -> Iterator[pl.DataFrame]:
        for symbol in sorted(symbols):
            seen: dict[datetime, Bar] = {}
            for tick in list(self.emitted):
                if (start is None or tick.timestamp >= start) and (end is None or tick.timestamp <= end):
                    seen.update((tick.timestamp, bar) for bar in tick.bars if bar.symbol == symbol)
            if symbol >= since:
                yield framed(sorted(seen.items()))


@cache
def _defaults() -> dict[str, Any]:
    return load_settings().websocket.recycler.model_dump()


def recycler_settings(**changes: Any) -> Recycler:
    """The defaults with ``changes``; ``faults`` may name only some."""
    settings = _defaults()
    faults = {**settings["faults"], **changes.pop("faults", {})}
    return Recycler.model_validate({**settings, **changes, "faults": faults})


def secrets() -> Secrets:
    """Credentials that nobody else has."""
    return Secrets(
        _env_file=None,  # type: ignore[call-arg]
        garch_recycler_key=SecretStr(KEY),
        garch_recycler_secret=SecretStr(SECRET),
    )


def make_server(replay: ScriptedReplay, **options: Any) -> RecyclerServer:
    """A server on a free port; options of `RecyclerServer` and of the settings."""
    own = {name: options.pop(name) for name in ("feeds", "port", "auth_seconds") if name in options}
    return RecyclerServer(replay, recycler_settings(**options), secrets(), **{"port": 0, **own})


class Caller:
    """A client that speaks the protocol as plainly as it can be spoken."""

    def __init__(self, socket: ClientConnection, *, is_msgpack: bool) -> None:
        self.socket = socket
        self.is_msgpack = is_msgpack

    async def receive(self, seconds: float = 5.0) -> list[dict[str, Any]]:
        """The messages of the next frame."""
        async with asyncio.timeout(seconds):
            return decode_messages(await self.socket.recv())

    async def send(self, **request: Any) -> None:
        """Send one request in the connection's codec."""
        await self.socket.send(msgpack.packb(request) if self.is_msgpack else json.dumps(request))

    async def ask(self, **request: Any) -> list[dict[str, Any]]:
        """Send one request and return the next frame's messages."""
        await self.send(**request)
        return await self.receive()

    async def subscribe(self, **channels: Any) -> list[dict[str, Any]]:
        """Subscribe and return the acknowledgement."""
        return await self.ask(action="subscribe", **channels)

    async def bars(self, count: int, seconds: float = 10.0) -> list[dict[str, Any]]:
        """The next ``count`` messages that carry bars."""
        found: list[dict[str, Any]] = []
        async with asyncio.timeout(seconds):
            while len(found) < count:
                found += [message for message in await self.receive(seconds) if message["T"] in "bud"]
        return found


async def call(
    server: RecyclerServer,
    *,
    path: str = "/v2/iex",
    is_msgpack: bool = False,
    authenticate: bool = True,
    headers: dict[str, str] | None = None,
    **options: Any,
) -> Caller:
    """Connect, read the greeting, and authenticate."""
    sent = {**(headers or {}), **(MSGPACK_HEADER if is_msgpack else {})}
    socket = await connect(
        f"{server.url}{path}", additional_headers=sent, compression=None, proxy=None, **options
    )
    caller = Caller(socket, is_msgpack=is_msgpack)
    assert await caller.receive() == [{"T": "success", "msg": "connected"}]
    if authenticate:
        answer = await caller.ask(action="auth", key=KEY, secret=SECRET)
        assert answer == [{"T": "success", "msg": "authenticated"}]
    return caller
