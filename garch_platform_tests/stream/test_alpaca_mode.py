"""The same client against a stand-in for Alpaca's servers: only settings differ."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from pydantic import SecretStr

from garch_platform.errors import StreamError
from garch_platform.settings import Secrets, Settings
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.stream import StreamClient, build
from garch_platform.stream import client as client_module
from garch_platform.stream.filler import Horizon
from garch_platform.stream.rows import microseconds
from garch_platform_tests.store.rows import register
from garch_platform_tests.stream.alpaca_server import AlpacaStream, wire_bar
from garch_platform_tests.stream.edge import SYMBOLS, edge_settings, server_of, until
from garch_platform_tests.stream.test_history import Stub, page

SECRETS = Secrets(apca_api_key_id=SecretStr("PK-TEST"), apca_api_secret_key=SecretStr("hidden-secret"))


HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)


@pytest.fixture
def rest() -> Iterator[Stub]:
    """Alpaca's REST interface; it has no bars unless a test says so."""
    made = Stub()
    made.answers = [page()]
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(autouse=True)
def earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    """The REST interface is complete up to the hour in which the tests' bars begin."""
    known = microseconds(minute(-1))
    monkeypatch.setattr(StreamClient, "_horizon", lambda _self: Horizon(known, known))


def minute(number: int) -> datetime:
    """``number`` minutes after a full hour of the recent past."""
    return HOUR + timedelta(minutes=number)


def rest_bar(number: int, close: float) -> dict[str, Any]:
    return {
        "t": minute(number).isoformat(),
        "o": 1,
        "h": 200,
        "l": 0.5,
        "c": close,
        "v": 100,
        "n": 3,
        "vw": 1.25,
    }


def alpaca_settings(folder: Path, stream: AlpacaStream, rest: Stub, **websocket: Any) -> Settings:
    settings = edge_settings(folder, mode="alpaca", url=stream.url, **websocket)
    alpaca = settings.alpaca.model_copy(update={"data_url": rest.url.replace("ws", "http")})
    return settings.model_copy(update={"alpaca": alpaca})


def client(folder: Path, stream: AlpacaStream, rest: Stub, database: Database) -> StreamClient:
    register(database, "AAPL", "AMD")
    return build(alpaca_settings(folder, stream, rest), SECRETS, database, ["AAPL", "AMD"])


def stored(database: Database) -> list[tuple[Any, ...]]:
    rows = database.read_table("market_data").sort("symbol", "timeframe", "timestamp")
    return rows.select("symbol", "timeframe", "timestamp", "close", "channel").rows()


def test_bars_updates_and_days_are_written_as_alpacas(tmp_path: Path, rest: Stub, sqlite: Database) -> None:
    async def scenario() -> None:
        stop = asyncio.Event()
        async with AlpacaStream() as stream:
            running = client(tmp_path, stream, rest, sqlite)
            task = asyncio.create_task(running.run(stop))
            await until(lambda: running.status().connected)
            await stream.say(wire_bar("b", "AAPL", minute(0), 10.0), wire_bar("b", "AMD", minute(0), 20.0))
            await until(lambda: running.counts.written == 2)
            await stream.say(wire_bar("u", "AAPL", minute(0), 10.5), wire_bar("d", "AAPL", minute(-30), 10.5))
            await stream.say(wire_bar("u", "AMD", minute(1), 21.5), wire_bar("b", "AMD", minute(1), 21.0))
            await stream.say(wire_bar("d", "AAPL", minute(-30), 11.0))
            await until(lambda: running.counts.received == 7)
            stop.set()
            summary = await task
            assert stream.keys == ["PK-TEST"]
            assert stream.subscriptions[0]["bars"] == ["AAPL", "AMD"]
        assert summary.mode == "alpaca"
        assert summary.latency_p50_ms is not None

    asyncio.run(scenario())
    assert stored(sqlite) == [
        ("AAPL", "1Day", minute(-30), 11.0, "daily_bar"),
        ("AAPL", "1Min", minute(0), 10.5, "updated_bar"),
        ("AMD", "1Min", minute(0), 20.0, "bar"),
        ("AMD", "1Min", minute(1), 21.5, "updated_bar"),
    ]
    rows = sqlite.read_table("market_data")
    assert set(rows["data_source"]) == {"alpaca"}
    assert not rows["is_proxy"].any()


def test_a_gap_is_filled_after_a_reconnect(tmp_path: Path, rest: Stub, sqlite: Database) -> None:
    """Minutes 1 and 2 happen while the connection is broken; AMD does not trade in minute 1."""

    async def scenario() -> None:
        stop = asyncio.Event()
        async with AlpacaStream() as stream:
            running = client(tmp_path, stream, rest, sqlite)
            task = asyncio.create_task(running.run(stop))
            await until(lambda: running.status().connected)
            await stream.say(wire_bar("b", "AAPL", minute(0), 10.0), wire_bar("b", "AMD", minute(0), 20.0))
            await until(lambda: running.counts.written == 2)
            rest.answers = [
                page("more", AAPL=[rest_bar(1, 11.0), rest_bar(2, 12.0)]),
                page(None, AMD=[rest_bar(2, 22.0)]),
                page(),
            ]
            await stream.cut()
            await until(lambda: running.counts.filled == 3)
            await stream.say(wire_bar("b", "AAPL", minute(3), 13.0), wire_bar("b", "AMD", minute(3), 23.0))
            await until(lambda: running.counts.received == 4)
            stop.set()
            assert (await task).counts.reconnects == 1

    asyncio.run(scenario())
    assert [row[3] for row in stored(sqlite)] == [10.0, 11.0, 12.0, 13.0, 20.0, 22.0, 23.0]
    gaps = sqlite.read_table("stream_gaps").filter(pl.col("bars_filled") > 0)
    assert sorted(gaps.select("symbol", "gap_start", "cause", "bars_filled").rows()) == [
        ("AAPL", minute(1), "reconnect", 2),
        ("AMD", minute(1), "reconnect", 1),
    ]


def test_the_stream_is_taken_up_after_the_last_stored_bar(
    tmp_path: Path, rest: Stub, sqlite: Database
) -> None:
    async def once(number: int) -> None:
        stop = asyncio.Event()
        async with AlpacaStream() as stream:
            running = client(tmp_path, stream, rest, sqlite)
            task = asyncio.create_task(running.run(stop))
            await until(lambda: running.status().connected)
            await stream.say(wire_bar("b", "AAPL", minute(number), 10.0 + number))
            await until(lambda: running.counts.written == 1)
            stop.set()
            await task

    asyncio.run(once(0))
    rest.asked.clear()
    asyncio.run(once(5))
    starts = [datetime.fromisoformat(query["start"]) for query in rest.asked if "AAPL" in query["symbols"]]
    assert minute(1) in starts
    assert min(starts) >= minute(1) - timedelta(days=7)


def test_a_minute_that_is_not_over_is_not_taken(tmp_path: Path, rest: Stub, sqlite: Database) -> None:
    """Its bar over REST would be a part of it, and would keep the whole one out."""
    current = datetime.now(UTC).replace(second=0, microsecond=0) + timedelta(minutes=1)
    running_bar = {**rest_bar(0, 5.0), "t": current.isoformat()}
    rest.answers = [page(None, AAPL=[rest_bar(0, 10.0), running_bar])]

    async def scenario() -> None:
        stop = asyncio.Event()
        async with AlpacaStream() as stream:
            running = client(tmp_path, stream, rest, sqlite)
            task = asyncio.create_task(running.run(stop))
            await until(lambda: running.counts.filled == 1)
            stop.set()
            await task

    asyncio.run(scenario())
    assert [row[2] for row in stored(sqlite)] == [minute(0)]


def test_minutes_without_trades_are_no_gaps(
    tmp_path: Path, rest: Stub, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """AAPL does not trade in minute 1, which leaves no row; its bar of minute 3 was missed."""
    monkeypatch.setattr("garch_platform.stream.hours.MarketHours.has_bars", lambda *_: True)

    async def scenario() -> None:
        stop = asyncio.Event()
        async with AlpacaStream() as stream:
            running = client(tmp_path, stream, rest, sqlite)
            task = asyncio.create_task(running.run(stop))
            await until(lambda: running.status().connected)
            for number in (0, 2, 4):
                await stream.say(wire_bar("b", "AAPL", minute(number), 10.0 + number))
            await until(lambda: running.counts.written == 3)
            known = microseconds(minute(30))
            running._filler._horizon = lambda: Horizon(known, known)
            rest.answers = [page(None, AAPL=[rest_bar(3, 13.0)])]
            running._filler.wake()
            await until(lambda: running.counts.filled == 1)
            stop.set()
            await task

    asyncio.run(scenario())
    rows = sqlite.read_table("stream_gaps").filter(pl.col("cause") == "hole")
    assert rows.select("gap_start", "bars_filled").rows() == [(minute(3), 1)]


def test_a_recycler_is_not_taken_for_alpaca(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    """Whatever the credentials: a replay must not become rows of Alpaca."""
    register(sqlite, *SYMBOLS)
    settings = edge_settings(tmp_path)
    url = f"{settings.websocket.recycler.server_url}/v2/iex"
    wrong = edge_settings(tmp_path, mode="alpaca", url=url)

    async def refused(key: str) -> str:
        secrets = Secrets(apca_api_key_id=SecretStr(key), apca_api_secret_key=SecretStr(key))
        with pytest.raises(StreamError) as refusal:
            await build(wrong, secrets, sqlite, SYMBOLS).run()
        return str(refusal.value)

    async def scenario() -> list[str]:
        async with server_of(market, settings):
            return [await refused(key) for key in ("recycler", "PK-OTHER")]

    for message in asyncio.run(scenario()):
        assert f"{url} (websocket.url) is a recycler" in message
        assert "set websocket.mode=recycler" in message
    assert sqlite.read_table("market_data").is_empty()


def test_a_thin_symbol_is_waited_for_longer_and_longer(
    tmp_path: Path, rest: Stub, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("garch_platform.stream.hours.MarketHours.is_open", lambda *_: True)
    monkeypatch.setattr("garch_platform.stream.feed.BarFeed.pause", lambda *_: 0.0)
    register(sqlite, "AAPL", "AMD")

    async def scenario() -> None:
        stop = asyncio.Event()
        async with AlpacaStream() as stream:
            settings = alpaca_settings(tmp_path, stream, rest, mute_seconds=0.05)
            running = build(settings, SECRETS, sqlite, ["AAPL"])
            task = asyncio.create_task(running.run(stop))
            await until(lambda: stream.connections == 4)
            assert running._connection._patience == pytest.approx(0.4)
            await until(lambda: running.status().connected)
            await stream.say(wire_bar("b", "AAPL", minute(0), 10.0))
            await until(lambda: running.counts.received == 1)
            assert running._connection._patience == pytest.approx(0.05)
            stop.set()
            assert (await task).connections >= 4

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("refusal", "text"),
    [
        (402, "set APCA_API_KEY_ID and APCA_API_SECRET_KEY to the credentials that the server knows"),
        (409, "websocket.feed is 'iex', which the account's plan does not include"),
    ],
)
def test_what_no_retry_can_mend_ends_the_client(
    tmp_path: Path, rest: Stub, sqlite: Database, refusal: int, text: str
) -> None:
    async def scenario() -> None:
        async with AlpacaStream([refusal]) as stream:
            try:
                await client(tmp_path, stream, rest, sqlite).run()
            finally:
                assert stream.connections == 1

    with pytest.raises(StreamError, match=text) as error:
        asyncio.run(scenario())
    assert "hidden-secret" not in str(error.value)


@pytest.mark.parametrize("code", [405, 409, 410])
def test_errors_after_the_subscription_end_the_client(
    tmp_path: Path, rest: Stub, sqlite: Database, code: int
) -> None:
    async def scenario() -> None:
        async with AlpacaStream(after_subscribe=code) as stream:
            await client(tmp_path, stream, rest, sqlite).run()

    with pytest.raises(StreamError, match=f"says {code} "):
        asyncio.run(scenario())


def test_a_taken_connection_is_not_hammered(tmp_path: Path, rest: Stub, sqlite: Database) -> None:
    """406: nothing for the long pause, then another try."""

    async def scenario() -> tuple[int, float]:
        async with AlpacaStream([406]) as stream:
            running = client(tmp_path, stream, rest, sqlite)
            running._connection._limit_seconds = 0.8
            stop = asyncio.Event()
            task = asyncio.create_task(running.run(stop))
            begin = asyncio.get_running_loop().time()
            await until(lambda: running.status().connected)
            waited = asyncio.get_running_loop().time() - begin
            stop.set()
            await task
            return stream.connections, waited

    connections, waited = asyncio.run(scenario())
    assert connections == 2
    assert waited >= 0.8
    assert client_module.CONNECTION_LIMIT_SECONDS >= 60


def test_silence_counts_only_while_the_market_is_open(
    tmp_path: Path, rest: Stub, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def reconnects(*, is_open: bool) -> int:
        monkeypatch.setattr("garch_platform.stream.hours.MarketHours.is_open", lambda *_: is_open)
        stop = asyncio.Event()
        async with AlpacaStream() as stream:
            register(sqlite, "AAPL")
            settings = alpaca_settings(tmp_path, stream, rest, mute_seconds=0.2)
            running = build(settings, SECRETS, sqlite, ["AAPL"])
            task = asyncio.create_task(running.run(stop))
            await until(lambda: running.status().connected)
            if is_open:
                await until(lambda: stream.connections > 1)
            else:
                await asyncio.sleep(0.6)
            stop.set()
            await task
            return stream.connections - 1

    assert asyncio.run(reconnects(is_open=False)) == 0
    assert asyncio.run(reconnects(is_open=True)) >= 1
