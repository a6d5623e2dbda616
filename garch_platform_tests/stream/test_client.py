"""A replay through the real server and the real alpaca-py into the database: every bar once, whatever happens."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import threading
from datetime import timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import trustme
from polars.testing import assert_frame_equal
from pydantic import SecretStr

from garch_platform.errors import ConfigurationError, StreamError
from garch_platform.recycler import service
from garch_platform.settings import Secrets, Settings
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.stream import StreamSummary, build, read_status, run
from garch_platform_tests.conftest import free_port
from garch_platform_tests.recycler.market import session_bars, store
from garch_platform_tests.store.rows import register
from garch_platform_tests.stream.edge import (
    DAYS,
    SYMBOLS,
    client_of,
    edge_settings,
    follow,
    now,
    server_of,
    small_market,
    source_bars,
    until,
    with_faults,
    written,
)


def test_every_bar_arrives_once(tmp_path: Path, market: Lake, database: Database) -> None:
    summary = follow(market, edge_settings(tmp_path), database)
    source = source_bars(market)
    assert_frame_equal(written(database), source, check_exact=True)
    rows = database.read_table("market_data")
    assert set(rows["data_source"]) == {"recycled"}
    assert set(rows["feed"]) == {"iex"}
    assert not rows["is_proxy"].any()
    assert set(rows["channel"]) >= {"bar", "daily_bar"}
    assert rows.filter(pl.col("channel") == "daily_bar").height == 6
    counts = summary.counts
    assert counts.received == counts.bars + counts.daily_bars
    assert (summary.bars, summary.daily_bars) == (source.height, counts.daily_bars)
    assert (summary.connections, summary.pending_gaps) == (1, 0)
    assert (summary.stopped, summary.error) == (False, None)
    assert (summary.counts.reconnects, summary.counts.lost, summary.counts.malformed) == (0, 0, 0)
    assert summary.first_bar == dict(source.group_by("symbol").agg(pl.col("timestamp").min()).iter_rows())
    assert summary.last_bar == dict(source.group_by("symbol").agg(pl.col("timestamp").max()).iter_rows())
    assert summary.latency_max_ms is None
    asked = database.read_table("stream_gaps")
    assert asked.height > 0
    assert asked["bars_filled"].sum() >= summary.counts.filled


def test_twice_is_once(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    follow(market, edge_settings(tmp_path), sqlite)
    before = sqlite.content("market_data")
    summary = follow(market, edge_settings(tmp_path), sqlite)
    assert_frame_equal(sqlite.content("market_data"), before, check_exact=True)
    assert summary.counts.duplicates > 0
    assert summary.counts.filled == 0


def test_a_loop_in_the_historical_clock_adds_nothing(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    settings = edge_settings(tmp_path, recycler={"replay_mode": "loop", "loop_count": 3})
    summary = follow(market, settings, sqlite)
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)
    assert summary.counts.duplicates >= source_bars(market).height


FAULTS: dict[str, dict[str, Any]] = {
    "drop": {"drop": 0.1},
    "delay": {"delay": 0.2, "delay_seconds": 0.3},
    "duplicate": {"duplicate": 0.3},
    "out of order": {"out_of_order": 0.3},
    "malformed": {"malformed": 0.1},
    "disconnect": {"disconnect_after": 200},
    "mute": {"mute_after": 200},
    "slow ack": {"slow_ack_seconds": 0.4},
    "revise": {"revise": 0.3},
    "revise, drop": {"revise": 0.3, "drop": 0.1},
    "revise, duplicate": {"revise": 0.3, "duplicate": 0.3},
    "revise, out of order": {"revise": 0.3, "out_of_order": 0.3},
    "revise, delay": {"revise": 0.3, "delay": 0.2, "delay_seconds": 0.3},
    "revise, disconnect": {"revise": 0.3, "disconnect_after": 100},
    "revise, mute": {"revise": 0.3, "mute_after": 200},
    "revise, all": {
        "revise": 0.3,
        "drop": 0.05,
        "duplicate": 0.1,
        "out_of_order": 0.1,
        "disconnect_after": 200,
    },
    "all": {"drop": 0.05, "duplicate": 0.1, "out_of_order": 0.1, "malformed": 0.05, "disconnect_after": 400},
}


@pytest.mark.parametrize("fault", FAULTS)
def test_no_fault_loses_or_doubles_a_bar(tmp_path: Path, market: Lake, sqlite: Database, fault: str) -> None:
    """What the stream does not deliver comes over REST; the ``bar`` rows are those that it did."""
    settings = edge_settings(tmp_path, recycler=with_faults(**FAULTS[fault]), mute_seconds=0.5)
    summary = follow(market, settings, sqlite)
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)
    counts = summary.counts
    rows = dict(sqlite.read_table("market_data")["channel"].value_counts().iter_rows())
    is_revised = "revise" in FAULTS[fault]
    assert rows.get("rest", 0) == counts.filled or is_revised
    assert (rows.get("updated_bar", 0) > 30) == is_revised
    assert sqlite.read_table("stream_gaps")["bars_filled"].sum() >= counts.filled
    assert counts.filled > 0 or not {"drop", "disconnect_after", "mute_after"} & FAULTS[fault].keys()
    assert counts.duplicates > 0 or fault not in ("duplicate", "all")
    assert (counts.malformed > 0) == (fault in ("malformed", "all"))
    assert (counts.reconnects > 0) == ("disconnect_after" in FAULTS[fault])
    assert (counts.lost, counts.set_aside, summary.spooled_files) == (0, 0, 0)


@pytest.mark.parametrize("cut", [{"disconnect_after": 40}, {"mute_after": 60}], ids=["disconnect", "mute"])
def test_a_correction_that_is_missed_comes_over_rest(
    tmp_path: Path, sqlite: Database, cut: dict[str, int]
) -> None:
    """Each connection ends between a bar and its updated bar, which the stream never sends again."""
    lake = small_market(tmp_path, symbols=["AMD"])
    settings = edge_settings(tmp_path, recycler=with_faults(revise=1.0, **cut), mute_seconds=0.3)
    summary = follow(lake, settings, sqlite, ["AMD"])
    assert_frame_equal(written(sqlite), source_bars(lake), check_exact=True)
    assert summary.counts.filled > 0
    assert "correction" not in sqlite.read_table("stream_gaps")["cause"]


def test_a_client_that_stops_before_a_correction_asks_for_it(tmp_path: Path, sqlite: Database) -> None:
    lake = small_market(tmp_path, symbols=["AMD"])
    settings = edge_settings(tmp_path, recycler={**with_faults(revise=1.0), "replay_speed": 60.0})
    register(sqlite, "AMD")

    async def scenario() -> StreamSummary:
        stop, client = asyncio.Event(), client_of(settings, sqlite, ["AMD"])
        async with server_of(lake, settings):
            running = asyncio.create_task(client.run(stop))
            await until(lambda: client.counts.bars == 3)
            stop.set()
            return await running

    summary = asyncio.run(scenario())
    assert summary.bars == 3
    assert_frame_equal(written(sqlite), source_bars(lake).head(2), check_exact=True)


def test_a_mute_socket_is_left(
    tmp_path: Path, market: Lake, sqlite: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """The replay goes on while the first connections hear nothing."""
    faults = with_faults(mute_after=150)
    settings = edge_settings(tmp_path, recycler={**faults, "replay_speed": 5000.0}, mute_seconds=0.3)
    summary = follow(market, settings, sqlite)
    assert "fell silent" in caplog.text
    assert summary.counts.reconnects > 0
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)


def test_a_paused_replay_is_not_mute(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    settings = edge_settings(tmp_path, mute_seconds=0.2)

    async def scenario() -> StreamSummary:
        async with server_of(market, settings) as server:
            server.replay.pause()
            client = client_of(settings, sqlite)
            running = asyncio.create_task(client.run(until_replay_ends=True))
            await asyncio.sleep(0.6)
            server.replay.resume()
            return await running

    register(sqlite, *SYMBOLS)
    assert asyncio.run(scenario()).counts.reconnects == 0
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)


def test_symbols_without_bars_are_no_dead_socket(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    """The others' bars come and go; of the only symbol that is followed there are none."""
    recycler = {"replay_speed": 6000.0, "symbols": [*SYMBOLS, "QUIET"]}
    summary = follow(market, edge_settings(tmp_path, recycler=recycler, mute_seconds=0.3), sqlite, ["QUIET"])
    assert (summary.bars, summary.connections) == (0, 1)


def test_a_certificate_that_cannot_be_read_is_said(tmp_path: Path, sqlite: Database) -> None:
    files = {"tls_certificate": tmp_path / "absent.pem", "tls_key": tmp_path / "absent.key"}
    recycler = {**files, "server_url": "wss://127.0.0.1:1"}
    with pytest.raises(ConfigurationError, match=r"absent.pem \(websocket.recycler.tls_certificate\)"):
        client_of(edge_settings(tmp_path, recycler=recycler), sqlite)


def test_signals_end_the_run_and_are_given_back(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    """Whoever runs the client in its process has handlers of its own."""
    settings = edge_settings(tmp_path, recycler={"replay_speed": 600.0})
    register(sqlite, *SYMBOLS)
    client = client_of(settings, sqlite)
    heard: list[int] = []

    async def serve(ready: threading.Event, stop: threading.Event) -> None:
        async with server_of(market, settings):
            ready.set()
            await until(lambda: client.counts.written > 20)
            os.kill(os.getpid(), signal.SIGTERM)
            await until(stop.is_set)

    def handler(number: int, _frame: object) -> None:
        heard.append(number)

    before = signal.signal(signal.SIGTERM, handler)
    ready, stop = threading.Event(), threading.Event()
    serving = threading.Thread(target=lambda: asyncio.run(serve(ready, stop)))
    try:
        serving.start()
        assert ready.wait(20)
        summary = run(client)
        assert (summary.stopped, summary.error) == (True, None)
        assert written(sqlite).height >= summary.bars > 10
        assert signal.getsignal(signal.SIGTERM) is handler
        assert heard == []
    finally:
        stop.set()
        serving.join()
        signal.signal(signal.SIGTERM, before)


def test_a_server_that_is_started_anew_is_found_again(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    """Live clock: the second server's stamps go on where the present is."""
    settings = edge_settings(tmp_path, recycler={"clock": "live", "replay_speed": 600.0})

    async def scenario() -> StreamSummary:
        stop = asyncio.Event()
        client = client_of(settings, sqlite)
        async with server_of(market, settings):
            running = asyncio.create_task(client.run(stop))
            await until(lambda: client.counts.received > 30)
        connected = client.counts.received
        async with server_of(market, settings):
            await until(lambda: client.counts.received > connected + 30)
            stop.set()
            return await running

    register(sqlite, *SYMBOLS)
    summary = asyncio.run(scenario())
    assert summary.counts.reconnects >= 1
    rows = sqlite.read_table("market_data", timeframe="1Min")
    assert rows.select("symbol", "timestamp").is_duplicated().sum() == 0
    assert rows["timestamp"].max() > now() - timedelta(hours=1)


def test_symbols_that_are_not_registered_stop_nobody(
    tmp_path: Path, market: Lake, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    register(database, "AAPL", "MSFT")

    async def scenario() -> StreamSummary:
        settings = edge_settings(tmp_path)
        async with server_of(market, settings):
            return await client_of(settings, database).run(until_replay_ends=True)

    summary = asyncio.run(scenario())
    source = source_bars(market)
    assert_frame_equal(written(database), source.filter(pl.col("symbol") != "AMD"), check_exact=True)
    assert summary.counts.set_aside > 0
    assert "garch symbols add AMD" in caplog.text
    register(database, "AMD")
    asyncio.run(scenario())
    assert_frame_equal(written(database), source, check_exact=True)
    assert list((tmp_path / "spool").glob("*.aside")) == []


def test_proxied_bars_are_marked(tmp_path: Path, sqlite: Database) -> None:
    lake = small_market(tmp_path, symbols=["AAPL", "AMD"])
    settings = edge_settings(
        tmp_path, recycler={"symbols": ["AAPL", "AMD", "NEWCO"], "proxies": {"NEWCO": "AMD"}}
    )
    follow(lake, settings, sqlite, ["AAPL", "AMD", "NEWCO"])
    rows = sqlite.read_table("market_data")
    marked = rows.group_by("symbol").agg(pl.col("is_proxy").all(), pl.col("is_proxy").any().alias("some"))
    assert sorted(marked.rows()) == [
        ("AAPL", False, False),
        ("AMD", False, False),
        ("NEWCO", True, True),
    ]
    amd, newco = (
        written(sqlite).filter(pl.col("symbol") == name).drop("symbol") for name in ("AMD", "NEWCO")
    )
    assert_frame_equal(amd, newco)


def test_real_bars_that_come_later_are_not_marked(tmp_path: Path, sqlite: Database) -> None:
    """NEWCO gets bars of its own between two replays in the live clock."""
    lake = small_market(tmp_path, symbols=["AMD"])
    recycler = {"symbols": ["AMD", "NEWCO"], "proxies": {"NEWCO": "AMD"}, "clock": "live"}
    follow(lake, edge_settings(tmp_path, recycler=recycler), sqlite, ["AMD", "NEWCO"])
    assert sqlite.read_table("market_data", symbol="NEWCO", timeframe="1Min")["is_proxy"].all()
    store(lake, session_bars({"NEWCO": range(60)}, DAYS[0], price=500.0))
    other = tmp_path / "other"
    fresh = edge_settings(other, recycler=recycler, feed="sip")
    follow(lake, fresh, sqlite, ["AMD", "NEWCO"])
    real = sqlite.read_table("market_data", symbol="NEWCO", timeframe="1Min", feed="sip")
    assert real.height == 60
    assert not real["is_proxy"].any()


def refused(settings: Settings, lake: Lake, database: Database, secrets: Secrets | None = None) -> str:
    async def scenario() -> None:
        async with server_of(lake, settings):
            client = build(settings, secrets or Secrets(), database, SYMBOLS)
            await client.run()

    with pytest.raises(StreamError) as refusal:
        asyncio.run(scenario())
    return str(refusal.value)


def test_a_wrong_key_ends_the_client(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    settings = edge_settings(tmp_path)
    message = refused(settings, market, sqlite, Secrets(garch_recycler_secret="wrong-and-secret"))
    assert "402 auth failed; set GARCH_RECYCLER_KEY and GARCH_RECYCLER_SECRET" in message
    assert "wrong-and-secret" not in message
    status = read_status(tmp_path)
    assert status is not None
    assert status.error == message
    assert not status.is_running


def test_too_many_symbols_end_the_client(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    settings = edge_settings(tmp_path, recycler={"symbol_limit": 2})
    assert "405 symbol limit exceeded; follow fewer symbols (websocket.symbols)" in refused(
        settings, market, sqlite
    )


def test_another_clock_than_expected_ends_the_client(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    settings = edge_settings(tmp_path)
    other = edge_settings(
        tmp_path, recycler={"clock": "live", "server_url": settings.websocket.recycler.server_url}
    )

    async def scenario() -> None:
        async with server_of(market, settings):
            await client_of(other, sqlite).run()

    with pytest.raises(StreamError, match=r"historical clock.*set websocket.recycler.clock alike"):
        asyncio.run(scenario())


def test_a_taken_connection_is_waited_for(
    tmp_path: Path, market: Lake, sqlite: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """406: the next try comes after a minute; here the minute is short."""
    settings = edge_settings(
        tmp_path, recycler={"connection_limit": 1, "clock": "live", "replay_speed": 600.0}
    )
    register(sqlite, *SYMBOLS)
    other = tmp_path / "other"
    other.mkdir()

    async def scenario() -> None:
        async with server_of(market, settings):
            stop, stop_second = asyncio.Event(), asyncio.Event()
            first = asyncio.create_task(client_of(settings, sqlite).run(stop))
            second = client_of(settings.model_copy(update={"workspace": other}), sqlite)
            assert second.options.connection_limit_seconds >= 60
            second._connection._limit_seconds = 0.3
            await until(lambda: (status := read_status(tmp_path)) is not None and status.connected)
            waiting = asyncio.create_task(second.run(stop_second))
            await until(lambda: "406 connection limit exceeded" in caplog.text)
            assert not second.status().connected
            stop.set()
            await first
            await until(lambda: second.counts.received > 0)
            stop_second.set()
            await waiting

    asyncio.run(scenario())


def test_the_rest_interface_may_be_down(
    tmp_path: Path,
    market: Lake,
    sqlite: Database,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Gaps stay pending, in the journal as well; the next client fills them."""
    settings = edge_settings(tmp_path, recycler=with_faults(drop=0.1))
    with monkeypatch.context() as patched:

        def unreachable(*_: object, **__: object) -> Any:
            raise StreamError("nothing answers")

        patched.setattr("garch_platform.stream.history.BarHistory.pages", unreachable)
        summary = follow(market, settings, sqlite)
    assert "gaps stay pending: nothing answers" in caplog.text
    assert summary.counts.filled == 0
    assert written(sqlite).height < source_bars(market).height
    follow(market, edge_settings(tmp_path), sqlite)
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)


def test_no_symbols_are_refused(tmp_path: Path, sqlite: Database) -> None:
    with pytest.raises(StreamError, match=r"garch symbols add"):
        client_of(edge_settings(tmp_path), sqlite, [])


def test_a_run_can_end_at_a_moment(tmp_path: Path, sqlite: Database) -> None:
    """Nothing listens; the client tries, and ends in time."""
    register(sqlite, *SYMBOLS)
    client = client_of(edge_settings(tmp_path), sqlite)
    summary = asyncio.run(client.run(until=now() + timedelta(seconds=0.3)))
    assert summary.counts.received == 0
    assert (summary.connections, summary.stopped) == (0, False)
    assert "cannot be reached" in (summary.error or "")
    assert summary.ended_at - summary.started_at < timedelta(seconds=5)


def test_a_recycler_with_tls_is_followed(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    """By its own certificate, over both protocols: the dropped bars come by https."""
    certificate = trustme.CA().issue_cert("127.0.0.1")
    files = {"tls_certificate": tmp_path / "server.pem", "tls_key": tmp_path / "server.key"}
    certificate.cert_chain_pems[0].write_to_path(files["tls_certificate"])
    certificate.private_key_pem.write_to_path(files["tls_key"])
    url = {"server_url": f"wss://127.0.0.1:{free_port()}"}
    settings = edge_settings(tmp_path, recycler={**with_faults(drop=0.1), **files, **url})
    assert follow(market, settings, sqlite).counts.filled > 0
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)


def test_credentials_never_reach_the_log(
    tmp_path: Path, market: Lake, sqlite: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """alpaca-py's sockets write every frame at DEBUG; whoever else uses their log keeps it as it is."""
    secrets = Secrets(
        garch_recycler_key=SecretStr("key-8163"), garch_recycler_secret=SecretStr("secret-2907")
    )
    settings = edge_settings(tmp_path, recycler=with_faults(drop=0.1))
    register(sqlite, *SYMBOLS)

    async def scenario() -> StreamSummary:
        server = service.build(settings, secrets, market)
        async with server:
            return await build(settings, secrets, sqlite, SYMBOLS).run(until_replay_ends=True)

    library = logging.getLogger("websockets.client")
    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, library.name):
        assert asyncio.run(scenario()).counts.filled > 0
        assert library.level == logging.DEBUG
    assert any(record.levelno == logging.DEBUG for record in caplog.records)
    traces = (secret.encode() for secret in ("key-8163", "secret-2907"))
    assert not any(trace.decode() in caplog.text or trace.hex(" ") in caplog.text for trace in traces)
    assert "61 75 74 68" not in caplog.text
