"""What a running client shows of itself: status file, health line, metrics, lateness."""

from __future__ import annotations

import asyncio
import logging
import os
import urllib.request
from pathlib import Path

import pytest

from garch_platform.errors import StreamError
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.stream import StreamClient, read_status
from garch_platform.stream.status import only_client, write_status
from garch_platform_tests.conftest import free_port
from garch_platform_tests.store.rows import register
from garch_platform_tests.stream.edge import (
    SYMBOLS,
    client_of,
    edge_settings,
    server_of,
    until,
)


def test_lateness_has_quantiles(tmp_path: Path, sqlite: Database) -> None:
    client = client_of(edge_settings(tmp_path), sqlite)
    for value in range(1, 101):
        client.latencies.add(value, float(value))
    summary = client.summary()
    assert (summary.latency_p50_ms, summary.latency_p99_ms, summary.latency_max_ms) == (50.0, 99.0, 100.0)
    assert len(summary.latencies) == 100


def test_status_health_and_metrics(
    tmp_path: Path, market: Lake, sqlite: Database, caplog: pytest.LogCaptureFixture
) -> None:
    port = free_port()
    settings = edge_settings(
        tmp_path,
        recycler={"clock": "live", "replay_speed": 600.0},
        health_seconds=0.2,
        metrics_port=port,
    )
    register(sqlite, *SYMBOLS)
    assert read_status(tmp_path) is None

    def metrics() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
            return answer.read().decode()

    async def scenario() -> tuple[StreamClient, str]:
        stop = asyncio.Event()
        async with server_of(market, settings):
            client = client_of(settings, sqlite)
            running = asyncio.create_task(client.run(stop))
            await until(lambda: client.counts.written > 20)
            await asyncio.sleep(0.5)
            text = await asyncio.to_thread(metrics)
            status = read_status(tmp_path)
            assert status is not None
            assert status.connected
            assert status.is_running
            assert status.subscribed == SYMBOLS
            assert set(status.last_bar) == set(SYMBOLS)
            stop.set()
            await running
        return client, text

    with caplog.at_level(logging.INFO, logger="garch_platform.stream"):
        client, text = asyncio.run(scenario())
    assert "garch_stream_connected 1.0" in text
    assert 'garch_stream_last_bar_timestamp_seconds{symbol="AMD"}' in text
    assert "stream: recycler connected, 3 symbols, lag" in caplog.text
    status = read_status(tmp_path)
    assert status is not None
    assert not status.is_running
    assert not status.connected
    assert status.counts == client.counts
    with pytest.raises(OSError, match="refused"):
        metrics()


def test_a_client_runs_while_it_holds_its_lock(tmp_path: Path, sqlite: Database) -> None:
    """The process that a killed client had may be another one's by now: here it is this one's."""
    write_status(tmp_path, client_of(edge_settings(tmp_path), sqlite).status())
    left = read_status(tmp_path)
    assert left is not None
    assert (left.pid, left.is_running) == (os.getpid(), False)
    with only_client(tmp_path):
        running = read_status(tmp_path)
        assert running is not None
        assert running.is_running
        with pytest.raises(StreamError, match=f"running already \\(process {os.getpid()}\\)"):
            asyncio.run(client_of(edge_settings(tmp_path), sqlite).run())


def test_a_status_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "stream.json").write_text('{"pid": 1}')
    with pytest.raises(StreamError, match="no status of a stream client"):
        read_status(tmp_path)
