"""Pages of bars that were replayed: equal to what the stream summed, and read once for many pages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import polars as pl
import pytest

from garch_platform.recycler import emitted
from garch_platform.recycler.daily import RunningDays, day_start
from garch_platform.recycler.player import Player
from garch_platform.recycler.rest import bars_page
from garch_platform.recycler.tape import Tape
from garch_platform.recycler.wire import bar_fields, rfc3339
from garch_platform_tests.recycler.market import MINUTE, MemoryLake, TurnedTime, market_bars, play, player_of

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
