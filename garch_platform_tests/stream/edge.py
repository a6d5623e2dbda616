"""A recycler over a small lake, and stream clients that follow it, on loopback."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from garch_platform.recycler import service
from garch_platform.recycler.server import RecyclerServer
from garch_platform.settings import Settings, load_secrets, load_settings
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.stream import StreamClient, StreamSummary, build
from garch_platform_tests.conftest import free_port
from garch_platform_tests.recycler.market import session_bars, store
from garch_platform_tests.store.rows import register

SYMBOLS = ["AAPL", "AMD", "MSFT"]
DAYS = [date(2024, 3, 7), date(2024, 3, 8)]
VALUES = ["open", "high", "low", "close", "volume", "vwap", "trade_count"]
KEY = ["symbol", "timestamp"]


def small_market(
    folder: Path, *, days: Sequence[date] = DAYS, symbols: Sequence[str] = SYMBOLS, minutes: int = 120
) -> Lake:
    """Minute bars of ``symbols``; each symbol lacks some minutes of its own."""
    frames = []
    for number, day in enumerate(days):
        present = {
            symbol: sorted(random.Random(f"{symbol}{day}").sample(range(minutes), minutes - 7))
            for symbol in symbols
        }
        frames.append(session_bars(present, day, price=100.0 * (1 + number)))
    return store(Lake(folder / "lake"), pl.concat(frames))


def source_bars(lake: Lake) -> pl.DataFrame:
    """Every bar of ``lake``, as the client should have written it."""
    return lake.scan("bars").select(*KEY, *VALUES).collect().sort(KEY)


def edge_settings(folder: Path, *, recycler: Mapping[str, Any] | None = None, **websocket: Any) -> Settings:
    """Settings of a client and a recycler on a free port: the historical clock, once, as fast as can be."""
    replay = {
        "server_url": f"ws://127.0.0.1:{free_port()}",
        "replay_mode": "single_pass",
        "replay_speed": "max",
        "clock": "historical",
        "default_proxy": None,
        **(recycler or {}),
    }
    options = {"flush_seconds": 0.1, "mode": "recycler", **websocket, "recycler": replay}
    return load_settings(folder, websocket=options, universe={"timeframe": "1Min"})


def with_faults(**faults: Any) -> dict[str, Any]:
    """The setting ``recycler`` with these faults."""
    return {"faults": {"seed": 5, **faults}}


def server_of(lake: Lake, settings: Settings) -> RecyclerServer:
    """The recycler that ``settings`` describe, over ``lake``."""
    return service.build(settings, load_secrets(), lake)


def client_of(settings: Settings, database: Any, symbols: Sequence[str] = SYMBOLS) -> StreamClient:
    """A client of the recycler that ``settings`` describe."""
    return build(settings, load_secrets(), database, symbols)


def follow(
    lake: Lake, settings: Settings, database: Database, symbols: Sequence[str] = SYMBOLS
) -> StreamSummary:
    """Replay ``lake`` to its end through a client into ``database``."""

    async def scenario() -> StreamSummary:
        async with server_of(lake, settings):
            return await client_of(settings, database, symbols).run(until_replay_ends=True)

    register(database, *symbols)
    return asyncio.run(scenario())


def written(database: Database, *, timeframe: str = "1Min") -> pl.DataFrame:
    """What ``market_data`` holds, in the columns of `source_bars`."""
    return database.read_table("market_data", timeframe=timeframe).select(*KEY, *VALUES).sort(KEY)


async def until(condition: Callable[[], bool], seconds: float = 40.0) -> None:
    """Wait for ``condition``."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.01)


def now() -> datetime:
    """The present moment, UTC."""
    return datetime.now(UTC)
