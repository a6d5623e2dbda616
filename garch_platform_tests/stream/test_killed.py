"""kill -9 of client, server and database in turn during a replay: every bar is there, once."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from polars.testing import assert_frame_equal

from garch_platform.errors import StreamError
from garch_platform.recycler.control import RecyclerControl
from garch_platform.settings import load_secrets
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.stream import StreamStatus, StreamSummary, read_status, run
from garch_platform_tests.conftest import _run, free_port, postgres_folder
from garch_platform_tests.store.rows import register
from garch_platform_tests.stream import processes
from garch_platform_tests.stream.edge import (
    SYMBOLS,
    client_of,
    edge_settings,
    server_of,
    small_market,
    source_bars,
    until,
    with_faults,
    written,
)

pytestmark = [pytest.mark.process]

Start = Callable[[str, Path], subprocess.Popen[bytes]]


@pytest.fixture
def start() -> Iterator[Start]:
    """Start processes that are gone when the test is over."""
    started: list[subprocess.Popen[bytes]] = []

    def starting(role: str, folder: Path) -> subprocess.Popen[bytes]:
        started.append(processes.start(role, folder))
        return started[-1]

    yield starting
    for process in started:
        process.kill()
        process.wait(10)


async def status(
    folder: Path, condition: Callable[[StreamStatus], bool], log: str = "client"
) -> StreamStatus:
    """The first status of the folder's client that meets ``condition``."""
    found = None
    try:
        async with asyncio.timeout(40):
            while (found := read_status(folder)) is None or not condition(found):  # noqa: ASYNC110 - another process
                await asyncio.sleep(0.02)
    except TimeoutError:
        raise AssertionError(f"{found}\n{(folder / f'{log}.log').read_text()}") from None
    return found


def test_a_killed_client_goes_on_where_it_was(
    tmp_path: Path, market: Lake, sqlite: Database, start: Start
) -> None:
    """Bars are dropped as well, so that a hole is pending when it dies. SIGTERM ends the second cleanly."""
    settings = edge_settings(tmp_path, recycler={**with_faults(drop=0.1), "replay_speed": 2400.0})
    processes.save(settings)
    register(sqlite, *SYMBOLS)

    async def scenario() -> None:
        async with server_of(market, settings) as server:
            server.replay.pause()
            first = start("client", tmp_path)
            await status(tmp_path, lambda found: found.connected)
            server.replay.resume()
            await until(lambda: written(sqlite).height > 60)
            running = read_status(tmp_path)
            assert running is not None
            assert running.pid == first.pid
            first.kill()
            await asyncio.to_thread(first.wait)
            ticks = server.replay.status()["ticks"]
            await until(lambda: server.status()["ended"] or server.status()["ticks"] > ticks + 20)
            server.replay.pause()
            killed = read_status(tmp_path)
            assert killed is not None
            assert not killed.is_running
            second = start("client", tmp_path)
            await status(tmp_path, lambda found: found.pid == second.pid and found.connected)
            server.replay.resume()
            with pytest.raises(StreamError, match=f"is running already \\(process {second.pid}\\)"):
                await asyncio.to_thread(run, client_of(settings, sqlite))
            await server.finished()
            second.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(second.wait, 30) == 0

    asyncio.run(scenario())
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)
    ended = read_status(tmp_path)
    assert ended is not None
    assert not ended.is_running
    assert not ended.connected
    assert "summary StreamSummary" in (tmp_path / "client.log").read_text()


def test_a_killed_server_is_followed_again(tmp_path: Path, sqlite: Database, start: Start) -> None:
    """The second server replays from the beginning; what the client had is not doubled."""
    lake = small_market(tmp_path)
    settings = edge_settings(tmp_path, recycler={"replay_speed": 2400.0})
    processes.save(settings)
    register(sqlite, *SYMBOLS)
    url, secrets = settings.websocket.recycler.server_url, load_secrets()
    control = RecyclerControl(url, secrets.garch_recycler_key, secrets.garch_recycler_secret)

    async def scenario() -> None:
        client = client_of(settings, sqlite)
        first = start("server", tmp_path)
        await until(lambda: "recycler at ws" in (tmp_path / "server.log").read_text())
        running = asyncio.create_task(client.run(until_replay_ends=True))
        await until(lambda: client.counts.received > 100)
        first.kill()
        await asyncio.to_thread(first.wait)
        processes.save(edge_settings(tmp_path, recycler={"server_url": url, "replay_speed": 60.0}))
        start("server", tmp_path)
        await until(lambda: client.counts.reconnects == 1)
        await asyncio.to_thread(control.speed, "max")
        await running

    asyncio.run(scenario())
    assert_frame_equal(written(sqlite), source_bars(lake), check_exact=True)


class Postgres:
    """A PostgreSQL server of its own, to be killed; a killed one starts again from its files."""

    def __init__(self, folder: Path, binaries: Path) -> None:
        self.folder = folder
        self.binaries = binaries
        self.port = free_port()
        self.log = Path(tempfile.mkstemp(prefix="garch_killed_", suffix=".log")[1])
        data = ["-D", str(folder / "data")]
        initialise = [*data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]
        _run([str(binaries / "initdb"), *initialise], self.log)
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql+psycopg://postgres@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        options = f"-c listen_addresses=127.0.0.1 -p {self.port} -k {self.folder}"
        command = [str(self.binaries / "pg_ctl"), "-D", str(self.folder / "data"), "-w"]
        _run([*command, "-l", str(self.folder / "server.log"), "-o", options, "start"], self.log)

    def kill(self) -> None:
        """kill -9 of the postmaster and of every process that it started."""
        postmaster = int((self.folder / "data" / "postmaster.pid").read_text().split()[0])
        children = Path(f"/proc/{postmaster}/task/{postmaster}/children").read_text().split()
        for process in (postmaster, *map(int, children)):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        end = time.monotonic() + 10
        while any(map(_is_alive, (postmaster, *map(int, children)))) and time.monotonic() < end:
            time.sleep(0.01)
        for lock in (self.folder / "data" / "postmaster.pid", *self.folder.glob(".s.PGSQL.*")):
            lock.unlink()


def _is_alive(process: int) -> bool:
    """Whether it runs; nobody may have taken its exit status yet."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def postgres() -> Iterator[Postgres]:
    """The server; skipped where its binaries are absent."""
    binaries = postgres_folder()
    if binaries is None or not Path("/proc/self/task").exists():
        pytest.skip("the PostgreSQL server binaries (initdb, pg_ctl) are not installed, or there is no /proc")
    folder = Path(tempfile.mkdtemp(prefix="garch_killed_"))
    if os.geteuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    server = Postgres(folder, binaries)
    yield server
    with suppress(FileNotFoundError):
        server.kill()
    shutil.rmtree(folder, ignore_errors=True)
    server.log.unlink(missing_ok=True)


@pytest.mark.postgres
def test_a_killed_database_costs_nothing(tmp_path: Path, market: Lake, postgres: Postgres) -> None:
    """Its clients wait on disk; after its own recovery it has every bar."""
    database = Database(postgres.url, busy_timeout=2.0)
    database.migrate()
    register(database, *SYMBOLS)
    settings = edge_settings(tmp_path, recycler={"replay_speed": 6000.0}, flush_rows=20)

    async def scenario() -> StreamSummary:
        stop = asyncio.Event()
        async with server_of(market, settings) as server:
            client = client_of(settings, database)
            running = asyncio.create_task(client.run(stop))
            await status(tmp_path, lambda _: client.counts.written > 30)
            await asyncio.to_thread(postgres.kill)
            await status(tmp_path, lambda _: len(client.spool.files) > 3)
            await asyncio.to_thread(postgres.start)
            await server.finished()
            await status(tmp_path, lambda _: not client.spool.files)
            stop.set()
            return await running

    summary = asyncio.run(scenario())
    assert (summary.spooled_files, summary.counts.lost) == (0, 0)
    assert_frame_equal(written(database), source_bars(market), check_exact=True)
    database.dispose()
