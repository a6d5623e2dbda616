"""The server with plain clients: what reaches whom, in which order, and what a replay's end means."""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from pydantic import SecretStr
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosedOK, InvalidStatus

from garch_platform.errors import ConfigurationError, SourceError, StreamError
from garch_platform.recycler.control import RecyclerControl
from garch_platform.recycler.server import RecyclerServer
from garch_platform.recycler.tick import Bar
from garch_platform.recycler.wire import error
from garch_platform.settings.live import Secrets
from garch_platform_tests.recycler.read_wire import read_bar
from garch_platform_tests.recycler.replay import (
    KEY,
    MINUTE,
    SECRET,
    START,
    Caller,
    ScriptedReplay,
    call,
    make_server,
    make_tick,
    recycler_settings,
    secrets,
)

CODECS = pytest.mark.parametrize("is_msgpack", [False, True], ids=["json", "msgpack"])


def run(scenario: Callable[[RecyclerServer, ScriptedReplay], Awaitable[None]], **options: Any) -> None:
    """Run ``scenario`` with a server and its replay."""

    async def main() -> None:
        replay = options.pop("replay", None) or ScriptedReplay()
        async with make_server(replay, **options) as server:
            await scenario(server, replay)

    asyncio.run(main())


def sent(messages: list[dict[str, Any]], kind: str = "b") -> list[Bar]:
    """The bars of one kind among ``messages``."""
    return [read_bar(message)[1] for message in messages if message["T"] == kind]


@CODECS
def test_subscribed_bars_arrive_equal_and_in_order(is_msgpack: bool) -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server, is_msgpack=is_msgpack)
        await caller.subscribe(bars=["MSFT"])
        ticks = [make_tick(step, ["AAPL", "MSFT"]) for step in range(20)]
        replay.give(*ticks)
        messages = await caller.bars(20)
        assert [read_bar(message) for message in messages] == [
            (tick.timestamp, tick.bars[1]) for tick in ticks
        ]

    run(scenario)


def test_each_client_gets_its_own_symbols_and_a_missing_bar_is_missing() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        everything, one, days = [await call(server) for _ in range(3)]
        await everything.subscribe(bars=["*"])
        await one.subscribe(bars=["MSFT", "NONE"])
        await days.subscribe(dailyBars=["AAPL"])
        replay.give(make_tick(0, ["AAPL", "MSFT"]), make_tick(1, ["AAPL"]), make_tick(2, ["AAPL", "MSFT"]))
        assert [message["S"] for message in await everything.bars(5)] == [
            "AAPL",
            "MSFT",
            "AAPL",
            "AAPL",
            "MSFT",
        ]
        assert [read_bar(message)[0] for message in await one.bars(2)] == [START, START + 2 * MINUTE]
        messages = await days.bars(3)
        assert [message["T"] for message in messages] == ["d"] * 3
        assert [message["v"] for message in messages] == [1000, 2001, 3003]
        assert {message["t"] for message in messages} == {"2018-03-01T05:00:00Z"}

    run(scenario)


def test_the_daily_bar_counts_the_minutes_before_it_was_subscribed() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server)
        await caller.subscribe(bars=["AAPL"])
        replay.give(make_tick(0, ["AAPL"]))
        await caller.bars(1)
        await caller.subscribe(dailyBars=["*"])
        replay.give(make_tick(1, ["AAPL"]))
        day = sent(await caller.bars(2), "d")[0]
        first, second = make_tick(0, ["AAPL"]).bars[0], make_tick(1, ["AAPL"]).bars[0]
        assert (day.open, day.close, day.volume) == (first.open, second.close, 2001.0)

    run(scenario)


def test_nothing_comes_before_the_acknowledgement_or_after_an_unsubscription() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server)
        await caller.subscribe(bars=["AAPL", "MSFT"])
        replay.give(make_tick(0, ["AAPL", "MSFT"]))
        assert len(await caller.bars(2)) == 2
        answer = await caller.ask(action="unsubscribe", bars=["AAPL"])
        assert answer[0]["bars"] == ["MSFT"]
        replay.give(make_tick(1, ["AAPL", "MSFT"]))
        assert [message["S"] for message in await caller.receive()] == ["MSFT"]

    run(scenario)


def test_the_empty_channels_are_acknowledged_and_stay_empty() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        quiet, loud = await call(server), await call(server)
        answer = await quiet.subscribe(
            trades=["AAPL"], quotes=["*"], updatedBars=["*"], statuses=["*"], lulds=["*"]
        )
        assert answer[0]["cancelErrors"] == ["AAPL"]
        await loud.subscribe(bars=["*"])
        replay.give(make_tick(0, ["AAPL"]))
        await loud.bars(1)
        assert (await quiet.ask(action="subscribe"))[0]["T"] == "subscription"

    run(scenario)


def test_the_test_feed_gives_bars_under_any_symbol() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server, path="/v2/test")
        await caller.subscribe(bars=["FAKEPACA", "MSFT"], dailyBars=["FAKEPACA"])
        replay.give(make_tick(0, ["AAPL", "MSFT"]), make_tick(1, ["MSFT"]))
        messages = await caller.bars(4)
        assert [(message["T"], message["S"]) for message in messages] == [
            ("b", "MSFT"),
            ("b", "FAKEPACA"),
            ("d", "FAKEPACA"),
            ("b", "MSFT"),
        ]
        assert sent(messages)[1][1:] == make_tick(0, ["AAPL"]).bars[0][1:]

    run(scenario)


def test_other_paths_do_not_exist() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        for path in ("/", "/v2/bats", "/v1/iex", "/v2/iex/more"):
            with pytest.raises(InvalidStatus) as refusal:
                await connect(f"{server.url}{path}", proxy=None)
            assert refusal.value.response.status_code == 404

    run(scenario)


@CODECS
def test_a_feed_that_is_not_served_is_409(is_msgpack: bool) -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        for path in ("/v2/sip", "/v2/delayed_sip"):
            caller = await call(server, path=path, is_msgpack=is_msgpack, authenticate=False)
            assert await caller.ask(action="auth", key=KEY, secret=SECRET) == [error(409)]

    run(scenario, feeds=("iex",))


@CODECS
def test_authenticating_twice_is_403_and_a_channel_of_another_feed_is_410(is_msgpack: bool) -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        caller = await call(server, is_msgpack=is_msgpack)
        assert await caller.ask(action="auth", key=KEY, secret=SECRET) == [error(403)]
        assert await caller.subscribe(news=["*"]) == [error(410)]
        assert await caller.ask(action="sing") == [error(400)]

    run(scenario)


def test_headers_authenticate_in_the_handshake() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        headers = {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET}
        caller = await call(server, headers=headers, authenticate=False)
        assert await caller.receive() == [{"T": "success", "msg": "authenticated"}]
        assert (await caller.subscribe(bars=["AAPL"]))[0]["bars"] == ["AAPL"]

    run(scenario)


def test_who_does_not_authenticate_in_time_is_told_404_and_dismissed() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        stayer = await call(server)
        caller = await call(server, authenticate=False)
        assert await caller.ask(action="auth", key=KEY, secret="wrong") == [error(402)]
        assert await caller.receive() == [error(404)]
        await caller.socket.wait_closed()
        assert caller.socket.close_code == 1008
        assert (await stayer.ask(action="subscribe"))[0]["T"] == "subscription"

    run(scenario, auth_seconds=0.8)


def test_the_connection_limit_refuses_and_lets_in_again_on_the_same_socket() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        first = await call(server)
        second = await call(server, authenticate=False)
        assert await second.ask(action="auth", key=KEY, secret=SECRET) == [error(406)]
        await first.socket.close()
        answers = [error(406)]
        while answers == [error(406)]:
            answers = await second.ask(action="auth", key=KEY, secret=SECRET)
        assert answers == [{"T": "success", "msg": "authenticated"}]
        assert server.status()["clients"] == 1

    run(scenario, connection_limit=1)


def test_the_symbol_limit_is_405() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        caller = await call(server)
        assert await caller.subscribe(bars=["A", "B"]) == [error(405)]
        assert (await caller.subscribe(bars=["A"]))[0]["bars"] == ["A"]

    run(scenario, symbol_limit=1)


def test_at_speed_max_the_replay_waits_for_a_listener_and_nobody_misses_a_tick() -> None:
    ticks = [make_tick(step, ["AAPL", "MSFT"]) for step in range(3_000)]

    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server, is_msgpack=True)
        assert not replay.emitted
        await caller.subscribe(bars=["*"])
        messages = await caller.bars(6_000)
        assert sent(messages) == [bar for tick in ticks for bar in tick.bars]
        await server.finished()
        assert server.status()["ended"]
        assert server.status()["delivered"] == 6_000

    run(scenario, replay=ScriptedReplay(ticks=ticks))


def test_the_pace_does_not_cost_a_status() -> None:
    class Taciturn(ScriptedReplay):
        def status(self) -> dict[str, Any]:
            raise AssertionError("nobody asked")

    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        caller = await call(server)
        await caller.subscribe(bars=["*"])
        assert len(await caller.bars(20)) == 20
        await server.finished()

    run(scenario, replay=Taciturn(ticks=[make_tick(step, ["AAPL"]) for step in range(20)]))


def test_at_speed_max_a_slow_reader_is_waited_for() -> None:
    names = [f"S{number}" for number in range(200)]
    ticks = [make_tick(step, names) for step in range(150)]

    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        slow = await call(server, is_msgpack=True, max_queue=1)
        await slow.subscribe(bars=["*"])
        while not server._backlog:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        emitted = len(replay.emitted)
        await asyncio.sleep(0.1)
        assert len(replay.emitted) == emitted < len(ticks)
        assert sent(await slow.bars(30_000)) == [bar for tick in ticks for bar in tick.bars]
        assert server.status()["cut_off"] == 0

    run(scenario, replay=ScriptedReplay(names, ticks), stall_seconds=60)


def test_after_the_replay_the_server_stays_and_answers() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        replay.end()
        await server.finished()
        caller = await call(server)
        assert (await caller.subscribe(bars=["AAPL"]))[0]["bars"] == ["AAPL"]

    run(scenario)


def test_a_replay_that_fails_is_500_to_clients_and_its_own_error_to_the_owner() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server)
        replay.end(SourceError("the lake is gone"))
        assert await caller.receive() == [error(500)]
        with pytest.raises(SourceError, match="the lake is gone"):
            await server.finished()
        assert (await caller.ask(action="subscribe"))[0]["T"] == "subscription"

    run(scenario)


def test_stopping_says_going_away_and_frees_the_port() -> None:
    async def main() -> None:
        server = make_server(ScriptedReplay())
        await server.start()
        caller = await call(server)
        await server.stop()
        with pytest.raises(ConnectionClosedOK):
            await caller.receive()
        assert caller.socket.close_code == 1001
        async with make_server(ScriptedReplay(), port=server.port) as again:
            assert again.port == server.port

    asyncio.run(main())


def test_a_taken_port_names_itself_and_the_remedy() -> None:
    async def main() -> None:
        async with make_server(ScriptedReplay()) as server:
            with pytest.raises(StreamError, match=rf"127.0.0.1:{server.port}.*websocket.recycler.server_url"):
                await make_server(ScriptedReplay(), port=server.port).start()

    asyncio.run(main())


@pytest.mark.parametrize("server_url", ["ws://0.0.0.0:8765", "ws://192.0.2.1:8765"])
def test_other_machines_are_not_let_in_with_the_known_credentials(server_url: str) -> None:
    default = Secrets(_env_file=None)  # type: ignore[call-arg]
    for known in (default, default.model_copy(update={"garch_recycler_key": SecretStr("own")})):
        with pytest.raises(ConfigurationError, match="GARCH_RECYCLER_KEY"):
            RecyclerServer(ScriptedReplay(), recycler_settings(server_url=server_url), known)
    RecyclerServer(ScriptedReplay(), recycler_settings(server_url=server_url), secrets())


@pytest.mark.parametrize("faults", [{}, {"disconnect_after": 1_000}], ids=["honest", "faulty"])
def test_on_the_test_feed_all_symbols_are_all_and_those_that_are_named(faults: dict[str, Any]) -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server, path="/v2/test")
        await caller.subscribe(bars=["*", "FAKEPACA", "AAPL"], dailyBars=["*"])
        replay.give(make_tick(0, ["AAPL", "MSFT"]))
        found = [(one["T"], one["S"]) for one in await caller.bars(5)]
        bars = [("b", name) for name in ("AAPL", "MSFT", "FAKEPACA")]
        assert found == [*bars, ("d", "AAPL"), ("d", "MSFT")]
        other = await call(server)
        await other.subscribe(bars=["*", "FAKEPACA"])
        replay.give(make_tick(1, ["AAPL", "MSFT"]))
        assert [one["S"] for one in await other.bars(2)] == ["AAPL", "MSFT"]

    run(scenario, faults=faults)


def test_tls_by_certificate_and_key(tmp_path: Path) -> None:
    authority = trustme.CA()
    issued = authority.issue_cert("127.0.0.1")
    certificate, key, trusted = (tmp_path / f"{name}.pem" for name in ("certificate", "key", "trusted"))
    authority.cert_pem.write_to_path(trusted)
    issued.cert_chain_pems[0].write_to_path(certificate)
    issued.private_key_pem.write_to_path(key)
    options = {"server_url": "wss://127.0.0.1:8765", "tls_certificate": certificate, "tls_key": key}

    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        context = ssl.create_default_context()
        authority.configure_trust(context)
        caller = await call(server, is_msgpack=True, ssl=context)
        await caller.subscribe(bars=["AAPL"])
        replay.give(make_tick(0, ["AAPL"]))
        assert sent(await caller.bars(1)) == list(make_tick(0, ["AAPL"]).bars)
        await controlled(server)

    async def controlled(server: RecyclerServer) -> None:
        key, secret = SecretStr(KEY), SecretStr(SECRET)
        for right in (trusted, certificate):
            control = RecyclerControl(server.url, key, secret, certificate=right)
            assert (await asyncio.to_thread(control.status))["url"] == server.url
        trustme.CA().cert_pem.write_to_path(tmp_path / "other.pem")
        wrong: list[tuple[str, Path | None, type[Exception], str]] = [
            (server.url, None, StreamError, "is not trusted.*websocket.recycler.tls_certificate"),
            (server.url, tmp_path / "other.pem", StreamError, "is not trusted.*other.pem"),
            (server.url.replace("127.0.0.1", "localhost"), trusted, StreamError, "Hostname mismatch"),
            (server.url, tmp_path / "absent.pem", ConfigurationError, r"absent.pem \(websocket.recycler"),
        ]
        for url, given, kind, message in wrong:
            with pytest.raises(kind, match=message):
                await asyncio.to_thread(RecyclerControl(url, key, secret, certificate=given).status)

    run(scenario, **options)
    with pytest.raises(ConfigurationError, match=r"key.pem cannot be used"):
        RecyclerServer(ScriptedReplay(), recycler_settings(**{**options, "tls_certificate": key}), secrets())


def test_a_control_that_expects_tls_says_that_there_is_none() -> None:
    async def refuse(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        key, secret = SecretStr(KEY), SecretStr(SECRET)
        control = RecyclerControl(server.url.replace("ws:", "wss:"), key, secret)
        with pytest.raises(StreamError, match=r"no recycler answers at wss.*\(\w+.*\)"):
            await asyncio.to_thread(control.status)
        async with await asyncio.start_server(refuse, "127.0.0.1", 0) as plain:
            url = f"wss://127.0.0.1:{plain.sockets[0].getsockname()[1]}"
            with pytest.raises(StreamError, match="speaks no TLS that is understood here"):
                await asyncio.to_thread(RecyclerControl(url, key, secret).status)

    run(scenario)


def test_credentials_never_reach_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        headers = {"APCA-API-KEY-ID": KEY, "APCA-API-SECRET-KEY": SECRET}
        await (await call(server, headers=headers, authenticate=False)).receive()
        await call(server)
        caller = await call(server, authenticate=False)
        await caller.ask(action="auth", key=KEY, secret="wrong-4711")

    logging.getLogger("websockets.client").setLevel(logging.INFO)
    with caplog.at_level(logging.DEBUG):
        run(scenario)
    assert SECRET not in caplog.text
    assert "wrong-4711" not in caplog.text


def test_two_hundred_clients_with_as_many_subscriptions() -> None:
    names = [f"S{number}" for number in range(200)]

    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        callers: list[Caller] = []
        for number in range(200):
            callers.append(await call(server, is_msgpack=number % 2 == 0))
            await callers[-1].subscribe(bars=names[: number + 1])
        replay.give(make_tick(0, names))
        counts = [len(await caller.bars(number + 1)) for number, caller in enumerate(callers)]
        assert counts == [number + 1 for number in range(200)]

    run(scenario, replay=ScriptedReplay(names))


def test_a_tick_larger_than_a_frame_arrives_whole() -> None:
    names = [f"S{number}" for number in range(5_000)]

    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server)
        await caller.subscribe(bars=["*"])
        replay.give(make_tick(0, names))
        assert [message["S"] for message in await caller.bars(5_000)] == names

    run(scenario, replay=ScriptedReplay(names))


def test_status_is_ready_for_json() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        assert json.loads(json.dumps(server.status()))["url"] == server.url

    run(scenario)


def test_the_days_of_a_replay_over_midnight_begin_anew() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server)
        await caller.subscribe(dailyBars=["AAPL"])
        replay.give(make_tick(0, ["AAPL"]), make_tick(0, ["AAPL"], start=START + timedelta(days=1)))
        assert [(one["t"], one["v"]) for one in await caller.bars(2)] == [
            ("2018-03-01T05:00:00Z", 1000),
            ("2018-03-02T05:00:00Z", 1000),
        ]

    run(scenario)
