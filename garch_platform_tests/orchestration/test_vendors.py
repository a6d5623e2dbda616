"""A workspace whose bars come from Alpaca: past, a session, other bars, assets, actions; through Dagster's jobs.

The vendor is a stub of its servers that speaks their protocol; the client library is the real one.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
import yaml

from garch_platform.errors import ConfigurationError
from garch_platform.orchestration.doctor import diagnose
from garch_platform.orchestration.jobs import HISTORY_JOB, HOURLY_JOB, MAINTENANCE_JOB
from garch_platform.orchestration.launch import Launcher, RunOutcome
from garch_platform.orchestration.planner import KeyRange
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace
from garch_platform_tests.orchestration.last_session import Garch
from garch_platform_tests.orchestration.small_market import CALENDAR, memory_launcher
from garch_platform_tests.sources.alpaca_server import KEY, SECRET, AlpacaServer, raw_bar, serving

SYMBOLS = ["AAPL", "MSFT"]
START = date(2024, 3, 28)
PAST = CALENDAR.sessions(date(2024, 3, 21), date(2024, 3, 27))


def of_session(day: date, step: timedelta, close: float) -> list[dict[str, Any]]:
    """A session's bars as Alpaca writes them, `step` apart."""
    opens, closes = CALENDAR.bounds(day)
    count = int((closes - opens) / step)
    stamps = [opens + number * step for number in range(count)]
    return [raw_bar(f"{at:%Y-%m-%dT%H:%M:%SZ}", close + number / 8) for number, at in enumerate(stamps)]


@pytest.fixture
def server() -> Iterator[AlpacaServer]:
    """Fifteen-minute and hourly bars of two symbols, the bulk past and one session after it."""
    held = {}
    for length, step in {"15Min": timedelta(minutes=15), "1Hour": timedelta(hours=1)}.items():
        for number, symbol in enumerate(SYMBOLS, start=1):
            days = [of_session(day, step, 100.0 * number) for day in [*PAST, START]]
            held[symbol, length] = [bar for day in days for bar in day]
    listed = [
        {
            "id": f"id-{symbol}",
            "symbol": symbol,
            "name": symbol,
            "class": "us_equity",
            "exchange": "NASDAQ",
            "status": "active",
            **dict.fromkeys(("tradable", "shortable", "easy_to_borrow", "fractionable"), True),
        }
        for symbol in (*SYMBOLS, "IBM")
    ]
    split = {
        "symbol": "MSFT",
        "ex_date": str(START),
        "old_rate": 1,
        "new_rate": 4,
        "process_date": str(START),
    }
    with serving(AlpacaServer(bars=held, assets=listed, actions={"forward_splits": [split]})) as running:
        yield running


@pytest.fixture
def launcher(
    tmp_path: Path, sqlite_template: Path, server: AlpacaServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Launcher]:
    shutil.copy(sqlite_template, tmp_path / "garch.db")
    monkeypatch.setenv("APCA_API_KEY_ID", KEY.get_secret_value())
    monkeypatch.setenv("APCA_API_SECRET_KEY", SECRET.get_secret_value())
    values = {
        "universe": {"timeframe": "15Min", "source": "alpaca", "sectors": {"active": ["all"]}},
        "trading_days": {"start": START},
        "alpaca": {"data_url": server.url, "trading_url": server.url, "attempts": 1, "hourly_days": 9999},
    }
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump(values), "utf-8")
    registry = pl.DataFrame({"symbol": SYMBOLS, "sector": "technology"})
    Workspace(load_settings(tmp_path)).registry.write_new(registry)
    opened = memory_launcher(tmp_path, now=datetime(2024, 3, 29, 12, tzinfo=UTC))
    yield opened
    opened.workspace.database.dispose()


def run(opened: Launcher, *planned: KeyRange) -> list[RunOutcome]:
    outcomes = list(opened.run(planned))
    assert [one.message for one in outcomes if not one.success] == []
    return outcomes


def asked_from(server: AlpacaServer) -> list[datetime]:
    """From when on bars were asked for, request by request."""
    return [datetime.fromisoformat(asked["start"]) for path, asked in server.asked if path.endswith("/bars")]


def stored(opened: Launcher, timeframe: str = "15Min") -> pl.DataFrame:
    return opened.workspace.lake.scan("bars", timeframe=timeframe).collect().sort("symbol", "timestamp")


def test_past_and_session_come_from_alpaca(launcher: Launcher, server: AlpacaServer) -> None:
    run(launcher, *launcher.planner.history(), *launcher.planner.daily(START, START))
    bars = stored(launcher)
    assert dict(bars.group_by("symbol").len().iter_rows()) == dict.fromkeys(SYMBOLS, 26 * (len(PAST) + 1))
    assert {*bars["data_source"], *bars["feed"], *bars["adjustment"]} == {"alpaca", "iex", "raw"}
    assert bars.filter(pl.col("split_factor").is_not_null())["timestamp"].to_list() == [
        CALENDAR.bounds(START)[0]
    ]
    assert asked_from(server)[0] == datetime(2024, 3, 20, 13, 15, tzinfo=UTC)  # seven days of past
    wanted = [bar["c"] for bar in server.bars["AAPL", "15Min"]]
    assert bars.filter(symbol="AAPL")["close"].to_list() == wanted


def test_past_is_resumed_from_the_last_stored_bar(launcher: Launcher, server: AlpacaServer) -> None:
    run(launcher, *launcher.planner.history())
    first, server.asked = stored(launcher), []
    server.bars["AAPL", "15Min"] = [bar for bar in server.bars["AAPL", "15Min"] if bar["t"] >= "2024-03-27"]
    run(launcher, *launcher.planner.history())
    assert asked_from(server) == [datetime(2024, 3, 27, 13, 15, tzinfo=UTC)]
    assert stored(launcher).equals(first)


def test_symbol_that_cannot_be_read_keeps_its_bars_and_the_others_go_on(
    launcher: Launcher, server: AlpacaServer
) -> None:
    run(launcher, *launcher.planner.history(), *launcher.planner.daily(START, START))
    before = stored(launcher)
    server.broken = {"MSFT"}
    (outcome,) = run(launcher, *launcher.planner.daily(START, START))
    assert "MSFT" in outcome.message
    assert stored(launcher).equals(before)


def test_hourly_bars_stand_beside_the_others_and_are_resumed(
    launcher: Launcher, server: AlpacaServer
) -> None:
    run(launcher, *launcher.planner.history())
    own = stored(launcher)
    run(launcher, *launcher.planner.of_symbols(HOURLY_JOB))
    hourly = stored(launcher, "1Hour")
    assert dict(hourly.group_by("symbol").len().iter_rows()) == dict.fromkeys(SYMBOLS, 6 * (len(PAST) + 1))
    assert stored(launcher).equals(own)

    server.asked, server.broken = [], {"MSFT"}
    server.bars["AAPL", "1Hour"] = server.bars["AAPL", "1Hour"][-1:]
    run(launcher, *launcher.planner.of_symbols(HOURLY_JOB))
    assert asked_from(server)[0] == datetime(2024, 3, 28, 12, 30, tzinfo=UTC)  # the last session again
    after = stored(launcher, "1Hour")
    assert after.filter(symbol="MSFT").equals(hourly.filter(symbol="MSFT"))
    assert len(after.filter(symbol="AAPL")) == 6 * len(PAST) + 1
    noted = launcher.workspace.database.read_table("rejections", asset=["hourly_bars"])
    assert noted.select("symbol", "reason").rows() == [("MSFT", "unreadable")]


def test_own_timeframe_is_refused_beside_itself(launcher: Launcher) -> None:
    folder = launcher.workspace.settings.workspace
    hourly = memory_launcher(folder, universe={"timeframe": "1Hour", "source": "alpaca"})
    (outcome,) = hourly.run(hourly.planner.of_symbols(HOURLY_JOB))
    assert not outcome.success
    assert "universe.timeframe is 1Hour already" in outcome.message


def test_maintenance_records_assets_and_actions(launcher: Launcher, server: AlpacaServer) -> None:
    run(launcher, KeyRange.whole(MAINTENANCE_JOB))
    database = launcher.workspace.database
    assert database.read_table("broker_assets")["symbol"].to_list() == ["AAPL", "IBM", "MSFT"]
    (action,) = database.content("corporate_actions").to_dicts()
    assert (action["symbol"], action["action"], action["value"]) == ("MSFT", "split", 4.0)
    server.assets = [row for row in server.assets if row["symbol"] != "MSFT"]
    run(launcher, KeyRange.whole(MAINTENANCE_JOB))
    assert set(launcher.workspace.retired()) == {"MSFT"}


def test_network_error_deactivates_nobody(launcher: Launcher, server: AlpacaServer) -> None:
    run(launcher, KeyRange.whole(MAINTENANCE_JOB))
    launcher.workspace.settings.alpaca.__dict__["trading_url"] = "http://127.0.0.1:9"
    (outcome,) = launcher.run([KeyRange.whole(MAINTENANCE_JOB)])
    assert not outcome.success
    assert launcher.workspace.retired() == {}
    assert set(launcher.workspace.database.read_table("broker_assets")["status"]) == {"active"}


def test_missing_credentials_are_named(
    launcher: Launcher, garch: Garch, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("APCA_API_SECRET_KEY")
    fresh = Workspace(launcher.workspace.settings)
    with pytest.raises(ConfigurationError, match=r"Alpaca needs APCA_API_SECRET_KEY; set them"):
        _ = fresh.source
    (finding,) = [one for one in diagnose(fresh) if one.check == "secrets"]
    assert (finding.level, finding.state) == (
        "error",
        "APCA_API_SECRET_KEY not set, and universe.source is alpaca",
    )


def test_job_command_refuses_others(launcher: Launcher, garch: Garch) -> None:
    refusal = garch(launcher, "job", HISTORY_JOB)
    assert "job 'history_job' cannot be run here; use one of hourly_history_job, yahoo_job" in refusal
