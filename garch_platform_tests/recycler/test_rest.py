"""Pages of bars that were replayed: equal to what the stream summed, and read once for many pages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from garch_platform.bars import Timeframe
from garch_platform.recycler import emitted
from garch_platform.recycler.daily import RunningDays, day_start
from garch_platform.recycler.player import Player
from garch_platform.recycler.rest import BadRequest, bars_page
from garch_platform.recycler.tape import Tape
from garch_platform.recycler.wire import bar_fields, rfc3339
from garch_platform_tests.recycler.market import (
    DAY,
    DAYS,
    MINUTE,
    MemoryLake,
    TurnedTime,
    daily_bars,
    market_bars,
    play,
    player_of,
)

NAMES = ["AAA", "BBB", "CCC", "DDD"]


@pytest.fixture
def player() -> Player:
    """Three sessions over a change of New York's clocks, with awkward sums, nulls and empty volumes."""
    number = pl.int_range(pl.len())
    bars = market_bars({name: range(at, 60, at + 1) for at, name in enumerate(NAMES)}).with_columns(
        volume=pl.when(pl.col("symbol") == "DDD").then(0.0).otherwise(number * math.pi + 0.1),
        vwap=pl.when((pl.col("symbol") != "BBB") | (number % 7 > 0)).then(pl.col("vwap") + 1 / (3 + number)),
        trade_count=pl.when((pl.col("symbol") != "CCC") | (number % 5 > 0)).then(pl.col("trade_count")),
    )
    found = player_of(Tape(MemoryLake(bars), MINUTE), TurnedTime(), stamps="historical")
    found.ticks_sent = play(found)  # type: ignore[attr-defined]
    return found


def walked(player: Player, **query: Any) -> Iterator[tuple[str, dict[str, Any]]]:
    """Symbol and bar of every page in turn."""
    token: str | None = ""
    while token is not None:
        asked = {"symbols": ",".join(NAMES), **query, **({"page_token": token} if token else {})}
        page = bars_page(player, "&".join(f"{name}={value}" for name, value in asked.items()))
        for symbol, bars in page["bars"].items():
            yield from ((symbol, bar) for bar in bars)
        token = page["next_page_token"]


def summed(player: Player) -> list[tuple[str, dict[str, Any]]]:
    """The last daily bar that the stream sends of each symbol and day."""
    running, last = RunningDays(), {}
    for tick in player.ticks_sent:  # type: ignore[attr-defined]
        running.add(tick.timestamp, tick.bars)
        begin = day_start(tick.timestamp)
        last.update(((bar.symbol, begin), running.bar(bar.symbol)) for bar in tick.bars)
    return [(symbol, bar_fields(bar, rfc3339(begin))) for (symbol, begin), bar in sorted(last.items())]


@pytest.mark.parametrize("limit", [1, 4, 1000])
def test_days_equal_those_of_the_stream_to_the_last_digit(player: Player, limit: int) -> None:
    days = list(walked(player, timeframe="1Day", limit=limit))
    assert days == summed(player)
    assert {symbol for symbol, day in days if day["vw"] is None} == {"BBB", "DDD"}
    assert {symbol for symbol, day in days if day["n"] is None} == {"CCC"}
    backwards = list(walked(player, timeframe="1Day", limit=limit, sort="desc"))
    assert sorted(backwards, key=lambda one: (one[0], one[1]["t"])) == days
    assert [symbol for symbol, _ in backwards] == [symbol for symbol, _ in days]


def test_the_pages_of_a_query_read_each_symbol_once(player: Player, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(emitted, "BARS_AT_ONCE", 400)
    read: list[str] = []
    original = player.tape.read_again

    def counted(view: Any, symbols: Any, sources: Any) -> Iterator[pl.DataFrame]:
        read.extend(symbols)
        return original(view, symbols, sources)

    player.tape.read_again = counted  # type: ignore[method-assign]
    for sort in ("asc", "desc"):
        rows = [(symbol, bar["t"]) for symbol, bar in walked(player, timeframe="1Min", limit=13, sort=sort)]
        sent = [
            (bar.symbol, rfc3339(tick.timestamp))
            for tick in player.ticks_sent  # type: ignore[attr-defined]
            for bar in tick.bars
        ]
        assert sorted(rows) == sorted(sent)
        assert [symbol for symbol, _ in rows] == sorted(symbol for symbol, _ in rows)
    assert sorted(read) == NAMES


def test_a_page_reads_no_symbol_that_it_does_not_need(
    player: Player, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emitted, "BARS_AT_ONCE", 1)
    asked: list[list[str]] = []
    original = player.tape.read_again

    def seen(view: Any, symbols: Any, sources: Any) -> Iterator[pl.DataFrame]:
        asked.append(list(symbols))
        return original(view, symbols, sources)

    player.tape.read_again = seen  # type: ignore[method-assign]
    query = f"symbols={','.join(NAMES)}&timeframe=1Min&limit=200"
    token = bars_page(player, query)["next_page_token"]
    assert asked == [["AAA"], ["BBB"]]
    bars_page(player, f"{query}&page_token={token}")
    assert asked == [["AAA"], ["BBB"], ["CCC"], ["DDD"]]


def test_what_is_sent_meanwhile_is_not_missed(player: Player) -> None:
    def count() -> int:
        return len(list(walked(player, timeframe="1Min", limit=50)))

    before = count()
    last = player.ticks_sent[-1]  # type: ignore[attr-defined]
    player._emitted.append(last.timestamp + 60 * MINUTE.duration, last.source, player.tape.view)
    assert count() == before + len(last.bars)


HOUR = Timeframe.parse("1Hour")


def replayed(timeframe: Timeframe, stamps: str) -> Player:
    """A replay that has ended, of two sessions' bars of ``timeframe``, under the symbol AAA."""
    if timeframe.is_daily:
        bars = daily_bars(["AAA"], DAYS[:2])
    else:
        minutes = range(0, 390, timeframe.minutes)
        bars = market_bars({"AAA": minutes}, DAYS[:2]).with_columns(timeframe=pl.lit(timeframe.name))
    found = player_of(Tape(MemoryLake(bars), timeframe), TurnedTime(), stamps=stamps)  # type: ignore[arg-type]
    play(found)
    return found


def asked(player: Player, timeframe: str) -> list[dict[str, Any]]:
    bars: list[dict[str, Any]] = bars_page(player, f"symbols=AAA&timeframe={timeframe}")["bars"].get(
        "AAA", []
    )
    return bars


@pytest.mark.parametrize(
    ("timeframe", "stamps", "own", "others"),
    [
        (MINUTE, "live", ["1Min", "1T"], ["1Hour", "5Min"]),
        (MINUTE, "historical", ["1Min", "1T"], ["1Hour", "2T"]),
        (HOUR, "live", ["1Min", "1T"], ["1Hour", "1H"]),
        (HOUR, "historical", ["1Hour", "1H"], ["1Min", "1T", "2H", "60T"]),
        (DAY, "live", ["1Min", "1T"], ["1Hour", "5Min"]),
        (DAY, "historical", ["1Day", "1D"], ["1Min", "1T"]),
    ],
)
def test_bars_of_the_length_that_was_stamped_and_days_made_of_them(
    timeframe: Timeframe, stamps: str, own: list[str], others: list[str]
) -> None:
    """In the live clock every bar is a minute's, whatever it was in the lake."""
    player = replayed(timeframe, stamps)
    sent = player.status()["ticks"]
    for name in own:
        bars = asked(player, name)
        assert len(bars) == sent
    for name in ("1Day", "1D"):
        days = asked(player, name)
        assert len(days) == (1 if stamps == "live" else 2)
        assert sum(day["v"] for day in days) == sum(bar["v"] for bar in bars)
    for name in [*others, "1W", "1Week", "1Month", "", "Min", "0Min", "1min", "٣Min"]:
        with pytest.raises(BadRequest, match=f"^timeframe: .* is not served; ask for {own[0]}( or 1Day)?$"):
            asked(player, name)
