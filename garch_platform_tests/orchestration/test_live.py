"""The live edge from the shell and as Dagster's jobs: a replay that is recorded, symbols, tables, refusals."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
import yaml

from garch_platform.errors import ConfigurationError, StreamError, SymbolError
from garch_platform.orchestration.jobs import RECYCLER_JOB
from garch_platform.orchestration.launch import Launcher, RunOutcome
from garch_platform.orchestration.planner import KeyRange
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace
from garch_platform.workspace.live import record_session, serving, with_recycler
from garch_platform.workspace.live_symbols import (
    follow_only,
    followed_symbols,
    pair_symbols,
    stand_ins,
    trial_symbols,
)
from garch_platform_tests.conftest import free_port
from garch_platform_tests.orchestration.last_session import Garch
from garch_platform_tests.orchestration.small_market import memory_launcher
from garch_platform_tests.recycler.market import DAYS, session_bars, store

THURSDAY, FRIDAY, MONDAY = DAYS
MINUTES = {"AAA": range(390), "BBB": [minute for minute in range(390) if minute % 7], "CCC": range(100, 200)}
EXPECTED = {symbol: len(list(minutes)) for symbol, minutes in MINUTES.items()}


def bars_of(day: date) -> pl.DataFrame:
    """The session's bars; no price occurs on two of them."""
    return session_bars(MINUTES, day, price=100.0 * day.day)


@pytest.fixture
def launcher(tmp_path: Path, sqlite_template: Path) -> Iterator[Launcher]:
    """Three symbols with one-minute bars on two sessions, and one (DDD) without any."""
    shutil.copy(sqlite_template, tmp_path / "garch.db")
    values = {
        "universe": {"timeframe": "1Min", "sectors": {"active": ["all"]}},
        "trading_days": {"start": THURSDAY},
        "websocket": {
            "recycler": {"server_url": f"ws://127.0.0.1:{free_port()}", "default_proxy": "AAA"},
            "flush_seconds": 0.2,
        },
    }
    (tmp_path / "settings.yaml").write_text(f"# mine\n{yaml.safe_dump(values)}", "utf-8")
    workspace = Workspace(load_settings(tmp_path))
    workspace.registry.write_new(pl.DataFrame({"symbol": [*MINUTES, "DDD"]}))
    for day in (THURSDAY, FRIDAY):
        store(workspace.lake, bars_of(day))
    opened = memory_launcher(tmp_path, now=datetime(2024, 3, 11, 12, tzinfo=UTC))
    yield opened
    opened.workspace.database.dispose()


def replay(opened: Launcher, **options: object) -> RunOutcome:
    (outcome,) = opened.run([KeyRange.whole(RECYCLER_JOB, **options)])
    assert outcome.success, outcome.message
    return outcome


def received(opened: Launcher, timeframe: str = "1Min") -> pl.DataFrame:
    rows = opened.workspace.database.read_table("market_data", timeframe=[timeframe])
    return rows.sort("symbol", "timestamp")


def sessions(opened: Launcher) -> list[dict[str, object]]:
    return opened.workspace.database.read_table("replay_sessions").sort("started_at").to_dicts()


def test_last_session_arrives_to_the_last_digit_and_is_recorded(launcher: Launcher) -> None:
    replay(launcher, symbols=["AAA", "BBB", "CCC"])
    columns = ["symbol", "timestamp", "open", "high", "low", "close", "volume", "vwap", "trade_count"]
    wanted = bars_of(FRIDAY).sort("symbol", "timestamp").select(columns)
    assert received(launcher).select(columns).equals(wanted)
    assert {*received(launcher)["data_source"]} == {"recycled"}
    assert not received(launcher)["is_proxy"].any()
    (row,) = sessions(launcher)
    assert (row["status"], row["bars_expected"], row["first_session"]) == (
        "complete",
        sum(EXPECTED.values()),
        FRIDAY,
    )


def test_replaying_again_adds_nothing(launcher: Launcher) -> None:
    replay(launcher, symbols=["AAA"])
    before = received(launcher)
    replay(launcher, symbols=["AAA"])
    assert received(launcher).equals(before)
    assert [(row["status"], row["duplicates"]) for row in sessions(launcher)] == [
        ("complete", 0),
        ("complete", 390),
    ]


def test_range_of_sessions(launcher: Launcher) -> None:
    replay(launcher, symbols=["CCC"], start_date=str(THURSDAY), end_date=str(FRIDAY))
    assert received(launcher)["timestamp"].dt.date().unique().sort().to_list() == [THURSDAY, FRIDAY]
    assert len(received(launcher)) == 200


def test_symbol_without_bars_is_sent_from_its_proxy_and_marked(launcher: Launcher) -> None:
    replay(launcher, symbols=["AAA", "DDD"])
    rows = received(launcher)
    assert dict(rows.group_by("symbol").agg(pl.col("is_proxy").all()).iter_rows()) == {
        "AAA": False,
        "DDD": True,
    }
    own, proxied = (rows.filter(symbol=name)["close"].to_list() for name in ("AAA", "DDD"))
    assert own == proxied
    assert sessions(launcher)[0]["proxied_symbols"] == 1


def test_research_never_sees_a_recycled_bar(launcher: Launcher) -> None:
    replay(launcher, symbols=["AAA", "DDD"])
    folder = launcher.workspace.settings.workspace
    (folder / "inbox").mkdir()
    session_bars({"ZZZ": [0]}, FRIDAY).write_parquet(folder / "inbox" / "other.parquet")
    assert launcher.workspace.fetch(["AAA", "DDD"], FRIDAY, FRIDAY).is_empty()


def test_replay_without_bars_says_what_to_do(launcher: Launcher) -> None:
    (outcome,) = launcher.run([KeyRange.whole(RECYCLER_JOB, start_date=str(MONDAY))])
    assert not outcome.success
    assert "StreamError" in outcome.message
    assert str(MONDAY) in outcome.message


def test_real_bars_take_the_place_of_proxied_ones(launcher: Launcher) -> None:
    replay(launcher, symbols=["AAA", "DDD"])
    own = session_bars({"DDD": range(390)}, FRIDAY)
    store(launcher.workspace.lake, own)
    replay(launcher, symbols=["AAA", "DDD"])
    rows = received(launcher).filter(symbol="DDD")
    assert not rows["is_proxy"].any()
    assert rows["close"].to_list() == own["close"].to_list()
    assert sessions(launcher)[1]["status"] == "complete"


def test_second_replay_in_the_live_clock_is_not_taken_for_the_first(launcher: Launcher) -> None:
    for day in (THURSDAY, FRIDAY):
        replay(launcher, symbols=["CCC"], start_date=str(day), clock="live")
    assert [(row["status"], row["bars_expected"]) for row in sessions(launcher)] == [("complete", 100)] * 2
    assert all(row["bars_written"] >= 100 for row in sessions(launcher))


def test_earlier_session_is_replayed_whole_after_a_later_one(launcher: Launcher) -> None:
    faults = {"seed": 3, "drop": 0.05, "disconnect_after": 150}
    folder = launcher.workspace.settings.workspace
    values = yaml.safe_load((folder / "settings.yaml").read_text())
    values["websocket"]["recycler"]["faults"] = faults
    (folder / "settings.yaml").write_text(yaml.safe_dump(values), "utf-8")
    faulty = memory_launcher(folder, now=datetime(2024, 3, 11, 12, tzinfo=UTC))
    for day in (FRIDAY, THURSDAY):
        replay(faulty, symbols=["AAA", "BBB"], start_date=str(day))
    replay(faulty, symbols=["AAA", "BBB"], start_date=str(THURSDAY))
    assert [(row["status"], row["reason"]) for row in sessions(faulty)] == [("complete", None)] * 3
    assert len(received(faulty)) == 2 * (EXPECTED["AAA"] + EXPECTED["BBB"])


def test_attaching_expects_what_the_recycler_serves(launcher: Launcher) -> None:
    changes = {"symbols": ["AAA"], "replay_mode": "single_pass", "replay_speed": "max", "clock": "historical"}
    with serving(launcher.workspace, with_recycler(launcher.workspace.settings, changes)):
        replay(launcher, attach=True)
    (row,) = sessions(launcher)
    assert (row["status"], row["reason"], row["symbols"]) == ("complete", None, 1)
    assert row["bars_expected"] == len(received(launcher)) == 2 * EXPECTED["AAA"]


def test_attaching_to_nothing_is_refused_with_its_remedy(launcher: Launcher) -> None:
    (outcome,) = launcher.run([KeyRange.whole(RECYCLER_JOB, attach=True)])
    assert "no recycler answers at ws://127.0.0.1:" in outcome.message
    assert "start one with `garch recycle`" in outcome.message


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"replay_speed": "fast"}, "use a positive number (1.0 = one bar a minute) or max"),
        ({"clock": "utc"}, "Input should be 'live' or 'historical' (got 'utc')"),
        (
            {"replay_mode": "date_range", "date_range": {"start_date": "2024-03-08", "end_date": None}},
            "replay_mode date_range needs",
        ),
    ],
)
def test_wrong_option_is_named_with_those_allowed(change: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError) as refused:
        with_recycler(load_settings(), change)
    assert message in str(refused.value)


def test_session_that_is_over_is_not_followed(launcher: Launcher) -> None:
    evening = datetime(2024, 3, 8, 21, 0, tzinfo=UTC)
    with pytest.raises(StreamError, match="the session 2024-03-08 closed at 21:00 UTC"):
        record_session(launcher.workspace, "evening", evening, tail_seconds=300)


class TestSymbols:
    def test_all_that_are_registered_and_active(self, launcher: Launcher) -> None:
        assert followed_symbols(launcher.workspace) == ["AAA", "BBB", "CCC", "DDD"]

    def test_retired_and_unknown_symbols_are_refused(self, launcher: Launcher) -> None:
        launcher.workspace.registry.retire("BBB", date(2024, 3, 1))
        launcher.workspace.sync_symbols(datetime(2024, 3, 11, tzinfo=UTC))
        assert followed_symbols(launcher.workspace) == ["AAA", "CCC", "DDD"]
        with pytest.raises(SymbolError, match=r"cannot follow XYZ, which this workspace never had"):
            followed_symbols(launcher.workspace, ["AAA", "BBB", "XYZ"])
        with pytest.raises(SymbolError, match="BBB stopped trading"):
            followed_symbols(launcher.workspace, ["AAA", "BBB"])

    def test_a_retirement_does_not_end_the_feed_of_the_others(
        self, launcher: Launcher, caplog: pytest.LogCaptureFixture
    ) -> None:
        """BBB is delisted, CCC continues as DDD: the setting still names both."""
        follow_only(launcher.workspace, ["AAA", "BBB", "CCC"])
        for symbol in ("BBB", "CCC"):
            launcher.workspace.registry.retire(symbol, date(2024, 3, 1))
        launcher.workspace.sync_symbols(datetime(2024, 3, 11, tzinfo=UTC))
        renamed = {"event_date": date(2024, 3, 1), "event": "renamed", "detail": "CCC → DDD"}
        launcher.workspace.database.insert_missing(
            "symbol_events", pl.DataFrame([{"symbol": "CCC", "data_source": "alpaca", **renamed}])
        )
        opened = Workspace(load_settings(launcher.workspace.settings.workspace))
        assert followed_symbols(opened) == ["AAA", "DDD"]
        assert "not followed any more: BBB, retired" in caplog.text
        assert trial_symbols(opened) == ["AAA"]

    def test_proxies_stand_in_for_symbols_without_bars_only(self, launcher: Launcher) -> None:
        assert stand_ins(launcher.workspace, ["AAA", "DDD"]) == {"DDD": "AAA"}

    def test_what_the_recycler_does_not_serve_is_silent(self, launcher: Launcher) -> None:
        served = {"symbols": ["AAA", "DDD"], "date_range": {"start_date": None, "end_date": date(2024, 1, 2)}}
        changes = with_recycler(launcher.workspace.settings, {"symbols": served["symbols"]})
        assert stand_ins(Workspace(changes), ["AAA", "BBB", "DDD"]) == {"BBB": None, "DDD": "AAA"}
        before = with_recycler(launcher.workspace.settings, served)
        assert stand_ins(Workspace(before), ["AAA", "DDD"]) == {"AAA": None, "DDD": None}

    def test_choice_is_written_beside_the_other_settings(self, launcher: Launcher) -> None:
        folder = launcher.workspace.settings.workspace
        follow_only(launcher.workspace, ["AAA", "CCC"])
        assert (folder / "settings.yaml").read_text().startswith("# mine\n")
        changed = load_settings(folder)
        assert changed.websocket.symbols == ["AAA", "CCC"]
        assert changed.websocket.recycler == launcher.workspace.settings.websocket.recycler
        follow_only(Workspace(changed), [])
        assert load_settings(folder) == launcher.workspace.settings

    def test_choice_that_cannot_hold_is_refused_and_not_written(
        self, launcher: Launcher, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = launcher.workspace.settings.workspace / "settings.yaml"
        before = path.read_text()
        with pytest.raises(SymbolError, match="cannot follow XYZ"):
            follow_only(launcher.workspace, ["AAA", "XYZ"])
        monkeypatch.setenv("GARCH_WEBSOCKET__SYMBOLS", "BBB")
        with pytest.raises(ConfigurationError, match="GARCH_WEBSOCKET__SYMBOLS is set in the environment"):
            follow_only(launcher.workspace, ["AAA"])
        monkeypatch.delenv("GARCH_WEBSOCKET__SYMBOLS")
        monkeypatch.chdir(path.parent)
        (path.parent / ".env").write_text("GARCH_WEBSOCKET__SYMBOLS=BBB\n", "utf-8")
        with pytest.raises(ConfigurationError, match=r"or in \.env and wins"):
            follow_only(launcher.workspace, ["AAA"])
        assert path.read_text() == before

    def test_settings_file_of_comments_alone_keeps_them(self, launcher: Launcher) -> None:
        path = launcher.workspace.settings.workspace / "settings.yaml"
        path.write_text("# nothing here yet\n", "utf-8")
        follow_only(launcher.workspace, ["AAA"])
        assert path.read_text().startswith("# nothing here yet\n")
        assert yaml.safe_load(path.read_text()) == {"websocket": {"symbols": ["AAA"]}}

    def test_legs_of_the_pairs_that_passed_last(self, launcher: Launcher) -> None:
        with pytest.raises(SymbolError, match="no session was ranked yet"):
            pair_symbols(launcher.workspace)
        pairs = [
            (THURSDAY, "AAA", "BBB", 1, True),
            (FRIDAY, "BBB", "CCC", 1, True),
            (FRIDAY, "AAA", "DDD", 2, True),
        ]
        columns = ["ranking_date", "symbol_1", "symbol_2", "rank", "passed"]
        rows = pl.DataFrame([*pairs, (FRIDAY, "AAA", "CCC", None, False)], schema=columns, orient="row")
        launcher.workspace.database.upsert("pair_rankings", rows.with_columns(sector=pl.lit("all")))
        assert pair_symbols(launcher.workspace) == ["BBB", "CCC", "AAA", "DDD"]
        none = rows.filter(~pl.col("passed")).with_columns(ranking_date=pl.lit(MONDAY), sector=pl.lit("all"))
        launcher.workspace.database.upsert("pair_rankings", none)
        with pytest.raises(SymbolError, match="no pair passed on 2024-03-11, the last ranked session"):
            pair_symbols(launcher.workspace)

    def test_a_few_for_trying_out(self, launcher: Launcher) -> None:
        assert trial_symbols(launcher.workspace) == ["AAA", "BBB", "CCC"]


class TestCommands:
    def test_status_shows_the_edge_as_configured(self, launcher: Launcher, garch: Garch) -> None:
        shown = garch(launcher, "symbols", "status")
        assert "mode recycler" in shown
        assert "nothing listens there (garch recycle)" in shown
        assert "replay loop for ever, 1x, live clock" in shown
        assert "symbols 4: AAA, BBB, CCC, DDD" in shown
        assert f"records {2 * sum(EXPECTED.values()):,} bars of 3 symbols (1Min)" in shown
        assert "proxies 1: DDD by AAA" in shown

    def test_testing_and_all_change_what_is_followed(self, launcher: Launcher, garch: Garch) -> None:
        assert "symbols 3: AAA, BBB, CCC" in garch(launcher, "symbols", "testing")
        assert "symbols 4: AAA, BBB, CCC, DDD" in garch(launcher, "symbols", "all")

    def test_replay_prints_what_arrived(self, launcher: Launcher, garch: Garch) -> None:
        shown = garch(launcher, "replay", "--symbols", "CCC", "--start", str(THURSDAY))
        assert "bars expected 100" in shown
        assert "status complete" in shown

    @pytest.mark.parametrize(
        ("command", "message"),
        [
            (("recycle", "status"), "no recycler answers at"),
            (("recycle", "pause"), "no recycler answers at"),
            (("recycle", "speed", "fast"), "speed 'fast' is no number; give a factor such as 60, or max"),
            (("recycle", "--mode", "once"), "Input should be 'loop', 'date_range' or 'single_pass'"),
            (("recycle", "--speed", "0"), "use a positive number"),
            (("stream", "--symbols", "XYZ"), "the live edge cannot follow XYZ"),
        ],
        ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
    )
    def test_refusals_name_value_and_remedy(
        self, launcher: Launcher, garch: Garch, command: tuple[str, ...], message: str
    ) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("logging.basicConfig", lambda **_: None)
            assert message in garch(launcher, *command)

    def test_stream_status_before_its_first_run(self, launcher: Launcher, garch: Garch) -> None:
        assert "has not run in this workspace" in garch(launcher, "stream", "status")


def test_bars_that_cannot_be_spoken_are_not_expected(launcher: Launcher) -> None:
    bars = session_bars({"AAA": range(10)}, MONDAY)
    volume = (
        pl.when(pl.col("timestamp") < bars["timestamp"][0] + timedelta(minutes=3))
        .then(None)
        .otherwise("volume")
    )
    store(launcher.workspace.lake, bars.with_columns(volume=volume.cast(pl.Float64)))
    replay(launcher, symbols=["AAA"])
    (row,) = sessions(launcher)
    assert (row["bars_expected"], row["status"], len(received(launcher))) == (7, "complete", 7)
