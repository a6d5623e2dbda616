"""Clients that are slow, broken or ill-meant: they are dealt with, and nobody else notices."""

from __future__ import annotations

import asyncio
import contextlib
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import Frame, Opcode

from garch_platform.recycler import outbox
from garch_platform.recycler import server as subject
from garch_platform.recycler.server import RecyclerServer
from garch_platform.recycler.wire import error
from garch_platform_tests.recycler.read_wire import decode_messages
from garch_platform_tests.recycler.replay import (
    KEY,
    SECRET,
    Caller,
    ScriptedReplay,
    call,
    make_server,
    make_tick,
)

HANDSHAKE = (
    b"GET /v2/iex HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
NAMES = [f"S{number}" for number in range(200)]

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def run(
    scenario: Callable[[RecyclerServer, ScriptedReplay, Caller], Awaitable[None]], **options: Any
) -> None:
    """Run ``scenario`` beside an honest client, which gets its bar afterwards as if nothing had been."""

    async def main() -> None:
        replay = ScriptedReplay(NAMES)
        async with make_server(replay, **options) as server:
            honest = await call(server, is_msgpack=True)
            await honest.subscribe(bars=["S0"])
            await scenario(server, replay, honest)
            replay.give(make_tick(9_999, NAMES))
            started = time.monotonic()
            last = None
            while last != 10_999:
                last = (await honest.bars(1))[-1]["v"]
            assert time.monotonic() - started < 2

    asyncio.run(main())


def frame(**request: Any) -> bytes:
    """A client's frame."""
    return Frame(Opcode.TEXT, json.dumps(request).encode()).serialize(mask=True)


async def raw_client(server: RecyclerServer, after: bytes = b"", *, limit: int = 2**12) -> Streams:
    """A socket that has shaken hands and reads no more than it must."""
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=limit)
    writer.write(HANDSHAKE + frame(action="auth", key=KEY, secret=SECRET) + after)
    await writer.drain()
    await reader.readuntil(b"authenticated")
    return reader, writer


async def last_message(caller: Caller) -> str | bytes:
    """What came last before the connection ended."""
    last: str | bytes = ""
    with contextlib.suppress(ConnectionClosed):
        while True:
            last = await caller.socket.recv()
    return last


async def until(is_so: Callable[[], bool], seconds: float = 10.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(seconds):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("limits", [{"queue_megabytes": 1, "stall_seconds": 60}, {"stall_seconds": 0.4}])
def test_a_client_that_does_not_read_is_cut_off(limits: dict[str, float]) -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay, honest: Caller) -> None:
        reader, _ = await raw_client(server, frame(action="subscribe", bars=["*"]))
        step = 0
        latencies = []
        async with asyncio.timeout(20):
            while not server.status()["cut_off"]:
                given = time.monotonic()
                replay.give(make_tick(step, NAMES))
                await honest.bars(1)
                latencies.append(time.monotonic() - given)
                step += 1
        assert sorted(latencies)[len(latencies) // 2] < 0.25
        async with asyncio.timeout(10):
            with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
                await reader.readexactly(2**40)

    run(scenario, **limits)


def test_a_client_slower_than_its_queue_is_told_407_before_it_is_closed() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay, _: Caller) -> None:
        slow = await call(server, max_queue=1)
        await slow.subscribe(bars=["*"])
        for step in range(1_000):
            if server.status()["cut_off"]:
                break
            replay.give(make_tick(step, NAMES))
            await asyncio.sleep(0)
        await until(lambda: server.status()["cut_off"] == 1)
        assert decode_messages(await last_message(slow)) == [error(407)]
        assert slow.socket.close_code == 1008

    run(scenario, queue_megabytes=0.5)


def test_at_speed_max_nobody_is_waited_for_beyond_the_stall() -> None:
    ticks = [make_tick(step, NAMES) for step in range(200)]

    async def main() -> None:
        async with make_server(ScriptedReplay(NAMES, ticks), stall_seconds=0.6) as server:
            reader, writer = await raw_client(server, frame(action="subscribe", bars=["*"]))
            honest = await call(server, is_msgpack=True)
            await honest.subscribe(bars=["S0"])

            async def trickle() -> None:
                with contextlib.suppress(ConnectionError):
                    while await reader.read(999):  # noqa: ASYNC110
                        await asyncio.sleep(0.05)

            trickling = asyncio.create_task(trickle())
            async with asyncio.timeout(20):
                while (await honest.bars(1))[-1]["v"] != 1_199:
                    pass
            assert server.status()["cut_off"] == 1
            trickling.cancel()
            writer.close()

    asyncio.run(main())


def test_a_client_that_floods_with_pings_and_does_not_read_is_cut_off() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay, __: Caller) -> None:
        _reader, writer = await raw_client(server)
        ping = Frame(Opcode.PING, b"x" * 125).serialize(mask=True) * 1000
        async with asyncio.timeout(20):
            while not server.status()["cut_off"]:
                writer.write(ping)
                await asyncio.sleep(0.002)

    run(scenario, stall_seconds=0.4)


def test_requests_without_end_are_answered_and_take_a_tenth_of_the_server() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay, honest: Caller) -> None:
        flooder = await call(server)
        names = [f"X{number}" for number in range(3_000)]
        for _ in range(10):
            await flooder.send(action="subscribe", bars=names)
        latencies = []
        for step in range(30):
            given = time.monotonic()
            replay.give(make_tick(step, NAMES))
            await honest.bars(1)
            latencies.append(time.monotonic() - given)
        assert sorted(latencies)[15] < 0.25
        for _ in range(10):
            assert len((await flooder.receive(20))[0]["bars"]) == 3_000

    run(scenario)


def test_bad_requests_are_told_so_and_change_nothing() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay, __: Caller) -> None:
        caller = await call(server)
        for nonsense in ("{", b"\xc1\xff", "[[[[", '{"action":"subscribe","bars":[{}]}', "null", ""):
            await caller.socket.send(nonsense)
            assert await caller.receive() == [error(400)]
        assert (await caller.subscribe(bars=["S0"]))[0]["bars"] == ["S0"]

    run(scenario)


def test_a_huge_message_closes_its_own_connection() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay, __: Caller) -> None:
        caller = await call(server)
        await caller.socket.send("x" * (2**20 + 1))
        await caller.socket.wait_closed()
        assert caller.socket.close_code == 1009

    run(scenario)


def test_garbage_instead_of_a_handshake() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay, __: Caller) -> None:
        for garbage in (
            b"\x16\x03\x01" * 99,
            b"GET\r\n\r\n",
            b"GET /v2/iex HTTP/1.1\r\n\r\n",
            b"A" * 99_999,
            b"",
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(garbage)
            writer.write_eof()
            async with asyncio.timeout(5):
                assert b"101 Switching" not in await reader.read(999)
            writer.close()

    run(scenario)


def test_frames_that_break_the_protocol_close_their_own_connection() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay, __: Caller) -> None:
        for bad in (b"\xff" * 64, Frame(Opcode.TEXT, b"{}").serialize(mask=False), b"\x81\x80"):
            reader, writer = await raw_client(server)
            writer.write(bad)
            writer.write_eof()
            async with asyncio.timeout(5):
                while await reader.read(2**16):
                    pass
            writer.close()

    run(scenario)


def test_a_handshake_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(outbox, "HANDSHAKE_SECONDS", 0.3)

    async def scenario(server: RecyclerServer, replay: ScriptedReplay, honest: Caller) -> None:
        opened = [await asyncio.open_connection("127.0.0.1", server.port) for _ in range(50)]
        for _, writer in opened:
            writer.write(HANDSHAKE[:40])
        replay.give(make_tick(0, NAMES))
        await honest.bars(1)
        async with asyncio.timeout(5):
            for reader, writer in opened:
                with pytest.raises((asyncio.IncompleteReadError, ConnectionResetError)):
                    await reader.readexactly(1)
                writer.close()

    run(scenario)


def test_a_peer_that_is_gone_without_a_word_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "KEEPALIVE_SECONDS", 0.3)

    async def scenario(server: RecyclerServer, _: ScriptedReplay, __: Caller) -> None:
        _, writer = await raw_client(server)
        assert server.status()["clients"] == 2
        await until(lambda: server.status()["clients"] == 1)
        writer.close()

    run(scenario)


def test_clients_that_vanish_in_the_middle_leave_nothing_behind() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay, honest: Caller) -> None:
        for step in range(20):
            visitor = await call(server)
            await visitor.subscribe(bars=["*"], dailyBars=["*"])
            replay.give(make_tick(step, NAMES))
            visitor.socket.transport.abort()
            await honest.bars(1)
        await until(lambda: server.status()["clients"] == 1)
        assert len(server._fanout._groups) == 1
        assert not server._backlog

    run(scenario)


def test_who_does_not_authenticate_gets_nothing() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay, honest: Caller) -> None:
        stranger = await call(server, authenticate=False)
        assert await stranger.subscribe(bars=["*"]) == [error(401)]
        replay.give(make_tick(0, NAMES))
        await honest.bars(1)
        with pytest.raises(TimeoutError):
            await stranger.receive(0.1)

    run(scenario)


def test_stopping_does_not_wait_for_a_client_that_does_not_read() -> None:
    async def main() -> None:
        replay = ScriptedReplay(NAMES)
        server = make_server(replay, stall_seconds=60)
        await server.start()
        _, writer = await raw_client(server, frame(action="subscribe", bars=["*"]))
        step = 0
        async with asyncio.timeout(20):
            while not server._backlog:
                replay.give(make_tick(step, NAMES))
                step += 1
                await asyncio.sleep(0.001)
        async with asyncio.timeout(5):
            await server.stop()
        writer.close()

    asyncio.run(main())


def test_a_compressed_connection_is_declined_not_broken() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay, __: Caller) -> None:
        async with connect(f"{server.url}/v2/iex", compression="deflate", proxy=None) as socket:
            assert socket.protocol.extensions == []
            assert "connected" in str(await socket.recv())

    run(scenario)
