"""The service: settings become a replay that a client sees, signals stop it, errors name the remedy."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from websockets.asyncio.client import connect

from garch_platform.errors import ConfigurationError, StreamError
from garch_platform.recycler import player, service
from garch_platform.recycler.server import RecyclerServer
from garch_platform.settings import Secrets, Settings, load_settings
from garch_platform.store.lake import Lake
from garch_platform_tests.conftest import free_port, shell_environment
from garch_platform_tests.recycler.market import DAYS, market, session_bars

MINUTES = {"AAPL": range(5), "MSFT": range(2, 8)}
SECRETS = Secrets(_env_file=None)
HEADERS = {"APCA-API-KEY-ID": "recycler", "APCA-API-SECRET-KEY": "recycler"}


def configured(folder: Path, **recycler: Any) -> Settings:
    universe = {"timeframe": "1Min", "source": "files"}
    return load_settings(folder, universe=universe, websocket={"recycler": recycler})


def built(folder: Path, **recycler: Any) -> RecyclerServer:
    return service.build(configured(folder, **recycler), SECRETS, market(folder, MINUTES), port=0)


async def received(url: str, symbols: list[str], most: int) -> list[dict[str, Any]]:
    """The first bars of a JSON client."""
    bars: list[dict[str, Any]] = []
    async with connect(f"{url}/v2/iex", additional_headers=HEADERS, compression=None) as client:
        await client.recv()
        await client.recv()
        await client.send(json.dumps({"action": "subscribe", "bars": symbols}))
        while len(bars) < most:
            messages = json.loads(await asyncio.wait_for(client.recv(), 10))
            bars += [message for message in messages if message["T"] == "b"]
    return bars


def test_a_client_sees_what_the_settings_ask_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = built(
        tmp_path,
        symbols=["MSFT", "PDFS"],
        replay_mode="date_range",
        date_range={"start_date": DAYS[1], "end_date": DAYS[1]},
        replay_speed="max",
        clock="historical",
    )

    async def scenario() -> list[dict[str, Any]]:
        stop, ready = asyncio.Event(), asyncio.Event()
        serving = asyncio.create_task(service.run(server, stop=stop, ready=lambda _: ready.set()))
        await ready.wait()
        bars = await received(server.url, ["*"], 11)
        await server.finished()
        assert not serving.done()
        stop.set()
        await asyncio.wait_for(serving, 10)
        return bars

    with caplog.at_level(logging.INFO, "garch_platform.recycler.service"):
        bars = asyncio.run(scenario())
    stored = session_bars(MINUTES, DAYS[1], price=200.0).with_columns(
        symbol=pl.col("symbol").replace({"AAPL": "PDFS"})
    )
    expected = [
        (symbol, stamp.isoformat().replace("+00:00", "Z"), close)
        for symbol, stamp, close in stored.sort("timestamp", "symbol")
        .select("symbol", "timestamp", "close")
        .rows()
    ]
    assert [(bar["S"], bar["t"], bar["c"]) for bar in bars] == expected
    told = [record.message for record in caplog.records if record.name == service.__name__]
    assert told[0] == (
        f"recycler at {server.url}/v2/iex: date_range, clock historical, speed max, 1Min bars of 2 symbols, "
        "sessions 2024-03-08 to 2024-03-08 (1 in date_range 2024-03-08 to 2024-03-08), proxies: PDFS from AAPL"
    )


def test_without_symbols_all_that_have_bars_are_served(tmp_path: Path) -> None:
    status = built(tmp_path, replay_mode="loop", loop_count=3).status()
    assert status["symbols"] == ["AAPL", "MSFT"]
    assert (status["passes"], status["sessions"], status["speed"]) == (3, 3, 1.0)


@pytest.mark.parametrize(
    ("mode", "start", "end", "sessions", "told"),
    [
        ("loop", DAYS[1], DAYS[1], (DAYS[1], DAYS[1], 1), "(1 in date_range 2024-03-08 to 2024-03-08)"),
        ("loop", DAYS[1], None, (DAYS[1], DAYS[2], 2), "(2 in date_range 2024-03-08 to the last)"),
        ("single_pass", None, DAYS[1], (DAYS[0], DAYS[1], 2), "(2 in date_range the first to 2024-03-08)"),
        ("single_pass", None, None, (DAYS[0], DAYS[2], 3), "2024-03-11 (3), proxies"),
    ],
)
def test_the_date_range_bounds_every_mode(
    tmp_path: Path, mode: str, start: date | None, end: date | None, sessions: tuple[Any, ...], told: str
) -> None:
    server = built(tmp_path, replay_mode=mode, date_range={"start_date": start, "end_date": end})
    status = server.status()
    assert (status["mode"], status["first_session"], status["last_session"], status["sessions"]) == (
        mode,
        sessions[0].isoformat(),
        sessions[1].isoformat(),
        sessions[2],
    )
    assert told in service.described(server)


def test_an_empty_lake_names_workspace_timeframe_and_remedy(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match=f"workspace {tmp_path} holds no 1Min bars; run `garch refresh`"):
        service.build(configured(tmp_path), SECRETS, Lake(tmp_path / "lake"))


def test_an_empty_range_names_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(StreamError, match="2024-03-07 to 2024-03-11"):
        built(
            tmp_path,
            replay_mode="date_range",
            date_range={"start_date": date(2020, 1, 2), "end_date": date(2020, 1, 3)},
        )


def test_a_symbol_as_its_own_proxy_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="AAPL is its own proxy"):
        built(tmp_path, proxies={"AAPL": "AAPL"})


def test_a_replay_that_fails_ends_the_service_with_its_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = built(tmp_path, replay_speed=600.0)

    def refuse(*_: object) -> None:
        raise StreamError("the lake's bars cannot be read: gone")

    monkeypatch.setattr(server.replay.tape, "read", refuse)
    monkeypatch.setattr(player, "RETRY_SECONDS", ())
    with pytest.raises(StreamError, match="cannot be read: gone"):
        asyncio.run(asyncio.wait_for(service.run(server), 10))


SERVE = """
    import asyncio, sys
    from pathlib import Path
    from garch_platform.recycler import player, service
    from garch_platform.settings import Secrets, load_settings
    from garch_platform.store.lake import Lake

    folder = Path(sys.argv[1])
    recycler = {"server_url": f"ws://127.0.0.1:{sys.argv[2]}"}
    universe = {"timeframe": "1Min", "source": "files"}
    settings = load_settings(folder, universe=universe, websocket={"recycler": recycler})
    server = service.build(settings, Secrets(_env_file=None), Lake(folder / "lake"))
    asyncio.run(service.run(server, ready=lambda server: print(server.url, flush=True)))
    print("stopped")
"""


@pytest.mark.process
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it_cleanly(tmp_path: Path, number: signal.Signals) -> None:
    """With a client that is connected; it is told that the server goes away."""
    market(tmp_path, MINUTES)
    port = free_port()
    command = [sys.executable, "-c", textwrap.dedent(SERVE), str(tmp_path), str(port)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=shell_environment())
    try:
        assert process.stdout is not None
        assert process.stdout.readline().strip() == f"ws://127.0.0.1:{port}"

        async def scenario() -> int | None:
            async with connect(f"ws://127.0.0.1:{port}/v2/iex", additional_headers=HEADERS) as client:
                await client.recv()
                os.kill(process.pid, number)
                await asyncio.wait_for(client.wait_closed(), 10)
                return client.close_code

        assert asyncio.run(scenario()) == 1001
        assert process.wait(10) == 0
        assert process.stdout.read().strip() == "stopped"
    finally:
        process.kill()
        process.communicate()
