"""Bars of a stand-in never pass for a symbol's own, whenever the recycler that sent them ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from garch_platform.store.database import Database
from garch_platform.stream import StreamSummary
from garch_platform_tests.recycler.market import session_bars, store
from garch_platform_tests.store.rows import register
from garch_platform_tests.stream.edge import (
    DAYS,
    client_of,
    edge_settings,
    server_of,
    small_market,
    until,
)

NAMES = ["AMD", "NEWCO"]
OWN_PRICE = 500.0
"""Below it are AMD's."""


def settings_of(folder: Path, clock: str, *, recycler: dict[str, Any] | None = None, **websocket: Any) -> Any:
    replay = {"symbols": NAMES, "proxies": {"NEWCO": "AMD"}, "clock": clock, "replay_speed": 3600.0}
    return edge_settings(folder, recycler={**replay, **(recycler or {})}, **websocket)


@pytest.mark.parametrize("clock", ["live", "historical"])
def test_a_recycler_that_dies_before_the_batch_is_written(
    tmp_path: Path, sqlite: Database, clock: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Nobody knows any more which bars were a stand-in's: none is stored as a symbol's own, and none is kept."""
    lake = small_market(tmp_path, symbols=["AMD"])
    settings = settings_of(tmp_path, clock, flush_seconds=60.0)
    register(sqlite, *NAMES)

    async def scenario() -> StreamSummary:
        stop, client = asyncio.Event(), client_of(settings, sqlite, NAMES)
        async with server_of(lake, settings):
            running = asyncio.create_task(client.run(stop))
            await until(lambda: client.counts.bars >= 20)
        stop.set()
        return await running

    summary = asyncio.run(scenario())
    rows = sqlite.read_table("market_data", timeframe="1Min")
    assert rows.height >= summary.bars >= 20
    assert rows["is_proxy"].all()
    assert summary.spooled_files == 0
    assert "stored as proxied" in caplog.text


@pytest.mark.parametrize("clock", ["live", "historical"])
@pytest.mark.parametrize("flush_seconds", [0.05, 60.0])
def test_what_one_run_says_does_not_hold_for_another(
    tmp_path: Path, sqlite: Database, clock: str, flush_seconds: float
) -> None:
    """NEWCO has bars of its own in the second, slower run; stamps come again, and may share a batch."""
    lake = small_market(tmp_path, symbols=["AMD"])
    settings = settings_of(tmp_path, clock, flush_seconds=flush_seconds)
    url = settings.websocket.recycler.server_url
    slow = settings_of(tmp_path, clock, recycler={"server_url": url, "replay_speed": 900.0})
    register(sqlite, *NAMES)

    async def scenario() -> StreamSummary:
        stop, client = asyncio.Event(), client_of(settings, sqlite, NAMES)
        async with server_of(lake, settings):
            running = asyncio.create_task(client.run(stop))
            await until(lambda: client.counts.bars >= 140)
        store(lake, session_bars({"NEWCO": range(120)}, DAYS[0], price=OWN_PRICE))
        received = client.counts.bars
        async with server_of(lake, slow):
            await until(lambda: client.counts.bars >= received + 10)
            stop.set()
            return await running

    summary = asyncio.run(scenario())
    assert summary.connections == 2
    rows = sqlite.read_table("market_data", timeframe="1Min")
    own = pl.col("close") >= OWN_PRICE
    newco = rows.filter(pl.col("symbol") == "NEWCO")
    assert newco.filter(own).height >= 5
    assert newco.filter(own == pl.col("is_proxy")).is_empty()
    assert newco.filter(~own).height >= 5
    assert not rows.filter(pl.col("symbol") == "AMD")["is_proxy"].all()
