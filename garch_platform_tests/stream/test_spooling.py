"""A database that goes away and comes back: rows wait on disk, in order, and nothing is lost."""

from __future__ import annotations

import asyncio
import threading
import time
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from garch_platform.errors import StoreError
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.stream import StreamSummary, drain, writer
from garch_platform.stream.spool import Spool
from garch_platform_tests.store.rows import register
from garch_platform_tests.stream.edge import (
    SYMBOLS,
    VALUES,
    client_of,
    edge_settings,
    follow,
    now,
    server_of,
    source_bars,
    until,
    with_faults,
    written,
)


class AwayDatabase:
    """A database that can be switched off."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.is_away = False
        self.refusals = 0

    def __getattr__(self, name: str) -> Any:
        if self.is_away:
            self.refusals += 1
            raise StoreError("the database is away")
        return getattr(self.database, name)


def test_a_database_that_is_away_costs_nothing(tmp_path: Path, market: Lake, database: Database) -> None:
    summary = with_a_break(tmp_path, market, database, away_at_start=False)
    assert_frame_equal(written(database), source_bars(market), check_exact=True)
    assert (summary.spooled_files, summary.counts.lost) == (0, 0)


def test_a_database_that_is_away_at_the_start_costs_nothing(
    tmp_path: Path, market: Lake, sqlite: Database
) -> None:
    summary = with_a_break(tmp_path, market, sqlite, away_at_start=True)
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)
    assert (summary.spooled_files, summary.counts.lost) == (0, 0)


def with_a_break(folder: Path, market: Lake, database: Database, *, away_at_start: bool) -> StreamSummary:
    """A replay during which the database is away for some batches."""
    settings = edge_settings(folder, recycler={"replay_speed": 12000.0}, flush_rows=20)
    away = AwayDatabase(database)
    register(database, *SYMBOLS)

    async def scenario() -> StreamSummary:
        away.is_away = away_at_start
        async with server_of(market, settings):
            client = client_of(settings, away)
            running = asyncio.create_task(client.run(until_replay_ends=True))
            await until(lambda: client.counts.received > 50)
            away.is_away = True
            await until(lambda: len(client.spool.files) > 5)
            assert client.status().error == "the database is away"
            away.is_away = False
            return await running

    return asyncio.run(scenario())


def test_what_is_spooled_at_the_end_is_written_by_the_next_client(
    tmp_path: Path, market: Lake, sqlite: Database
) -> None:
    away = AwayDatabase(sqlite)
    away.is_away = True
    register(sqlite, *SYMBOLS)

    async def scenario(database: Any) -> StreamSummary:
        settings = edge_settings(tmp_path)
        async with server_of(market, settings):
            return await client_of(settings, database).run(until_replay_ends=True)

    assert asyncio.run(scenario(away)).spooled_files > 0
    assert sqlite.read_table("market_data").is_empty()
    asyncio.run(scenario(sqlite))
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)


class HalfDatabase(AwayDatabase):
    """A database that refuses every second write of rows."""

    def upsert(self, table: str, rows: pl.DataFrame) -> int:
        self.refusals += 1
        if self.refusals % 2:
            raise StoreError("the database took half of the batch")
        return self.database.upsert(table, rows)


def test_a_batch_that_was_half_written_is_written(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    """Bars are in when the daily bars of the same batch are refused; the whole batch comes again."""
    register(sqlite, *SYMBOLS)
    half = HalfDatabase(sqlite)

    async def scenario(database: Any) -> StreamSummary:
        settings = edge_settings(tmp_path, recycler=with_faults(drop=0.1))
        async with server_of(market, settings):
            return await client_of(settings, database).run(until_replay_ends=True)

    asyncio.run(scenario(half))
    assert half.refusals > 0
    asyncio.run(scenario(sqlite))
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)
    assert list((tmp_path / "spool").iterdir()) == []


class HangingDatabase:
    """A database that does not answer any more once `hang` is called."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.answers = threading.Event()
        self.answers.set()

    def __getattr__(self, name: str) -> Any:
        self.answers.wait(30)
        return getattr(self.database, name)


def test_a_database_that_hangs_does_not_hold_up_the_end(
    tmp_path: Path, market: Lake, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it has not taken waits on disk, and the next client writes it."""
    monkeypatch.setattr(drain, "CLOSE_SECONDS", 0.3)
    register(sqlite, *SYMBOLS)
    settings = edge_settings(tmp_path, recycler={"replay_speed": 12000.0}, flush_rows=20)
    hanging = HangingDatabase(sqlite)

    async def scenario() -> tuple[StreamSummary, float]:
        loop, stop = asyncio.get_running_loop(), asyncio.Event()
        async with server_of(market, settings):
            client = client_of(settings, hanging)
            running = asyncio.create_task(client.run(stop))
            await until(lambda: client.counts.written > 20)
            hanging.answers.clear()
            received = client.counts.received
            await until(lambda: client.counts.received > received + 60)
            begin = loop.time()
            stop.set()
            return await running, loop.time() - begin

    summary, seconds = asyncio.run(scenario())
    assert seconds < 5
    assert summary.spooled_files > 0
    spooled = pl.concat(
        pl.read_ipc(path)
        for path in Spool(tmp_path / "spool", megabytes=1).files
        if "market_data" in path.name
    )
    kept = pl.concat(
        [written(sqlite), spooled.filter(pl.col("timeframe") == "1Min").select(written(sqlite).columns)]
    )
    assert kept.select("symbol", "timestamp").n_unique() >= summary.bars
    hanging.answers.set()
    follow(market, edge_settings(tmp_path), sqlite)
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)


def test_a_full_spool_is_loud_and_filled_later(
    tmp_path: Path, market: Lake, sqlite: Database, caplog: pytest.LogCaptureFixture
) -> None:
    settings = edge_settings(
        tmp_path, recycler={"replay_speed": 12000.0}, flush_rows=20, spool_megabytes=0.03
    )
    away = AwayDatabase(sqlite)
    register(sqlite, *SYMBOLS)

    async def scenario() -> StreamSummary:
        async with server_of(market, settings):
            client = client_of(settings, away)
            running = asyncio.create_task(client.run(until_replay_ends=True))
            away.is_away = True
            await until(lambda: client.counts.lost > 20)
            away.is_away = False
            return await running

    summary = asyncio.run(scenario())
    assert "raise websocket.spool_megabytes" in caplog.text
    assert summary.counts.filled > 20
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)


@pytest.mark.parametrize("is_hanging_at_start", [True, False])
def test_a_database_that_hangs_costs_nothing(
    tmp_path: Path,
    market: Lake,
    sqlite: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_hanging_at_start: bool,
) -> None:
    """It refuses nothing and says nothing: rows go to disk, the stream is read on, and the status says why.

    In the live clock, where the database is asked first; closes tell the bars of a symbol apart.
    """
    monkeypatch.setattr(writer, "FIRST_LOOK_SECONDS", 0.2)
    monkeypatch.setattr(drain, "HANG_SECONDS", 0.3)
    register(sqlite, *SYMBOLS)
    settings = edge_settings(tmp_path, recycler={"replay_speed": 12000.0, "clock": "live"}, flush_rows=5)
    hanging = HangingDatabase(sqlite)

    async def scenario() -> StreamSummary:
        async with server_of(market, settings):
            client = client_of(settings, hanging)
            if is_hanging_at_start:
                hanging.answers.clear()
            running = asyncio.create_task(client.run(until_replay_ends=True))
            if not is_hanging_at_start:
                await until(lambda: client.counts.written > 20)
                hanging.answers.clear()
            received = client.counts.received
            await until(lambda: client.counts.received > received + 20 * settings.websocket.flush_rows)
            await until(lambda: client.status().error is not None and len(client.spool.files) > 3)
            status = client.status()
            assert status.connected
            assert "the database has not answered for" in (status.error or "")
            await until(lambda: "the database has not answered for" in caplog.text)
            hanging.answers.set()
            await until(lambda: client.status().error is None)
            return await running

    summary = asyncio.run(scenario())
    assert (summary.spooled_files, summary.counts.lost, summary.counts.reconnects) == (0, 0, 0)
    found, source = (
        rows.select("symbol", *VALUES).sort("symbol", "close")
        for rows in (written(sqlite), source_bars(market))
    )
    assert_frame_equal(found, source, check_exact=True)


def test_a_full_spool_lets_a_batch_pass_into_the_database(
    tmp_path: Path, market: Lake, sqlite: Database
) -> None:
    """No batch fits on disk, and the database answers: nothing is lost, and nothing is asked for again."""
    register(sqlite, *SYMBOLS)
    settings = edge_settings(tmp_path, flush_rows=50, spool_megabytes=0.0001)

    async def scenario() -> StreamSummary:
        async with server_of(market, settings):
            return await client_of(settings, sqlite).run(until_replay_ends=True)

    summary = asyncio.run(scenario())
    assert summary.counts.lost == 0
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)


class SlowSpool(Spool):
    """It takes its time to look into its folder."""

    @property
    def files(self) -> list[Path]:
        time.sleep(0.002)
        return super().files


def test_two_threads_put_batches_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of the stream and rows that the database refuses: no number is taken twice."""
    monkeypatch.setattr("garch_platform.stream.spool.time.time_ns", lambda: 1)
    spool, rows = SlowSpool(tmp_path, megabytes=10), pl.DataFrame({"timestamp": [now()]})

    def put(name: str) -> None:
        for _ in range(25):
            spool.put(name, rows)

    threads = [threading.Thread(target=put, args=(name,)) for name in ("a", "b")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({path.name.partition(".")[0] for path in spool.files}) == 50
