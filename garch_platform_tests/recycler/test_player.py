"""The player: passes, controls at any moment, the lake that changes meanwhile, and what REST may tell."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import weakref
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from garch_platform.errors import StoreError, StreamError
from garch_platform.recycler import emitted
from garch_platform.recycler.clock import ReplayClock
from garch_platform.recycler.period import Chunk, Period
from garch_platform.recycler.player import Player
from garch_platform.recycler.tape import Tape
from garch_platform.recycler.tick import Tick
from garch_platform.recycler.wall_time import WallTime
from garch_platform.store.lake import Lake
from garch_platform_tests.recycler.market import (
    CALENDAR,
    DAY,
    DAYS,
    MINUTE,
    NOW,
    MemoryLake,
    TurnedTime,
    daily_bars,
    market,
    market_bars,
    opening,
    play,
    player_of,
    session_bars,
    store,
)
from garch_platform_tests.recycler.replay import told

ONE = timedelta(minutes=1)
FLOOR = NOW.replace(second=0)
HOLES = {"AAA": [0, 1, 2, 5], "BBB": [1, 2, 4]}
MOMENTS = [0, 1, 2, 4, 5]
"""Minutes after the open at which any symbol of `HOLES` has a bar."""


@pytest.fixture(scope="module")
def lake() -> MemoryLake:
    """Three sessions of two symbols with holes."""
    return MemoryLake(market_bars(HOLES))


def sources(days: list[date] = DAYS) -> list[datetime]:
    return [opening(day) + minute * ONE for day in days for minute in MOMENTS]


def stamps(ticks: list[Tick]) -> list[datetime]:
    return [tick.timestamp for tick in ticks]


def assert_rising(ticks: list[Tick]) -> None:
    assert all(later - earlier >= ONE for earlier, later in itertools.pairwise(stamps(ticks)))


def test_a_single_pass_gives_every_moment_once_in_order(lake: MemoryLake) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime())
    ticks = play(player)
    assert [tick.source for tick in ticks] == sources()
    assert [[bar.symbol for bar in tick.bars] for tick in ticks[:5]] == [
        ["AAA"], ["AAA", "BBB"], ["AAA", "BBB"], ["BBB"], ["AAA"],
    ]  # fmt: skip
    assert [tick.is_last_of_session for tick in ticks] == ([False] * 4 + [True]) * 3
    assert stamps(ticks) == [FLOOR + number * ONE for number in range(-1, 14)]
    status = player.status()
    assert (status["ticks"], status["bars"], status["pass"], status["ended"]) == (15, 21, 1, True)
    assert status["position"] == "2024-03-11T13:35:00Z"


@pytest.mark.parametrize("passes", [1, 2, 5])
def test_a_loop_counts_its_passes_exactly_and_stamps_go_on(lake: MemoryLake, passes: int) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime(), mode="loop", loop_count=passes)
    ticks = play(player)
    assert [tick.source for tick in ticks] == sources() * passes
    assert_rising(ticks)
    assert player.status()["pass"] == passes


def test_a_loop_for_ever_is_still_going(lake: MemoryLake) -> None:
    tape = Tape(lake, MINUTE, end=DAYS[0])
    ticks = play(player_of(tape, TurnedTime(), mode="loop"), most=203)
    assert [tick.source for tick in ticks] == (sources(DAYS[:1]) * 41)[:203]
    assert_rising(ticks)


def test_a_loop_over_one_session_reads_it_once(lake: MemoryLake) -> None:
    tape = Tape(lake, MINUTE, end=DAYS[0])
    read: list[Period] = []
    original = tape.read
    tape.read = lambda period: read.append(period) or original(period)  # type: ignore[method-assign,func-returns-value]
    assert len(play(player_of(tape, TurnedTime(), mode="loop", loop_count=30))) == 150
    assert read == [Period(DAYS[0], DAYS[0])]


def test_a_date_range_includes_both_ends(lake: MemoryLake) -> None:
    tape = Tape(lake, MINUTE, start=DAYS[1], end=DAYS[2])
    ticks = play(player_of(tape, TurnedTime(), mode="date_range"))
    assert [tick.source for tick in ticks] == sources(DAYS[1:])


def test_historical_stamps_are_the_sources(lake: MemoryLake) -> None:
    ticks = play(player_of(Tape(lake, MINUTE), TurnedTime(), stamps="historical", mode="loop", loop_count=2))
    assert [tick.timestamp for tick in ticks] == sources() * 2


@pytest.mark.parametrize("stamped", ["live", "historical"])
def test_the_pace_is_that_of_the_source(lake: MemoryLake, stamped: Any) -> None:
    """At 60 a second is a minute: holes elapse, a new session and a new pass follow at the next minute."""
    time = TurnedTime()
    moments: list[float] = []
    player = player_of(
        Tape(lake, MINUTE, end=DAYS[1]), time, speed=60.0, mode="loop", loop_count=2, stamps=stamped
    )
    play(player, after=lambda *_: moments.append((time.moment - NOW).total_seconds()))
    session = [0, 1, 2, 4, 5]
    minutes = [minute + 6 * number for number in range(4) for minute in session]
    assert moments == [0.0, *(minute - 0.5 for minute in minutes[1:])]


def test_kept_gaps_elapse(lake: MemoryLake) -> None:
    time = TurnedTime()
    ticks = play(player_of(Tape(lake, MINUTE), time, speed=60.0, session_gaps="keep"))
    assert [later - earlier for earlier, later in itertools.pairwise(stamps(ticks))] == [
        later - earlier for earlier, later in itertools.pairwise(sources())
    ]
    assert time.moment == NOW + timedelta(seconds=(sources()[-1] - sources()[0]) / ONE - 0.5)


def test_daily_bars_come_one_a_minute(tmp_path: Path) -> None:
    days = CALENDAR.sessions(date(2024, 1, 25), date(2024, 3, 5))
    tape = Tape(store(Lake(tmp_path), daily_bars(["AAA"], days)), DAY)
    ticks = play(player_of(tape, TurnedTime(), speed=1.0))
    assert [tick.bars[0].close for tick in ticks] == [100.0 + number for number in range(len(days))]
    assert stamps(ticks) == [FLOOR + number * ONE for number in range(-1, len(days) - 1)]
    assert all(tick.is_last_of_session for tick in ticks)


def test_a_pause_holds_the_tick_that_is_waited_for(lake: MemoryLake) -> None:
    time = TurnedTime()
    player = player_of(Tape(lake, MINUTE, end=DAYS[0]), time, speed=1.0)

    def interfere(seconds: float) -> None:
        if len(time.waited) == 2:
            player.pause()
        elif player.clock.is_paused:
            time.turn(600)
            player.resume()

    time.on_wait = interfere
    ticks = play(player)
    assert [tick.source for tick in ticks] == sources(DAYS[:1])
    assert stamps(ticks)[:4] == [FLOOR - ONE, FLOOR, FLOOR + 10 * ONE, FLOOR + 12 * ONE]


def test_a_speed_takes_effect_while_a_tick_is_waited_for(lake: MemoryLake) -> None:
    time = TurnedTime()
    player = player_of(Tape(lake, MINUTE, end=DAYS[0]), time, speed=1.0)
    time.on_wait = lambda seconds: player.set_speed("max") if len(time.waited) == 1 else None
    ticks = play(player)
    assert time.moment == NOW
    assert stamps(ticks) == [FLOOR + number * ONE for number in range(-1, 4)]


def seek_once(player: Player, at: int, moment: datetime | date) -> Callable[[int, Tick], None]:
    return lambda count, _: player.seek(moment) if count == at else None


@pytest.mark.parametrize(
    ("moment", "goes_on"),
    [
        (opening(DAYS[2]) + 2 * ONE, [*sources(DAYS[2:])[2:]]),
        (opening(DAYS[2]) + 3 * ONE, [*sources(DAYS[2:])[3:]]),
        (datetime(2024, 3, 9, tzinfo=UTC), sources(DAYS[2:])),
        (DAYS[1], sources(DAYS[1:])),
        (date(2024, 3, 10), sources(DAYS[2:])),
        (datetime(2024, 3, 7, tzinfo=UTC), sources()),
        (opening(DAYS[0]), sources()),
    ],
)
def test_a_seek_goes_to_the_first_moment_at_or_after(
    lake: MemoryLake, moment: datetime | date, goes_on: list[datetime]
) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime(), speed=600.0)
    ticks = play(player, after=seek_once(player, 7, moment))
    assert [tick.source for tick in ticks] == sources()[:7] + goes_on
    assert_rising(ticks)


def test_a_seek_ends_the_wait_for_the_next_tick(lake: MemoryLake) -> None:
    time = TurnedTime()
    player = player_of(Tape(lake, MINUTE), time, speed=1.0)
    time.on_wait = lambda _: player.seek(DAYS[2]) if len(time.waited) == 1 else None
    ticks = play(player, most=2)
    assert [tick.source for tick in ticks] == [opening(DAYS[0]), opening(DAYS[2])]
    assert stamps(ticks) == [FLOOR - ONE, FLOOR]


def test_the_last_of_two_seeks_counts(lake: MemoryLake) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime())

    def both(count: int, _: Tick) -> None:
        if count == 1:
            player.seek(DAYS[2])
            player.seek(DAYS[1])

    assert [tick.source for tick in play(player, after=both)] == [sources()[0], *sources(DAYS[1:])]


@pytest.mark.parametrize(
    "moment",
    [
        datetime(2024, 3, 6, 23, 59, tzinfo=UTC),
        opening(DAYS[2]) + 6 * ONE,
        date(2024, 3, 12),
        date(1999, 1, 1),
    ],
)
def test_a_seek_outside_names_the_bounds(lake: MemoryLake, moment: datetime | date) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime())
    with pytest.raises(
        StreamError, match=r"2024-03-07 to 2024-03-11.*2024-03-07T14:30:00Z to 2024-03-11T13:35:00Z"
    ):
        player.seek(moment)


def test_a_seek_needs_a_time_zone_and_a_replay_that_goes_on(lake: MemoryLake) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime())
    with pytest.raises(StreamError, match="no time zone"):
        player.seek(datetime(2024, 3, 8, 15))  # noqa: DTZ001
    play(player)
    with pytest.raises(StreamError, match="has ended"):
        player.seek(DAYS[1])


def test_only_one_reader(lake: MemoryLake) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime())
    play(player, most=1)
    with pytest.raises(StreamError, match="the replay is ended"):
        play(player, most=1)


CONTROLS = st.lists(
    st.tuples(
        st.integers(1, 60),
        st.one_of(
            st.tuples(st.just("pause"), st.floats(0, 7200)),
            st.tuples(st.just("speed"), st.one_of(st.just("max"), st.floats(0.1, 10_000))),
            st.tuples(st.just("seek"), st.sampled_from([*sources(), *DAYS])),
            st.tuples(st.just("idle"), st.floats(0, 7200)),
        ),
    ),
    max_size=12,
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(controls=CONTROLS, gaps=st.sampled_from(["skip", "keep"]))
def test_stamps_increase_over_passes_pauses_seeks_and_speeds(
    lake: MemoryLake, controls: list[tuple[int, tuple[str, Any]]], gaps: Any
) -> None:
    """And nothing but a seek leaves a moment out or doubles one."""
    time = TurnedTime()
    player = player_of(Tape(lake, MINUTE), time, speed=60.0, mode="loop", session_gaps=gaps)
    after_seek: set[int] = set()

    def act(count: int, _: Tick) -> None:
        for at, (action, value) in controls:
            if at != count:
                continue
            match action:
                case "pause":
                    player.pause()
                    time.turn(value)
                    player.resume()
                case "speed":
                    player.set_speed(value)
                case "seek":
                    player.seek(value)
                    after_seek.add(count)
                case _:
                    time.turn(value)

    ticks = play(player, most=60, after=act)
    assert_rising(ticks)
    order = sources()
    for count, (earlier, later) in enumerate(itertools.pairwise(ticks), start=1):
        if count not in after_seek:
            following = (order.index(earlier.source) + 1) % len(order)
            assert later.source == order[following]


def test_real_bars_take_over_from_the_proxy_within_the_session(tmp_path: Path) -> None:
    lake = market(tmp_path, {"AAPL": range(6)}, DAYS[:2])
    player = player_of(
        Tape(lake, MINUTE, symbols=["PDFS"], default_proxy="AAPL"), TurnedTime(), speed=1.0, refresh_seconds=0
    )

    def arrive(count: int, tick: Tick) -> None:
        if count == 3:
            assert player.proxies() == {
                "PDFS": [{"proxy": "AAPL", "start": "2025-05-05T11:59:00Z", "end": None}]
            }
            store(lake, session_bars({"PDFS": range(6)}))

    ticks = play(player, after=arrive)
    assert {bar.symbol for tick in ticks for bar in tick.bars} == {"PDFS"}
    assert [tick.source for tick in ticks] == [opening(DAYS[0]) + minute * ONE for minute in range(6)]
    assert len(ticks) == 6
    assert [tick.bars[0].close for tick in ticks] == [100.65, 101.65, 102.65, 103.8, 104.8, 105.8]
    span = {"proxy": "AAPL", "start": "2025-05-05T11:59:00Z", "end": "2025-05-05T12:01:01Z"}
    assert player.proxies() == {"PDFS": [span]}
    assert player.status()["proxies"] == {}
    rows = told(player.replayed(["PDFS"], None, None))
    assert rows == [(tick.timestamp, tick.bars[0]) for tick in ticks]


def test_repeated_passes_do_not_add_up_spans(lake: MemoryLake) -> None:
    tape = Tape(lake, MINUTE, symbols=["AAA", "PDFS"], default_proxy="AAA")
    player = player_of(tape, TurnedTime(), stamps="historical", mode="loop", loop_count=4)
    play(player)
    spans = player.proxies()["PDFS"]
    assert spans == [
        {"proxy": "AAA", "start": "2024-03-07T14:30:00Z", "end": "2024-03-11T13:35:01Z"},
        {"proxy": "AAA", "start": "2024-03-07T14:30:00Z", "end": None},
    ]


def test_sessions_that_are_added_meanwhile_are_played(tmp_path: Path) -> None:
    lake = market(tmp_path, HOLES, DAYS[:1])
    player = player_of(
        Tape(lake, MINUTE), TurnedTime(), speed=1.0, mode="loop", loop_count=2, refresh_seconds=0
    )
    ticks = play(
        player, after=lambda count, _: store(lake, session_bars(HOLES, DAYS[2])) if count == 2 else None
    )
    assert [tick.source for tick in ticks] == sources([DAYS[0], DAYS[2]]) * 2


def test_a_lake_that_cannot_be_looked_at_does_not_stop_the_replay(
    lake: MemoryLake, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime(), speed=1.0, refresh_seconds=0)

    def refuse() -> bool:
        raise StoreError("the disk is away")

    monkeypatch.setattr(player.tape, "refresh", refuse)
    with caplog.at_level(logging.WARNING):
        assert len(play(player)) == 15
    assert "the disk is away" in caplog.text


def test_a_period_that_could_not_be_read_ahead_is_read_again(
    lake: MemoryLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    tape = Tape(lake, MINUTE)
    player = player_of(tape, TurnedTime())
    refused: list[Period] = []
    original = tape.read

    def once(period: Period) -> Chunk:
        if period.start == DAYS[1] and not refused:
            refused.append(period)
            raise StreamError("the lake's bars cannot be read")
        return original(period)

    monkeypatch.setattr(tape, "read", once)
    assert [tick.source for tick in play(player)] == sources()
    assert refused


def test_a_lake_that_is_away_for_a_moment_is_waited_for(
    lake: MemoryLake, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tape, time = Tape(lake, MINUTE), TurnedTime()
    player = player_of(tape, time)
    attempts = []
    original = tape.read

    def back_soon(period: Period) -> Chunk:
        attempts.append(period)
        if time.moment < NOW + timedelta(seconds=20):
            raise StoreError("the disk is away")
        return original(period)

    monkeypatch.setattr(tape, "read", back_soon)
    with caplog.at_level(logging.WARNING):
        assert [tick.source for tick in play(player)] == sources()
    assert attempts[:4] == [Period(DAYS[0], DAYS[0])] * 4
    assert "once more in 15 s: the disk is away" in caplog.text


def test_a_lake_that_stays_away_ends_the_replay(lake: MemoryLake, monkeypatch: pytest.MonkeyPatch) -> None:
    time = TurnedTime()
    player = player_of(Tape(lake, MINUTE), time)

    def refuse(period: Period) -> Chunk:
        raise StoreError(f"no disk for {period.start}")

    monkeypatch.setattr(player.tape, "read", refuse)
    with pytest.raises(StoreError, match="no disk for 2024-03-07"):
        play(player)
    assert time.moment == NOW + timedelta(seconds=51)
    assert player.status()["ended"]


def test_a_period_without_bars_to_speak_is_passed_over(tmp_path: Path) -> None:
    lake = market(tmp_path, HOLES)
    closes = session_bars(HOLES, DAYS[1]).with_columns(open=None)
    store(lake, closes.with_columns(open=closes["open"].cast(float)))
    player = player_of(Tape(lake, MINUTE), TurnedTime())
    assert [tick.source for tick in play(player)] == sources([DAYS[0], DAYS[2]])
    assert player.status()["unservable"] == {"AAA": 4, "BBB": 3}


def test_a_replay_in_which_no_bar_can_be_spoken_any_more_ends_with_its_reason() -> None:
    bars = market_bars(HOLES)
    tape = Tape(MemoryLake(bars), MINUTE)
    player = player_of(tape, TurnedTime(), mode="loop")

    def lose(count: int, _: Tick) -> None:
        if count == 1:
            tape.lake.bars = bars.with_columns(volume=pl.lit(None, pl.Float64))  # type: ignore[attr-defined]
            tape.view = replace(tape.view)

    with pytest.raises(StreamError, match="a whole pass of the workspace had no bar with all prices"):
        play(player, after=lose)
    assert player.status()["pass"] == 2


def test_few_periods_are_in_memory_however_long_the_history() -> None:
    """The present one, the one read ahead, and the last few for REST."""
    most = []
    for count in (5, 15):
        days = CALENDAR.sessions(date(2024, 1, 2), date(2024, 2, 2))[:count]
        tape = Tape(MemoryLake(market_bars(HOLES, days)), MINUTE)
        alive: weakref.WeakSet[Chunk] = weakref.WeakSet()
        highest = 0
        original = tape.read

        def read(period: Period, original: Any = original, alive: Any = alive) -> Chunk:
            chunk: Chunk = original(period)
            alive.add(chunk)
            return chunk

        def look(*_: object, alive: Any = alive) -> None:
            nonlocal highest
            highest = max(highest, len(alive))

        tape.read = read  # type: ignore[method-assign]
        assert len(play(player_of(tape, TurnedTime(), mode="loop", loop_count=2), after=look)) == 10 * count
        most.append(highest)
    assert most[0] == most[1] <= 4


def test_nothing_is_told_before_it_was_sent(lake: MemoryLake) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime(), mode="loop", loop_count=2)
    sent: list[Tick] = []

    def look(_: int, tick: Tick) -> None:
        sent.append(tick)
        rows = told(player.replayed(["BBB", "AAA", "ZZZ"], None, None))
        expected = [(tick.timestamp, bar) for tick in sent for bar in tick.bars]
        assert rows == sorted(expected, key=lambda one: (one[1].symbol, one[0]))

    assert not told(player.replayed(["AAA"], None, None))
    assert len(play(player, after=look)) == 30


def test_what_is_told_does_not_depend_on_how_much_is_read_at_once(
    lake: MemoryLake, monkeypatch: pytest.MonkeyPatch
) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime(), mode="loop", loop_count=3)
    play(player)
    at_once = told(player.replayed(["AAA", "BBB"], None, None))
    monkeypatch.setattr(emitted, "BARS_AT_ONCE", 1)
    assert told(player.replayed(["BBB", "AAA"], None, None)) == at_once
    assert len(at_once) == 63


def test_what_is_told_is_between_the_ends(lake: MemoryLake) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime())
    ticks = play(player)
    start, end = ticks[4].timestamp, ticks[8].timestamp
    stamps = [stamp for stamp, _ in told(player.replayed(["AAA"], start, end))]
    assert stamps == [tick.timestamp for tick in ticks[4:9] if tick.bars[0].symbol == "AAA"]
    assert not told(player.replayed(["AAA"], end + ONE, start))


def test_in_the_historical_clock_each_bar_is_told_once(lake: MemoryLake) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime(), stamps="historical", mode="loop", loop_count=3)
    play(player, most=33)
    stamps = [stamp for stamp, _ in told(player.replayed(["AAA"], None, None))]
    assert stamps == [opening(day) + minute * ONE for day in DAYS for minute in HOLES["AAA"]]


def test_the_memory_of_what_was_sent_is_bounded(lake: MemoryLake) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime(), mode="loop", loop_count=20, remembered=40)
    ticks = play(player)
    rows = told(player.replayed(["AAA", "BBB"], None, None))
    expected = [(tick.timestamp, bar) for tick in ticks[-40:] for bar in tick.bars]
    assert rows == sorted(expected, key=lambda one: (one[1].symbol, one[0]))


def test_the_wall_clock_waits_and_wakes() -> None:
    async def scenario() -> None:
        time, changed = WallTime(), asyncio.Event()
        before = time.now()
        await time.wait(0.02, changed)
        assert time.now() - before >= timedelta(milliseconds=19)
        asyncio.get_running_loop().call_later(0.01, changed.set)
        await asyncio.wait_for(time.wait(float("inf"), changed), 5)

    asyncio.run(scenario())


def test_no_tick_comes_before_it_is_due_on_the_wall_clock(lake: MemoryLake) -> None:
    """20 minutes at 6,000 a minute: 10 ms each."""
    tape = Tape(lake, MINUTE)
    tape.open()
    player = Player(tape, ReplayClock(MINUTE, speed=6000.0), mode="loop")
    ahead: list[timedelta] = []
    ticks = play(
        player,
        most=20,
        after=lambda _, tick: ahead.append(tick.timestamp + ONE - player.clock.virtual(player.time.now())),
    )
    assert_rising(ticks)
    assert max(ahead) <= timedelta(0)


def test_status_is_ready_for_json(lake: MemoryLake) -> None:
    player = player_of(Tape(lake, MINUTE), TurnedTime())
    assert json.loads(json.dumps(player.status())) == player.status()
    assert player.status()["state"] == "ready"
    play(player, most=3, after=lambda *_: json.dumps(player.status()))
