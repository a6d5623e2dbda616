"""The replay's clock: due times without drift, stamps that only ever increase."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from garch_platform.errors import StreamError
from garch_platform.recycler.clock import ReplayClock, Speed
from garch_platform_tests.recycler.market import DAY, DAYS, MINUTE, NOW, opening

ONE = timedelta(minutes=1)
FLOOR = NOW.replace(second=0)


def started(**arguments: Any) -> ReplayClock:
    clock = ReplayClock(arguments.pop("timeframe", MINUTE), **arguments)
    clock.start(NOW)
    return clock


def send(clock: ReplayClock, now: datetime, minutes: int = 1) -> tuple[datetime, datetime]:
    """Wait for the next tick and send it: the moment and the stamp."""
    now += timedelta(seconds=clock.wait(minutes, now))
    return now, clock.stamp(minutes, opening(DAYS[0]))


def test_in_real_time_bars_are_sent_when_their_minute_has_ended() -> None:
    clock, now, sent = started(), NOW, []
    for _ in range(4):
        now, stamp = send(clock, now)
        sent.append((now, stamp))
    assert sent[0] == (NOW, FLOOR - ONE)
    assert sent[1:] == [(FLOOR + number * ONE, FLOOR + (number - 1) * ONE) for number in (1, 2, 3)]


def test_a_factor_shortens_the_minute_and_not_the_stamps() -> None:
    clock, now, stamps, moments = started(speed=60.0), NOW, [], []
    for _ in range(5):
        now, stamp = send(clock, now)
        stamps.append(stamp)
        moments.append(now)
    assert stamps == [FLOOR + number * ONE for number in range(-1, 4)]
    assert moments == [NOW, *(NOW + timedelta(seconds=0.5 + number) for number in range(4))]


def test_max_waits_for_nothing_and_takes_a_minute_a_tick() -> None:
    clock = started(speed="max")
    assert [clock.wait(n, NOW) for n in (1, 90)] == [0.0, 0.0]
    before = opening(DAYS[0])
    hole = clock.minutes(before, before + 5 * ONE, sessions=(DAYS[0], DAYS[0]))
    assert hole == 1
    assert [send(clock, NOW)[1] for _ in range(3)] == [FLOOR - ONE, FLOOR, FLOOR + ONE]


def test_lateness_does_not_add_up() -> None:
    clock, now = started(speed=60.0), NOW
    for _ in range(1000):
        now += timedelta(seconds=clock.wait(1, now) + 0.25)
        clock.stamp(1, NOW)
    assert now == NOW + timedelta(seconds=0.5 + 998 + 0.25)


def test_a_late_tick_is_followed_at_once_by_those_that_are_due() -> None:
    clock = started(speed=60.0)
    send(clock, NOW)
    now = NOW + timedelta(seconds=10)
    stamps = []
    while clock.wait(1, now) == 0.0:
        stamps.append(clock.stamp(1, NOW))
    assert stamps == [FLOOR + number * ONE for number in range(10)]


def test_historical_stamps_are_the_bars_own_at_the_same_pace() -> None:
    live, past = started(speed=7.0), started(speed=7.0, stamps="historical")
    source, now = opening(DAYS[0]), NOW
    for minutes in (1, 3, 1):
        assert live.wait(minutes, now) == past.wait(minutes, now)
        now += timedelta(seconds=live.wait(minutes, now))
        live.stamp(minutes, source)
        assert past.stamp(minutes, source) == source


def test_after_a_pause_it_is_now_again() -> None:
    clock = started()
    now, _ = send(clock, NOW)
    clock.pause(now)
    assert clock.wait(1, now) == math.inf
    clock.resume(now + timedelta(minutes=10, seconds=10))
    sent, stamp = send(clock, now + timedelta(minutes=10, seconds=10))
    assert sent == now + timedelta(minutes=10, seconds=10)
    assert stamp == FLOOR + 9 * ONE
    assert send(clock, sent) == (FLOOR + 11 * ONE, FLOOR + 10 * ONE)


def test_a_short_pause_shifts_nothing() -> None:
    clock = started()
    now, _ = send(clock, NOW)
    clock.pause(now)
    clock.resume(now + timedelta(seconds=5))
    assert send(clock, now + timedelta(seconds=5)) == (FLOOR + ONE, FLOOR)


def test_after_a_pause_a_clock_that_ran_ahead_goes_on_from_there() -> None:
    clock, now = started(speed=60.0), NOW
    for _ in range(30):
        now, stamp = send(clock, now)
    clock.pause(now)
    clock.resume(now + ONE)
    sent, after = send(clock, now + ONE)
    assert after == stamp + ONE
    assert sent == now + ONE + timedelta(seconds=1)


def test_a_change_of_speed_keeps_the_share_of_the_minute_that_has_passed() -> None:
    clock = started(speed=1.0)
    now, _ = send(clock, NOW)
    assert clock.wait(1, now) == 30.0
    clock.set_speed(10.0, now + timedelta(seconds=10))
    assert clock.wait(1, now + timedelta(seconds=10)) == pytest.approx(2.0)
    clock.set_speed("max", now + timedelta(seconds=11))
    assert clock.wait(1, now + timedelta(seconds=11)) == 0.0
    _, stamp = send(clock, now)
    clock.set_speed(1.0, now + timedelta(seconds=12))
    later, after = send(clock, now + timedelta(seconds=12))
    assert after == stamp + ONE
    assert 0 < (later - now).total_seconds() <= 72


@pytest.mark.parametrize("speed", [0, -1.0, math.nan, math.inf, "fast", True, None])
def test_a_speed_that_is_none_is_refused(speed: Any) -> None:
    clock = started()
    with pytest.raises(StreamError, match="give a positive number"):
        clock.set_speed(speed, NOW)
    assert clock.speed == 1.0


@pytest.mark.parametrize(
    ("gaps", "minutes"),
    [("skip", 1), ("keep", 66 * 60 - 60)],
)
def test_the_time_between_sessions_is_kept_or_skipped(gaps: Any, minutes: int) -> None:
    """From Friday's open to Monday's there are 72 hours less the one that New York's clocks lose."""
    clock = started(session_gaps=gaps)
    friday = opening(DAYS[1]) + timedelta(hours=6)
    assert clock.minutes(friday, opening(DAYS[2]), sessions=(DAYS[1], DAYS[2])) == minutes


def test_holes_in_a_session_elapse() -> None:
    clock = started()
    start = opening(DAYS[0])
    assert clock.minutes(start, start + 5 * ONE, sessions=(DAYS[0], DAYS[0])) == 5
    now, first = send(clock, NOW)
    later, stamp = send(clock, now, 5)
    assert (later, stamp) == (FLOOR + 5 * ONE, first + 5 * ONE)


def test_a_pass_or_a_seek_goes_on_at_the_next_minute() -> None:
    clock = started(session_gaps="keep")
    end, start = opening(DAYS[2]), opening(DAYS[0])
    assert clock.minutes(end, start, sessions=None) == 1
    assert clock.minutes(end, start, sessions=(DAYS[2], DAYS[0])) == 1
    assert clock.minutes(None, start, sessions=None) == 1


@pytest.mark.parametrize(("gaps", "weekend"), [("skip", 1), ("keep", 3)])
def test_longer_bars_come_one_a_minute(gaps: Any, weekend: int) -> None:
    clock = started(timeframe=DAY, session_gaps=gaps)
    assert clock.minutes(opening(DAYS[0]), opening(DAYS[1]), sessions=(DAYS[0], DAYS[1])) == 1
    assert clock.minutes(opening(DAYS[1]), opening(DAYS[2]), sessions=(DAYS[1], DAYS[2])) == weekend


def test_the_end_of_time_is_told() -> None:
    clock = ReplayClock(MINUTE, speed="max")
    clock.start(datetime(9999, 12, 31, 23, 59, 30, tzinfo=UTC))
    clock.stamp(1, NOW)
    assert clock.stamp(1, NOW).year == 9999
    with pytest.raises(StreamError, match="past the year 9999"):
        clock.stamp(1, NOW)


SPEEDS = st.one_of(st.just("max"), st.floats(0.01, 100_000.0))
ACTIONS = st.one_of(
    st.tuples(st.just("send"), st.integers(1, 500)),
    st.tuples(st.just("idle"), st.floats(0.0, 86_400.0)),
    st.tuples(st.just("pause"), st.none()),
    st.tuples(st.just("resume"), st.none()),
    st.tuples(st.just("speed"), SPEEDS),
)


@given(speed=SPEEDS, actions=st.lists(ACTIONS, max_size=60))
def test_stamps_increase_whatever_is_done(speed: Speed, actions: list[tuple[str, Any]]) -> None:
    """And no tick is sent before the virtual clock has reached the end of its minute."""
    clock, now, stamps = started(speed=speed), NOW, [datetime.min.replace(tzinfo=UTC)]
    for action, value in actions:
        match action:
            case "send" if not clock.is_paused:
                now += timedelta(seconds=clock.wait(value, now), microseconds=1)
                assert clock.wait(value, now) < 1e-3
                stamps.append(clock.stamp(value, NOW))
                assert clock.virtual(now) >= stamps[-1] + ONE - timedelta(milliseconds=200)
            case "idle":
                now += timedelta(seconds=value)
            case "pause":
                clock.pause(now)
            case "resume":
                clock.resume(now)
            case "speed":
                before = clock.virtual(now)
                clock.set_speed(value, now)
                assert clock.virtual(now) >= before
    assert all(later - earlier >= ONE for earlier, later in pairwise(stamps))
    assert all(not stamp.second and not stamp.microsecond for stamp in stamps[1:])
