"""The tape: alignment by time, holes, feeds, bars that cannot be spoken, proxies, memory."""

from __future__ import annotations

import logging
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from garch_platform.bars import Timeframe
from garch_platform.errors import ConfigurationError, StreamError
from garch_platform.recycler.period import Chunk, Period
from garch_platform.recycler.tape import Tape
from garch_platform.recycler.tick import Bar
from garch_platform.store.lake import Lake
from garch_platform_tests.recycler.market import (
    CALENDAR,
    DAY,
    DAYS,
    MINUTE,
    contract,
    daily_bars,
    market,
    opening,
    session_bars,
    store,
)


def opened(lake: Lake, timeframe: Timeframe = MINUTE, **arguments: Any) -> Tape:
    tape = Tape(lake, timeframe, **arguments)
    tape.open()
    return tape


def first_chunk(tape: Tape) -> Chunk:
    return tape.read(tape.period_of(tape.view.sessions[0].day))


def minutes_of(chunk: Chunk, day: date = DAYS[0]) -> dict[int, list[str]]:
    """Minute after the open: the symbols of the tick."""
    return {
        (stamp - opening(day)) // timedelta(minutes=1): [bar.symbol for bar in chunk.bars(number)]
        for number, stamp in enumerate(chunk.timestamps)
    }


def test_symbols_meet_by_timestamp_and_never_by_position(tmp_path: Path) -> None:
    lake = market(tmp_path, {"AAA": [0, 1, 2, 5], "BBB": [2, 3], "CCC": [5]}, DAYS[:1])
    chunk = first_chunk(opened(lake))
    assert minutes_of(chunk) == {0: ["AAA"], 1: ["AAA"], 2: ["AAA", "BBB"], 3: ["BBB"], 5: ["AAA", "CCC"]}
    assert [chunk.is_last_of_session(number) for number in range(len(chunk))] == [False] * 4 + [True]


def test_bars_carry_their_own_values(tmp_path: Path) -> None:
    chunk = first_chunk(opened(market(tmp_path, {"AAA": [0], "BBB": [0, 1]}, DAYS[:1])))
    assert chunk.bars(0) == (
        Bar("AAA", 100.4, 101.15, 100.15, 100.65, 100.0, 1, 100.775),
        Bar("BBB", 100.41, 101.16, 100.16, 100.66, 100.0, 1, 100.785),
    )
    assert all(type(bar.trade_count) is int for bar in chunk.bars(1))


def test_the_sessions_are_those_that_have_bars(tmp_path: Path) -> None:
    tape = opened(market(tmp_path, {"AAA": [0, 7]}))
    assert [session.day for session in tape.view.sessions] == DAYS
    assert tape.view.sessions[1].first == opening(DAYS[1])
    assert tape.view.sessions[1].last == opening(DAYS[1]) + timedelta(minutes=7)
    assert tape.after(Period(DAYS[1], DAYS[1])) == Period(DAYS[2], DAYS[2])
    assert tape.after(Period(DAYS[2], DAYS[2])) is None


def test_bounds_are_inclusive(tmp_path: Path) -> None:
    lake = market(tmp_path, {"AAA": [0]})
    assert [one.day for one in opened(lake, start=DAYS[1], end=DAYS[1]).view.sessions] == [DAYS[1]]
    assert [one.day for one in opened(lake, start=DAYS[1]).view.sessions] == DAYS[1:]


def test_daily_bars_come_by_the_month(tmp_path: Path) -> None:
    days = CALENDAR.sessions(date(2024, 1, 25), date(2024, 3, 5))
    tape = opened(store(Lake(tmp_path), daily_bars(["AAA", "BBB"], days)), DAY)
    period: Period | None = tape.period_of(days[0])
    assert period == Period(date(2024, 1, 1), date(2024, 1, 31))
    seen = []
    while period is not None:
        chunk = tape.read(period)
        assert all(chunk.is_last_of_session(number) for number in range(len(chunk)))
        seen += chunk.days
        period = tape.after(period)
    assert seen == days


def test_of_two_feeds_the_last_by_name_is_served(tmp_path: Path) -> None:
    both = pl.concat(
        [session_bars({"AAA": [0, 1]}, feed="iex"), session_bars({"AAA": [1, 2]}, feed="sip", price=200.0)]
    )
    chunk = first_chunk(opened(store(Lake(tmp_path), both)))
    assert [chunk.bars(number)[0].close for number in range(3)] == [100.65, 201.65, 202.65]


@pytest.mark.parametrize("column", ["open", "high", "low", "close", "volume"])
def test_a_bar_without_a_price_is_left_out_counted_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, column: str
) -> None:
    bars = session_bars({"AAA": [0, 1, 2], "BBB": [0, 1, 2]})
    hole = (pl.col("symbol") == "AAA") & (pl.col("close") == 101.65)
    bars = bars.with_columns(pl.when(~hole).then(column).alias(column))
    tape = opened(store(Lake(tmp_path), bars))
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            assert minutes_of(first_chunk(tape)) == {0: ["AAA", "BBB"], 1: ["BBB"], 2: ["AAA", "BBB"]}
    assert tape.unservable == {"AAA": 1}
    assert [record.message.partition(" ")[0] for record in caplog.records] == ["AAA"]


def test_a_bar_that_another_feed_completes_is_served(tmp_path: Path) -> None:
    broken = session_bars({"AAA": [0]}, feed="sip").with_columns(close=pl.lit(None, pl.Float64))
    tape = opened(store(Lake(tmp_path), pl.concat([broken, session_bars({"AAA": [0]})])))
    assert first_chunk(tape).bars(0)[0].close == 100.65
    assert tape.unservable == {}


def test_trade_count_and_vwap_may_be_unknown(tmp_path: Path) -> None:
    bars = session_bars({"AAA": [0]}).with_columns(
        trade_count=pl.lit(None, pl.Int64), vwap=pl.lit(None, pl.Float64)
    )
    bar = first_chunk(opened(store(Lake(tmp_path), bars))).bars(0)[0]
    assert (bar.trade_count, bar.vwap) == (None, None)


def test_a_symbol_without_bars_is_served_from_its_proxy(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lake = market(tmp_path, {"AAPL": [0, 1], "MSFT": [1, 2]}, DAYS[:1])
    with caplog.at_level(logging.WARNING):
        tape = opened(
            lake,
            symbols=["PDFS", "AAPL", "XYZ"],
            default_proxy="AAPL",
            proxies={"XYZ": "MSFT"},
        )
        tape.refresh()
    assert tape.view.proxies == {"PDFS": "AAPL", "XYZ": "MSFT"}
    assert minutes_of(first_chunk(tape)) == {0: ["AAPL", "PDFS"], 1: ["AAPL", "PDFS", "XYZ"], 2: ["XYZ"]}
    bars = {bar.symbol: bar for bar in first_chunk(tape).bars(1)}
    assert bars["PDFS"] == bars["AAPL"]._replace(symbol="PDFS")
    assert bars["XYZ"].close == 100.0 + 1 + ord("M") / 100
    told = [record.message for record in caplog.records]
    assert len(told) == 2
    assert "PDFS" in told[0]
    assert "AAPL" in told[0]
    assert "MSFT" in told[1]


def test_real_bars_replace_the_proxy_when_they_arrive(tmp_path: Path) -> None:
    lake = market(tmp_path, {"AAPL": [0, 1]}, DAYS[:1])
    tape = opened(lake, symbols=["PDFS"], default_proxy="AAPL")
    before = first_chunk(tape)
    assert not tape.refresh()
    store(lake, session_bars({"PDFS": [1]}))
    assert tape.refresh()
    assert (before.view.proxies, tape.view.proxies) == ({"PDFS": "AAPL"}, {})
    assert minutes_of(first_chunk(tape)) == {1: ["PDFS"]}
    assert first_chunk(tape).bars(0)[0].close == 101.0 + ord("P") / 100


def test_a_lake_that_lost_its_bars_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lake = market(tmp_path, {"AAPL": [0, 1]}, DAYS[:1])
    tape = opened(lake)
    lake.replace("bars", session_bars({}).clear(), timeframe="1Min", symbols=["AAPL"])
    with caplog.at_level(logging.WARNING):
        assert not tape.refresh()
    assert "no longer holds bars" in caplog.text
    assert minutes_of(first_chunk(tape)) == {0: ["AAPL"], 1: ["AAPL"]}


def test_real_bars_of_another_session_end_the_proxy_too(tmp_path: Path) -> None:
    lake = market(tmp_path, {"AAPL": [0]}, DAYS[:1])
    store(lake, session_bars({"PDFS": [0]}, DAYS[2]))
    tape = opened(lake, symbols=["AAPL", "PDFS"], default_proxy="AAPL")
    assert minutes_of(first_chunk(tape)) == {0: ["AAPL"]}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"default_proxy": None}, ["PDFS", "no proxy"]),
        ({"default_proxy": "NONE"}, ["PDFS", "NONE", "none either"]),
        ({"default_proxy": "PDFS"}, ["PDFS", "no proxy"]),
        ({"default_proxy": "AAPL", "proxies": {"PDFS": "GONE"}}, ["PDFS", "GONE"]),
    ],
)
def test_without_a_usable_proxy_a_symbol_stays_silent(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, arguments: dict[str, Any], words: list[str]
) -> None:
    lake = market(tmp_path, {"AAPL": [0]}, DAYS[:1])
    with caplog.at_level(logging.WARNING):
        tape = opened(lake, symbols=["AAPL", "PDFS"], **arguments)
    assert tape.view.silent == ("PDFS",)
    assert tape.symbols == ["AAPL", "PDFS"]
    assert minutes_of(first_chunk(tape)) == {0: ["AAPL"]}
    assert len(caplog.records) == 1
    assert all(word in caplog.records[0].message for word in words)


def test_a_symbol_is_not_its_own_proxy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"PDFS is its own proxy .*proxies"):
        Tape(Lake(tmp_path), MINUTE, symbols=["PDFS"], proxies={"PDFS": "PDFS"})


def test_an_empty_lake_says_what_to_run(tmp_path: Path) -> None:
    tape = Tape(Lake(tmp_path), MINUTE, place="the workspace alpha")
    with pytest.raises(StreamError, match="the workspace alpha holds no 1Min bars; run `garch refresh`"):
        tape.open()


def test_an_empty_range_names_what_the_lake_holds(tmp_path: Path) -> None:
    lake = market(tmp_path, {"AAA": [0]})
    tape = Tape(lake, MINUTE, start=date(2025, 1, 1), end=date(2025, 2, 1))
    with pytest.raises(StreamError, match=r"2025-01-01 to 2025-02-01.*2024-03-07 to 2024-03-11"):
        tape.open()


def test_bars_of_closes_alone_are_refused(tmp_path: Path) -> None:
    closes = contract(
        session_bars({"AAA": [0]}).select("symbol", "timestamp", "close"), DAYS[0], timeframe=MINUTE
    )
    with pytest.raises(StreamError, match="none with all of open, high, low, close, volume"):
        Tape(store(Lake(tmp_path), closes), MINUTE).open()


def test_a_version_stays_as_it_was(tmp_path: Path) -> None:
    lake = market(tmp_path, {"AAPL": [0, 1], "MSFT": [0, 1]}, DAYS[:2])
    tape = opened(lake, symbols=["AAPL", "PDFS"], default_proxy="AAPL")
    view = tape.view
    store(lake, session_bars({"AAPL": [0], "PDFS": [0]}, price=500.0))
    assert tape.refresh()
    first_chunk(tape)
    sources = np.array(
        [stamp.timestamp() * 1e6 for stamp in (opening(DAYS[0]), opening(DAYS[1]))], dtype=np.int64
    )
    then = pl.concat(tape.read_again(view, ["PDFS", "MSFT"], sources)).sort("timestamp")
    now = pl.concat(tape.read_again(tape.view, ["PDFS", "MSFT"], sources))
    assert then.select("symbol", "close").rows() == [("PDFS", 100.65), ("PDFS", 200.65)]
    assert now.select("symbol", "close").rows() == [("PDFS", 500.0 + ord("P") / 100)]
