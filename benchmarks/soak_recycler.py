"""A soak of the recycler: 1,000 bars a second to 50 clients for ten minutes, one of them stalled.

    python benchmarks/soak_recycler.py [--minutes 10] [--clients 50] [--symbols 50] [--bars 1000]

The server and its clients run in processes of their own. The clients take JSON and MessagePack by turns
and note when each tick arrives and whether it follows the one before; the stalled one subscribes to all,
then never reads, and comes back as soon as it has been cut off. Latency is from the moment the replay gives
a tick to the moment a client has its last bar. Printed once a minute: the server's memory and CPU, what
arrived, and the latency over all clients that read.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import multiprocessing
import os
import re
import resource
import socket
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from bench_replay import fill, resident
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from garch_platform.recycler import service
from garch_platform.recycler.tick import Tick
from garch_platform.settings import Secrets, load_settings
from garch_platform.store.lake import Lake

HEADERS = {"APCA-API-KEY-ID": "recycler", "APCA-API-SECRET-KEY": "recycler"}
REPORT_SECONDS = 5.0
STALL_SECONDS = 5.0
TIMES_TEXT = re.compile(rb'"t":"([^"]+)"')
TIMES_BINARY = re.compile(rb"\xa1t\xd6\xff(.{4})", re.DOTALL)
"""Key t, then a MessagePack timestamp of whole seconds. Decoding in full would measure the clients."""


class NotedReplay:
    """A replay that notes when it gives each tick: stamp in seconds, wall clock in seconds."""

    def __init__(self, replay: Any) -> None:
        self._replay = replay
        self.given: list[tuple[float, float]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replay, name)

    async def ticks(self) -> AsyncIterator[Tick]:
        """The replay's ticks."""
        async for tick in self._replay.ticks():
            self.given.append((tick.timestamp.timestamp(), time.time()))
            yield tick


def serve(folder: str, speed: float, pipe: Connection) -> None:
    """Serve until told to stop; send what was given since, the server's memory, CPU time and status."""
    recycler = {"replay_speed": speed, "replay_mode": "loop", "stall_seconds": STALL_SECONDS}
    settings = load_settings(
        Path(folder), universe={"timeframe": "1Min", "source": "files"}, websocket={"recycler": recycler}
    )
    server = service.build(settings, Secrets(_env_file=None), Lake(Path(folder) / "lake"), port=0)
    server.replay = noted = NotedReplay(server.replay)

    async def report(stop: asyncio.Event) -> None:
        while True:
            await asyncio.sleep(REPORT_SECONDS / 5)
            if pipe.poll():
                pipe.recv()
                break
            given, noted.given = noted.given, []
            usage = resource.getrusage(resource.RUSAGE_SELF)
            rss = resident()[0]
            status = server.status()
            cut = {name: status[name] for name in ("clients", "cut_off")}
            pipe.send((given, rss, usage.ru_utime + usage.ru_stime, cut))
        stop.set()

    async def scenario() -> None:
        stop = asyncio.Event()
        tasks = []

        def ready(_: object) -> None:
            pipe.send(server.url)
            tasks.append(asyncio.create_task(report(stop)))

        await service.run(server, stop=stop, ready=ready)
        await asyncio.gather(*tasks)

    asyncio.run(scenario())


class Reader:
    """A client that reads all and keeps stamps and arrival times."""

    def __init__(self, number: int, symbols: int) -> None:
        self.symbols = symbols
        self.is_binary = number % 2 == 1
        self.arrived: list[tuple[float, float]] = []
        self.bars = 0
        self.faults = 0
        self.last = 0.0

    async def run(self, url: str) -> None:
        """Read until the connection ends."""
        codec = {"Content-Type": "application/msgpack"} if self.is_binary else {}
        async with connect(f"{url}/v2/iex", additional_headers=HEADERS | codec, compression=None) as client:
            await subscribe(client, is_binary=self.is_binary)
            with contextlib.suppress(ConnectionClosed):
                while True:
                    self.take(await client.recv(decode=False))

    def take(self, data: bytes) -> None:
        """Note one frame; every tick must follow the one before by a minute, with all its bars."""
        now = time.time()
        moments = (TIMES_BINARY if self.is_binary else TIMES_TEXT).findall(data)
        self.bars += len(moments)
        for moment, count in Counter(moments).items():
            self.faults += count != self.symbols
            stamp = float(int.from_bytes(moment)) if self.is_binary else _seconds(moment)
            self.faults += bool(self.last) and stamp - self.last != 60.0
            self.last = stamp
            self.arrived.append((stamp, now))


def _seconds(moment: bytes) -> float:
    return datetime.fromisoformat(moment.decode()).timestamp()


async def subscribe(client: ClientConnection, *, is_binary: bool) -> None:
    """Take the greeting, subscribe to all bars, take the answer."""
    await client.recv()
    await client.recv()
    request = {"action": "subscribe", "bars": ["*"]}
    await client.send(msgpack.packb(request) if is_binary else json.dumps(request))
    await client.recv()


async def stall(url: str) -> None:
    """Subscribe and read nothing; come back when cut off."""
    host, port = url.removeprefix("ws://").rsplit(":", 1)
    while True:
        raw = socket.socket()
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        raw.setblocking(False)
        await asyncio.get_running_loop().sock_connect(raw, (host, int(port)))
        with contextlib.suppress(WebSocketException, OSError):
            async with connect(
                f"{url}/v2/iex", sock=raw, additional_headers=HEADERS, compression=None,
                ping_interval=None, close_timeout=0.1, open_timeout=30,
            ) as client:  # fmt: skip
                await subscribe(client, is_binary=False)
                client.transport.pause_reading()
                await asyncio.sleep(40)
                client.transport.abort()


def listen(url: str, clients: int, symbols: int, pipe: Connection) -> None:
    """Run all clients; send their arrivals and counts until told to stop."""

    async def scenario() -> None:
        readers = [Reader(number, symbols) for number in range(clients - 1)]
        tasks = [asyncio.create_task(reader.run(url)) for reader in readers]
        tasks.append(asyncio.create_task(stall(url)))
        while not pipe.poll():
            await asyncio.sleep(REPORT_SECONDS / 5)
            arrived = [one for reader in readers for one in reader.arrived]
            for reader in readers:
                reader.arrived = []
            ended = sum(task.done() for task in tasks)
            for task in tasks:
                if task.done() and (failure := task.exception()) is not None:
                    raise failure
            pipe.send((arrived, [reader.bars for reader in readers], sum(r.faults for r in readers), ended))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())


class Minute:
    """What came in since the last line."""

    def __init__(self) -> None:
        self.given: dict[float, float] = {}
        self.late: list[float] = []
        self.waiting: list[tuple[float, float]] = []
        self.rss = self.cpu = self.cpu_before = 0.0
        self.bars: list[int] = []
        self.bars_before = 0
        self.faults = self.ended = 0
        self.counts: dict[str, int] = {}

    def take(self, server: Connection, clients: Connection, seconds: float) -> None:
        """Gather for ``seconds``."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            for pipe in multiprocessing.connection.wait([server, clients], timeout=left):
                message = pipe.recv()  # type: ignore[union-attr]
                if pipe is server:
                    given, self.rss, self.cpu, self.counts = message
                    self.given.update(given)
                else:
                    arrived, self.bars, self.faults, self.ended = message
                    self.waiting += arrived
            known = [(stamp, moment) for stamp, moment in self.waiting if stamp in self.given]
            self.waiting = [one for one in self.waiting if one[0] not in self.given]
            self.late += [moment - self.given[stamp] for stamp, moment in known]
        for stamp in list(self.given)[:-1000]:
            del self.given[stamp]

    def line(self, minute: int, seconds: float) -> str:
        """The line of this minute; begins the next."""
        late = np.array(self.late) * 1e3
        p50, p99 = np.percentile(late, [50, 99]) if late.size else (float("nan"), float("nan"))
        total = sum(self.bars)
        text = (
            f"{minute:>6} {self.rss:>8.1f} {100 * (self.cpu - self.cpu_before) / seconds:>6.1f} "
            f"{(total - self.bars_before) / seconds:>11,.0f} {p50:>8.2f} {p99:>8.2f} "
            f"{late.max() if late.size else float('nan'):>8.2f} {self.faults:>7} {self.counts.get('cut_off', 0):>8}"
        )
        self.late, self.cpu_before, self.bars_before = [], self.cpu, total
        return text


def main() -> None:
    """Run the soak."""
    arguments = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    arguments.add_argument("--minutes", type=float, default=10.0)
    arguments.add_argument("--clients", type=int, default=50)
    arguments.add_argument("--symbols", type=int, default=50)
    arguments.add_argument("--bars", type=float, default=1000.0, help="a second")
    options = arguments.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(prefix="garch-soak-") as folder:
        fill(Lake(Path(folder) / "lake"), options.symbols, 8)
        speed = 60.0 * options.bars / options.symbols
        server_pipe, server_end = spawn.Pipe()
        clients_pipe, clients_end = spawn.Pipe()
        server = spawn.Process(target=serve, args=(folder, speed, server_end))
        server.start()
        url = server_pipe.recv()
        clients = spawn.Process(target=listen, args=(url, options.clients, options.symbols, clients_end))
        clients.start()
        print(
            f"{datetime.now(UTC):%Y-%m-%d %H:%M:%S} UTC, {options.clients} clients (one stalled), "
            f"{options.symbols} symbols, speed {speed:g}, {os.cpu_count()} cores"
        )
        print("minute  RSS MiB  CPU %  bars/s out  p50 ms   p99 ms   max ms  faults  cut off", flush=True)
        gathered, seconds = Minute(), min(60.0, 60.0 * options.minutes)
        gathered.take(server_pipe, clients_pipe, 10.0)
        print(gathered.line(0, 10.0), flush=True)
        for minute in range(1, max(1, round(options.minutes)) + 1):
            gathered.take(server_pipe, clients_pipe, seconds)
            print(gathered.line(minute, seconds), flush=True)
        spread = max(gathered.bars) - min(gathered.bars)
        print(
            f"bars delivered: {sum(gathered.bars):,}; between the readers with most and least {spread:,}; "
            f"ticks out of order, lost or doubled: {gathered.faults}; readers that were cut off: {gathered.ended}"
        )
        for pipe, process in ((clients_pipe, clients), (server_pipe, server)):
            pipe.send("stop")
            while process.is_alive():
                with contextlib.suppress(EOFError, OSError):
                    while pipe.poll(0.1):
                        pipe.recv()
                process.join(0.1)


if __name__ == "__main__":
    main()
