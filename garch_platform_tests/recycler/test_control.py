"""Control, status and the REST bars: both ends of the commands, and Alpaca's own historical client."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import httpx
import polars as pl
import pytest
from alpaca.common.exceptions import APIError
from alpaca.data.historical import StockHistoricalDataClient
from alpaca.data.requests import StockBarsRequest
from alpaca.data.timeframe import TimeFrame
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from garch_platform.errors import StoreError, StreamError
from garch_platform.recycler import answers, outbox
from garch_platform.recycler.control import RecyclerControl, command, moment_of, speed_of
from garch_platform.recycler.server import RecyclerServer
from garch_platform.recycler.tick import Bar
from garch_platform_tests.conftest import free_port
from garch_platform_tests.recycler.replay import (
    KEY,
    MINUTE,
    SECRET,
    START,
    ScriptedReplay,
    call,
    make_server,
    make_tick,
)

HEADERS = {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET}
NAMES = ["AAPL", "MSFT", "SPY"]


def run(scenario: Callable[[RecyclerServer, ScriptedReplay], Awaitable[None]], *, ticks: int = 0) -> None:
    """Run ``scenario`` with a server that has already sent some ticks."""

    async def main() -> None:
        replay = ScriptedReplay(NAMES)
        async with make_server(replay) as server:
            replay.give(*(make_tick(step, NAMES) for step in range(ticks)))
            await sent(replay, ticks)
            await scenario(server, replay)

    asyncio.run(main())


async def sent(replay: ScriptedReplay, count: int) -> None:
    """Until ``count`` ticks were taken."""
    while len(replay.emitted) < count:  # noqa: ASYNC110
        await asyncio.sleep(0)


def http(server: RecyclerServer) -> str:
    """Base URL of the REST side."""
    return server.url.replace("ws", "http", 1)


def control(server: RecyclerServer, **changes: str) -> RecyclerControl:
    """A control with the right credentials, or others."""
    key, secret = changes.get("key", KEY), changes.get("secret", SECRET)
    return RecyclerControl(changes.get("url", server.url), SecretStr(key), SecretStr(secret))


def test_commands_reach_the_replay_and_answer_with_the_status() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        commands = control(server)
        status = await asyncio.to_thread(commands.status)
        assert (status["paused"], status["url"], status["clients"]) == (False, server.url, 0)
        assert (await asyncio.to_thread(commands.pause))["paused"] is True
        assert (await asyncio.to_thread(commands.resume))["paused"] is False
        for speed in (60.0, "max"):
            assert (await asyncio.to_thread(commands.speed, speed))["speed"] == speed
        moments: list[Any] = ["2018-03-02", date(2018, 3, 2), START, "2018-03-01T14:30:00Z"]
        sought = []
        for moment in moments:
            await asyncio.to_thread(commands.seek, moment)
            sought.append(replay.sought)
        assert sought == [date(2018, 3, 2), date(2018, 3, 2), START, START]

    run(scenario)


def test_credentials_never_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """The library writes the headers of a handshake at DEBUG."""

    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        await asyncio.to_thread(control(server).status)
        with pytest.raises(StreamError):
            await asyncio.to_thread(control(server, secret="wrong-4711").status)

    with caplog.at_level(logging.DEBUG), caplog.at_level(logging.DEBUG, "websockets.client"):
        run(scenario)
    assert "asyncio" in caplog.text
    assert not any(secret in caplog.text for secret in (KEY, SECRET, "wrong-4711"))


def test_what_the_replay_refuses_is_the_callers_error() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        def refuse(_: object) -> None:
            raise StreamError("2001-01-01 lies outside 2018-03-01 to 2018-03-31")

        replay.seek = refuse  # type: ignore[method-assign, assignment]
        with pytest.raises(StreamError, match="lies outside 2018-03-01"):
            await asyncio.to_thread(control(server).seek, "2001-01-01")
        with pytest.raises(StreamError, match="no positive number"):
            await asyncio.to_thread(control(server).speed, -1.0)

    run(scenario)


@pytest.mark.parametrize("speed", [0, -1, float("nan"), float("inf"), "fast", None, True, [1]])
def test_wrong_speeds(speed: object) -> None:
    with pytest.raises(StreamError, match="no positive number"):
        speed_of(speed)


def test_moments() -> None:
    assert moment_of("2018-03-01T09:30:00-05:00") == START
    assert moment_of("2018-03-01T14:30:00") == START
    for wrong in ("2018-13-01", "yesterday", "", "0001-01-01T00:00:00+23:59"):
        with pytest.raises(StreamError, match="no moment to seek"):
            moment_of(wrong)


@pytest.mark.parametrize(
    "data", ["", "[]", '{"action":"seek"}', '{"action":"stop"}', '{"action":"speed"}', b"\xc1"]
)
def test_unknown_commands_are_refused_with_those_that_are_known(data: str | bytes) -> None:
    assert "send status, pause, resume" in command(ScriptedReplay(), data)


def test_nothing_listens() -> None:
    commands = RecyclerControl(f"ws://127.0.0.1:{free_port()}", SecretStr(KEY), SecretStr(SECRET))
    with pytest.raises(StreamError, match="garch recycle") as refusal:
        commands.status()
    assert SECRET not in str(refusal.value)


def test_wrong_credentials_and_another_server() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        with pytest.raises(StreamError, match="GARCH_RECYCLER_KEY"):
            await asyncio.to_thread(control(server, secret="wrong").pause)
        with pytest.raises(StreamError, match=r"no recycler \(HTTP 404\)"):
            await asyncio.to_thread(control(server, url=f"{server.url}/elsewhere").pause)

    run(scenario)


def test_status_and_proxies_over_http() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        replay.stand_ins = {"NEW": [{"proxy": "AAPL", "start": START, "end": None}]}
        await call(server)
        async with httpx.AsyncClient(base_url=http(server), headers=HEADERS) as client:
            status = (await client.get("/recycler/status")).json()
            assert (status["clients"], status["ended"], status["mode"]) == (1, False, "scripted")
            assert (await client.get("/recycler/proxies")).json() == {
                "NEW": [{"proxy": "AAPL", "start": "2018-03-01T14:30:00Z", "end": None}]
            }
            assert (await client.post("/recycler/status")).status_code == 405
            assert (await client.get("/recycler/secrets")).status_code == 404
        for wrong in ({}, {**HEADERS, "APCA-API-SECRET-KEY": "wrong"}):
            async with httpx.AsyncClient(base_url=http(server), headers=wrong) as client:
                for path in (
                    "/recycler/status",
                    "/recycler/proxies",
                    "/v2/stocks/bars?symbols=AAPL&timeframe=1Min",
                ):
                    answer = await client.get(path)
                    assert (answer.status_code, answer.json()) == (401, {"message": "unauthorized."})

    run(scenario)


async def history(server: RecyclerServer, **request: Any) -> dict[str, list[Any]]:
    """Bars by Alpaca's own client."""
    client = StockHistoricalDataClient(KEY, SECRET, url_override=http(server))
    answer = await asyncio.to_thread(client.get_stock_bars, StockBarsRequest(**request))
    return dict(answer.data)  # type: ignore[union-attr]


def test_alpacas_client_gets_what_was_sent_and_nothing_of_the_future() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        request = {"symbol_or_symbols": ["SPY", "AAPL", "NONE"], "timeframe": TimeFrame.Minute}
        bars = await history(server, **request)
        assert sorted(bars) == ["AAPL", "SPY"]
        for symbol, found in bars.items():
            expected = [next(bar for bar in tick.bars if bar.symbol == symbol) for tick in replay.emitted]
            assert [
                Bar(one.symbol, one.open, one.high, one.low, one.close, one.volume, one.trade_count, one.vwap)
                for one in found
            ] == expected
            assert [one.timestamp for one in found] == [tick.timestamp for tick in replay.emitted]
        replay.give(make_tick(30, NAMES))
        await sent(replay, 31)
        later = await history(server, **request, start=START + 29 * MINUTE)
        assert [one.timestamp for one in later["SPY"]] == [START + 29 * MINUTE, START + 30 * MINUTE]
        both_ends = await history(server, **request, start=START + MINUTE, end=START + 2 * MINUTE)
        assert [one.timestamp for one in both_ends["AAPL"]] == [START + MINUTE, START + 2 * MINUTE]

    run(scenario, ticks=30)


@pytest.mark.parametrize("sort", ["asc", "desc"])
@pytest.mark.parametrize("limit", [7, 30, 31, 89, 90, 91])
def test_pages_of_any_size_hold_every_bar_once(limit: int, sort: str) -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        query = {"symbols": ",".join(NAMES), "timeframe": "1Min", "limit": limit, "sort": sort, "feed": "iex"}
        found: list[tuple[str, str]] = []
        async with httpx.AsyncClient(base_url=http(server), headers=HEADERS) as client:
            token: str | None = ""
            while token is not None:
                place = {"page_token": token} if token else {}
                page = (await client.get("/v2/stocks/bars", params={**query, **place})).json()
                rows = [(symbol, bar["t"]) for symbol, bars in page["bars"].items() for bar in bars]
                assert len(rows) == min(limit, 90 - len(found))
                found += rows
                token = page["next_page_token"]
        moments = [(START + step * MINUTE).isoformat().replace("+00:00", "Z") for step in range(30)]
        moments = moments if sort == "asc" else moments[::-1]
        assert found == [(symbol, moment) for symbol in NAMES for moment in moments]

    run(scenario, ticks=30)


def test_daily_bars_are_made_of_the_minutes_that_were_sent() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        replay.give(make_tick(0, NAMES, start=START + timedelta(days=1)))
        await sent(replay, 4)
        days = (await history(server, symbol_or_symbols=["SPY"], timeframe=TimeFrame.Day))["SPY"]
        assert [(day.timestamp, day.volume) for day in days] == [
            (datetime(2018, 3, 1, 5, tzinfo=UTC), 3003.0),
            (datetime(2018, 3, 2, 5, tzinfo=UTC), 1000.0),
        ]
        request = {"symbol_or_symbols": ["SPY"], "timeframe": TimeFrame.Day}
        later = await history(server, **request, start=datetime(2018, 3, 1, 15, tzinfo=UTC))
        assert [day.volume for day in later["SPY"]] == [1000.0]
        earlier = await history(server, **request, end=datetime(2018, 3, 1, 5, tzinfo=UTC))
        assert [day.volume for day in earlier["SPY"]] == [3003.0]

    run(scenario, ticks=3)


def test_days_may_be_asked_for_from_the_first_to_the_last_there_is() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        async with httpx.AsyncClient(base_url=http(server), headers=HEADERS) as client:
            ends = {"start": "0001-01-01T00:00:00Z", "end": "9999-12-31T23:59:59Z"}
            page = await client.get("/v2/stocks/bars", params={"symbols": "SPY", "timeframe": "1Day", **ends})
        assert [day["v"] for day in page.json()["bars"]["SPY"]] == [3003]

    run(scenario, ticks=3)


def test_one_symbols_bars_in_their_own_shape() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        async with httpx.AsyncClient(base_url=http(server), headers=HEADERS) as client:
            query = {"timeframe": "1Min", "start": "2018-03-01", "end": "2018-03-01", "limit": "2"}
            page = (await client.get("/v2/stocks/SPY/bars", params=query)).json()
        assert (page["symbol"], len(page["bars"])) == ("SPY", 2)
        assert list(page["bars"][0]) == ["o", "h", "l", "c", "v", "t", "n", "vw"]

    run(scenario, ticks=3)


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("timeframe=1Min", "symbols"),
        ("symbols=&timeframe=1Min", "symbols"),
        ("symbols=SPY", "timeframe"),
        ("symbols=SPY&timeframe=5Min", "timeframe"),
        ("symbols=SPY&timeframe=1Min&limit=0", "limit"),
        ("symbols=SPY&timeframe=1Min&limit=10001", "limit"),
        ("symbols=SPY&timeframe=1Min&limit=x", "limit"),
        ("symbols=SPY&timeframe=1Min&limit=" + "9" * 5000, "limit"),
        ("symbols=SPY&timeframe=1Min&start=yesterday", "start"),
        ("symbols=SPY&timeframe=1Min&end=2018-02-30", "end"),
        ("symbols=SPY&timeframe=1Min&page_token=%21", "page_token"),
        ("symbols=SPY&timeframe=1Min&page_token=QUJD", "page_token"),
        ("symbols=SPY&timeframe=1Min&page_token=U1BZfDAwMDEtMDEtMDFUMDA6MDA6MDArMjM6NTk=", "page_token"),
        ("symbols=SPY&timeframe=1Min&sort=up", "sort"),
    ],
)
def test_a_wrong_query_says_what_is_wrong(query: str, wrong: str) -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        async with httpx.AsyncClient(base_url=http(server), headers=HEADERS) as client:
            answer = await client.get(f"/v2/stocks/bars?{query}")
        assert answer.status_code == 400
        assert answer.json()["message"].startswith(f"{wrong}: ")

    run(scenario)


def test_alpacas_client_sees_wrong_credentials_as_its_own_error() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        client = StockHistoricalDataClient(KEY, "wrong", url_override=http(server))
        request = StockBarsRequest(symbol_or_symbols="SPY", timeframe=TimeFrame.Minute)
        with pytest.raises(APIError) as refusal:
            await asyncio.to_thread(client.get_stock_bars, request)
        assert refusal.value.status_code == 401

    run(scenario)


def test_bars_that_cannot_be_read_again_are_an_error_and_not_an_empty_page() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        def fail(*_: object, **__: object) -> None:
            raise StoreError("the lake is locked; try again")

        replay.replayed = fail  # type: ignore[method-assign, assignment]
        async with httpx.AsyncClient(base_url=http(server), headers=HEADERS) as client:
            answer = await client.get("/v2/stocks/bars?symbols=SPY&timeframe=1Min")
        assert (answer.status_code, answer.json()["message"]) == (500, "the lake is locked; try again")

    run(scenario)


class Blocked:
    """In place of a replay's `replayed`: it waits until it is let go, and knows how many wait."""

    def __init__(self, replay: ScriptedReplay) -> None:
        self.release = threading.Event()
        self.waiting = self.most = 0
        self._lock = threading.Lock()
        replay.replayed = self  # type: ignore[method-assign, assignment]

    def __call__(self, *_: object, **__: object) -> list[pl.DataFrame]:
        with self._lock:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        self.release.wait(10)
        with self._lock:
            self.waiting -= 1
        return []


PAGE = "/v2/stocks/bars?symbols=SPY&timeframe=1Min"


def test_a_page_may_take_longer_than_a_handshake(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "HANDSHAKE_SECONDS", 0.2)

    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        blocked = Blocked(replay)
        async with httpx.AsyncClient(base_url=http(server), headers=HEADERS) as client:
            asyncio.get_running_loop().call_later(0.5, blocked.release.set)
            answer = await client.get(PAGE)
        assert (answer.status_code, answer.json()) == (200, {"bars": {}, "next_page_token": None})

    run(scenario)


def test_pages_that_nobody_waits_for_any_more_keep_their_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answers, "ANSWER_SECONDS", 0.2)

    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        blocked = Blocked(replay)
        async with httpx.AsyncClient(base_url=http(server), headers=HEADERS) as client:
            for _ in range(3):
                refused = await asyncio.gather(*(client.get(PAGE) for _ in range(4)))
                assert {one.status_code for one in refused} == {504}
                assert "fewer symbols" in refused[0].json()["message"]
            assert blocked.waiting == blocked.most == answers.READERS
            blocked.release.set()
            while (answer := await client.get(PAGE)).status_code == 504:
                pass
        assert answer.status_code == 200

    run(scenario)


def test_stopping_does_not_wait_for_a_page() -> None:
    async def main() -> None:
        replay = ScriptedReplay(NAMES)
        blocked = Blocked(replay)
        server = make_server(replay)
        await server.start()
        try:
            async with httpx.AsyncClient(base_url=http(server), headers=HEADERS) as client:
                asked = asyncio.create_task(client.get(PAGE))
                while not blocked.waiting:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
                await asyncio.wait_for(server.stop(), 5)
                assert (await asked).status_code == 503
        finally:
            blocked.release.set()

    asyncio.run(main())


def test_web_pages_are_not_let_in() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        for origin in ("http://127.0.0.1:8000", "https://example.org", "null"):
            for path in ("/v2/iex", "/recycler/control"):
                with pytest.raises(InvalidStatus) as refusal:
                    await connect(f"{server.url}{path}", additional_headers={**HEADERS, "Origin": origin})
                assert refusal.value.response.status_code == 403
            async with httpx.AsyncClient(
                base_url=http(server), headers={**HEADERS, "Origin": origin}
            ) as client:
                for path in ("/recycler/status", "/recycler/proxies", PAGE, "/elsewhere"):
                    assert (await client.get(path)).status_code == 403
                    assert (await client.options(path)).status_code == 403
        assert server.status()["clients"] == 0

    run(scenario)


def test_a_name_that_was_made_to_point_here_is_not_served() -> None:
    """DNS rebinding: to the browser such a page is of the same origin, so it sends no Origin."""

    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        async with httpx.AsyncClient(base_url=http(server), headers=HEADERS) as client:
            for name in ("evil.example", f"evil.example:{server.port}", "", "127.0.0.1.evil.example", "[x"):
                answer = await client.get("/recycler/status", headers={"Host": name})
                assert answer.status_code == 403
            for name in ("localhost", f"LOCALHOST:{server.port}", "127.0.0.1", f"[::1]:{server.port}"):
                answer = await client.get("/recycler/status", headers={"Host": name})
                assert answer.status_code == 200

    run(scenario)
