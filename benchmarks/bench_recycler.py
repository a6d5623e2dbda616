"""Bars delivered per second of the server's CPU, against a plain `websockets` send loop and `broadcast`.

    python benchmarks/bench_recycler.py [--clients 1 10 100 1000] [--symbols 50]

Every server runs in a process of its own and is measured by that process's CPU time, from the first bar
to the last byte taken by the kernel. The clients are raw sockets in another process that read as fast as
they can and look at nothing. All servers send the same bars in MessagePack, uncompressed:

- send loop: every bar is encoded once and sent to every client, ``await connection.send(message)``;
- broadcast: every bar is encoded once, ``broadcast(connections, message)``, then the loop may turn;
- recycler, one write a tick: as it sends at a set speed, when a tick is alone in its millisecond;
- recycler, at speed max: ticks that follow one another share a write.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import resource
import selectors
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import msgpack
from websockets.asyncio.server import ServerConnection, broadcast, serve
from websockets.frames import Frame, Opcode

from garch_platform.recycler import fanout
from garch_platform.recycler.server import RecyclerServer
from garch_platform.recycler.tick import Bar, Tick
from garch_platform.recycler.wire import MSGPACK
from garch_platform.settings import load_settings
from garch_platform.settings.live import Secrets

START = datetime(2018, 3, 1, 14, 30, tzinfo=UTC)
HANDSHAKE = (
    "GET /v2/sip HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    "Content-Type: application/msgpack\r\n\r\n"
)
READ_BYTES = 1 << 20
DELIVERIES = {
    "send loop": 200_000,
    "broadcast": 400_000,
    "one write a tick": 5_000_000,
    "speed max": 10_000_000,
}
MOST_TICKS = 10_000
FEWEST_TICKS = 20


def ticks(count: int, symbols: int) -> Sequence[Tick]:
    """Ticks a minute apart with prices that need all their digits."""
    names = [f"S{number:03d}" for number in range(symbols)]
    made = []
    for step in range(count):
        price = 100 + step / 7
        bars = tuple(
            Bar(name, price, price + 0.1, price - 0.1, price + 1 / 30, 1e4 + step, 42, price + 1 / 90)
            for name in names
        )
        moment = START + step * timedelta(minutes=1)
        made.append(Tick(moment, moment, bars, False))
    return made


class GatedReplay:
    """Waits until all clients are there, then gives its ticks at once."""

    speed = "max"

    def __init__(self, made: Sequence[Tick]) -> None:
        self.made = made
        self.gate = asyncio.Event()

    async def ticks(self) -> AsyncIterator[Tick]:
        """The ticks."""
        await self.gate.wait()
        for tick in self.made:
            yield tick

    def symbols(self) -> list[str]:
        """Those of the first tick."""
        return [bar.symbol for bar in self.made[0].bars]

    def status(self) -> dict[str, Any]:
        """As fast as clients take it."""
        return {"speed": "max", "timeframe": "1Min", "paused": False}

    def proxies(self) -> dict[str, list[dict[str, Any]]]:
        """None."""
        return {}

    def replayed(self, *_: object) -> Iterator[tuple[datetime, Bar]]:
        """Nothing: no client asks."""
        return iter(())

    def pause(self) -> None:
        """Not used."""

    resume = seek = set_speed = pause


def allow_files() -> None:
    """As many sockets as the system lets one process open."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


async def until(is_so: Callable[[], bool]) -> None:
    """Look every millisecond."""
    while not is_so():  # noqa: ASYNC110
        await asyncio.sleep(0.001)


def are_drained(connections: Iterable[ServerConnection]) -> bool:
    """Whether the kernel has taken every byte."""
    return not any(connection.transport.get_write_buffer_size() for connection in connections)


async def plain_server(pipe: Connection, kind: str, clients: int, made: Sequence[Tick]) -> None:
    """The two servers that anybody writes first."""
    connections: list[ServerConnection] = []
    complete, over = asyncio.Event(), asyncio.Event()

    async def converse(connection: ServerConnection) -> None:
        await connection.recv()
        await connection.recv()
        connections.append(connection)
        if len(connections) == clients:
            complete.set()
        await over.wait()

    async with serve(converse, "127.0.0.1", 0, compression=None, ping_interval=None, backlog=1024) as server:
        pipe.send(server.sockets[0].getsockname()[1])
        await complete.wait()
        began, cpu = time.perf_counter(), time.process_time()
        for tick in made:
            moment = MSGPACK.moment(tick.timestamp)
            for bar in tick.bars:
                message = MSGPACK.payload([MSGPACK.element("b", bar, moment)])
                if kind == "broadcast":
                    broadcast(connections, message)
                else:
                    for connection in connections:
                        await connection.send(message)
            if kind == "broadcast":
                await asyncio.sleep(0)
        await until(lambda: are_drained(connections))
        pipe.send((time.process_time() - cpu, time.perf_counter() - began))
        over.set()


async def recycler_server(pipe: Connection, kind: str, clients: int, made: Sequence[Tick]) -> None:
    """The recycler; its coalescing across ticks is off where each tick shall be one write."""
    if kind == "one write a tick":
        fanout.COALESCE_SECONDS = 0.0  # type: ignore[misc]
    replay = GatedReplay(made)
    settings = load_settings().websocket.recycler.model_copy(update={"stall_seconds": 60.0})
    async with RecyclerServer(replay, settings, Secrets(), port=0) as server:  # type: ignore[arg-type]
        pipe.send(server.port)
        await until(lambda: len(server._fanout._group_of) == clients)  # noqa: SLF001
        began, cpu = time.perf_counter(), time.process_time()
        replay.gate.set()
        await server.finished()
        await until(lambda: are_drained(client.connection for client in server._clients))  # noqa: SLF001
        pipe.send((time.process_time() - cpu, time.perf_counter() - began))
        assert server.status()["delivered"] == clients * sum(len(tick.bars) for tick in made)


def serve_process(pipe: Connection, kind: str, clients: int, count: int, symbols: int) -> None:
    """Body of the server's process."""
    allow_files()
    run = plain_server if kind in ("send loop", "broadcast") else recycler_server
    asyncio.run(run(pipe, kind, clients, ticks(count, symbols)))


def drain_process(pipe: Connection, port: int, clients: int) -> None:
    """Body of the clients' process: connect, authenticate, subscribe, read until the server closes."""
    allow_files()
    requests: list[dict[str, Any]] = [
        {"action": "auth", "key": "recycler", "secret": "recycler"},
        {"action": "subscribe", "bars": ["*"]},
    ]
    opening = HANDSHAKE.encode() + b"".join(
        Frame(Opcode.BINARY, msgpack.packb(request)).serialize(mask=True) for request in requests
    )
    selector = selectors.DefaultSelector()
    for _ in range(clients):
        client = socket.create_connection(("127.0.0.1", port))
        client.sendall(opening)
        client.setblocking(False)
        selector.register(client, selectors.EVENT_READ)
    buffer = bytearray(READ_BYTES)
    received = 0
    while selector.get_map():
        for key, _ in selector.select():
            client = key.fileobj
            assert isinstance(client, socket.socket)
            try:
                size = client.recv_into(buffer)
            except BlockingIOError:
                continue
            except ConnectionResetError:
                size = 0
            received += size
            if not size:
                selector.unregister(client)
                client.close()
    pipe.send(received)


def measure(kind: str, clients: int, symbols: int) -> tuple[float, float, int]:
    """Bars delivered per CPU second and per second of the clock, and the bytes received."""
    count = min(MOST_TICKS, max(FEWEST_TICKS, DELIVERIES[kind] // (clients * symbols)))
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    server = context.Process(target=serve_process, args=(theirs, kind, clients, count, symbols))
    server.start()
    port = ours.recv()
    received, given = context.Pipe()
    drain = context.Process(target=drain_process, args=(given, port, clients))
    drain.start()
    cpu, wall = ours.recv()
    server.join()
    size = received.recv()
    drain.join()
    delivered = count * symbols * clients
    return delivered / cpu, delivered / wall, size


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 10, 100, 1000])
    parser.add_argument("--symbols", type=int, default=50, help="bars a tick")
    parser.add_argument("--runs", type=int, default=3, help="the median of them is printed")
    given = parser.parse_args()
    print(
        f"{given.symbols} bars a tick; bars delivered per second of the server's CPU, median of {given.runs}"
    )
    print(f"{'clients':>7}  {'server':<28} {'per CPU s':>12} {'per s':>12}  times the send loop")
    for clients in given.clients:
        base = 0.0
        for kind in DELIVERIES:
            runs = [measure(kind, clients, given.symbols) for _ in range(given.runs)]
            per_cpu, per_second = median(run[0] for run in runs), median(run[1] for run in runs)
            base = base or per_cpu
            name = kind if kind in ("send loop", "broadcast") else f"recycler, {kind}"
            print(
                f"{clients:>7}  {name:<28} {per_cpu:>12,.0f} {per_second:>12,.0f}  {per_cpu / base:8.1f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
