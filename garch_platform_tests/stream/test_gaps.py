"""Bookkeeping of what is missing: nothing that was neither seen nor answered is forgotten."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garch_platform.sessions import trading_calendar
from garch_platform.stream.gaps import DAY, SPANS_PER_SYMBOL, Gaps, Span
from garch_platform.stream.hours import MarketHours
from garch_platform.stream.rows import microseconds
from garch_platform_tests.stream.edge import DAYS

STEP = 60_000_000
MINUTES = 40


def missing(gaps: Gaps, symbol: str = "A") -> set[int]:
    """Minutes 0 … MINUTES-1 that are asked for."""
    spans = gaps.take(again=True)
    for span in spans:
        gaps.failed(span)
    return {
        minute
        for minute in range(MINUTES)
        for span in spans
        if span.symbol == symbol
        and (span.start is None or span.start <= minute * STEP)
        and (span.end is None or minute * STEP < span.end)
    }


def started(*symbols: str, last: int | None = -1) -> Gaps:
    gaps = Gaps(symbols or ("A",), step=STEP)
    gaps.resume({} if last is None else dict.fromkeys(symbols or ("A",), last * STEP))
    return gaps


def test_bars_in_order_leave_nothing() -> None:
    gaps = started()
    for minute in range(5):
        gaps.seen("A", minute * STEP)
    assert gaps.take(again=True) == []
    assert gaps.newest == 4 * STEP


def test_a_hole_is_asked_for_until_it_is_answered() -> None:
    gaps = started()
    for minute in (0, 1, 4):
        gaps.seen("A", minute * STEP)
    (hole,) = gaps.take()
    assert hole == Span("A", 2 * STEP, 4 * STEP, "hole")
    assert gaps.take() == []
    gaps.failed(hole)
    assert gaps.take() == [hole]
    assert gaps.snapshot() == [hole]
    gaps.answered(hole, 4 * STEP)
    assert gaps.take() == gaps.snapshot() == []


@pytest.mark.parametrize(
    ("late", "left"), [([2, 3], set()), ([3, 2], set()), ([2], {3}), ([3], {2}), ([2, 2], {3})]
)
def test_bars_out_of_order_close_their_hole(late: list[int], left: set[int]) -> None:
    gaps = started()
    for minute in (0, 1, 4, *late):
        gaps.seen("A", minute * STEP)
    assert missing(gaps) == left


def test_an_interruption_is_open_until_a_bar_closes_it() -> None:
    gaps = started("A", "B")
    for symbol in "AB":
        gaps.seen(symbol, 0)
    gaps.interrupted("reconnect")
    assert gaps.take() == [Span(symbol, STEP, None, "reconnect") for symbol in "AB"]
    gaps.seen("A", 3 * STEP)
    assert gaps.take(again=True) == [
        Span("A", STEP, 3 * STEP, "reconnect"),
        Span("B", STEP, None, "reconnect"),
    ]


def test_an_open_span_goes_on_after_what_the_server_knew() -> None:
    """The server had bars up to minute 5 when it was asked; minute 6 may have come since."""
    gaps = started()
    gaps.seen("A", 0)
    gaps.interrupted("reconnect")
    (span,) = gaps.take()
    gaps.had("A", 5 * STEP)
    gaps.answered(span, 6 * STEP)
    assert gaps.take() == []
    gaps.seen("A", 7 * STEP)
    assert gaps.take() == [Span("A", 6 * STEP, 7 * STEP, "reconnect")]


def test_an_answer_also_closes_what_became_a_hole_meanwhile() -> None:
    gaps = started()
    gaps.seen("A", 0)
    gaps.interrupted("reconnect")
    (span,) = gaps.take()
    gaps.seen("A", 4 * STEP)
    gaps.answered(span, 5 * STEP)
    assert gaps.take(again=True) == []


def test_stored_bars_that_become_known_late_leave_a_hole() -> None:
    """The database was away at the start: bars came before the last stored one was known."""
    gaps = Gaps(["A", "B"], step=STEP)
    gaps.seen("A", 9 * STEP)
    gaps.resume({"A": 2 * STEP})
    assert gaps.take() == [Span("A", 3 * STEP, 9 * STEP, "start"), Span("B", None, None, "start")]


def test_pending_spans_survive_a_restart() -> None:
    gaps = started()
    for minute in (0, 1, 4):
        gaps.seen("A", minute * STEP)
    later = started(last=4)
    later.restore([*gaps.snapshot(), Span("GONE", 0, STEP, "hole")])
    assert missing(later) >= {2, 3}
    assert missing(later, "GONE") == set()


def test_the_rest_of_a_hole_that_the_server_did_not_reach_stays() -> None:
    """A server that was started anew has not come to the hole's end yet."""
    gaps = started()
    for minute in (0, 6):
        gaps.seen("A", minute * STEP)
    (hole,) = gaps.take()
    gaps.answered(hole, 3 * STEP)
    assert gaps.take() == [Span("A", 3 * STEP, 6 * STEP, "hole")]
    gaps.answered(Span("A", 3 * STEP, 6 * STEP, "hole"), STEP)
    assert missing(gaps) == {3, 4, 5}


def test_many_holes_become_one_span() -> None:
    gaps = started()
    for minute in range(0, 4 * SPANS_PER_SYMBOL, 2):
        gaps.seen("A", minute * STEP)
    assert gaps.pending <= SPANS_PER_SYMBOL
    spans = gaps.take()
    assert min(span.start or 0 for span in spans) == STEP
    assert max(span.end or 0 for span in spans) == (4 * SPANS_PER_SYMBOL - 2) * STEP


def test_a_clock_that_was_set_back_is_followed() -> None:
    gaps = started(last=1000)
    gaps.rewound(None)
    gaps.seen("A", 3 * STEP)
    gaps.seen("A", 5 * STEP)
    assert missing(gaps) == {0, 1, 2, 4}


def test_nights_and_weekends_are_no_holes() -> None:
    hours = MarketHours(trading_calendar())
    friday_close = microseconds(trading_calendar().bounds(DAYS[1])[1])
    monday_open = microseconds(trading_calendar().bounds(trading_calendar().next(DAYS[1]))[0])
    assert not hours.has_bars(friday_close, monday_open)
    assert hours.has_bars(friday_close, monday_open + 1)
    assert hours.has_bars(friday_close - STEP, friday_close)
    daily = MarketHours(trading_calendar(), is_daily=True)
    gaps = Gaps(["A"], step=DAY, is_expected=daily.has_bars)
    days = trading_calendar().sessions(DAYS[0], DAYS[0].replace(day=20))
    gaps.resume({"A": microseconds(trading_calendar().bounds(trading_calendar().previous(days[0]))[0])})
    for day in days:
        gaps.seen("A", microseconds(trading_calendar().bounds(day)[0]))
    assert {span.cause for span in gaps.take(again=True)} == {"start"}
    gaps.seen("A", microseconds(trading_calendar().bounds(DAYS[0].replace(day=22))[0]))
    assert [span.cause for span in gaps.take()] == ["hole"]


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**32), st.floats(0.0, 0.5), st.floats(0.0, 0.2), st.sampled_from([-1, None]))
def test_what_is_neither_seen_nor_answered_is_asked_for(
    seed: int, lost: float, broken: float, last: int | None
) -> None:
    """Bars are lost, doubled, swapped, the connection breaks, the server answers or does not."""
    chance = random.Random(seed)
    gaps = started(last=last)
    held: set[int] = set()
    order = list(range(MINUTES))
    for place in range(0, MINUTES - 1, 3):
        if chance.random() < 0.3:
            order[place], order[place + 1] = order[place + 1], order[place]
    for number, minute in enumerate(order):
        if chance.random() < broken:
            gaps.interrupted("reconnect")
        if chance.random() >= lost:
            for _ in range(chance.choice([1, 1, 2])):
                gaps.seen("A", minute * STEP)
            held.add(minute)
        if chance.random() < 0.3:
            sent = max(order[: number + 1])
            for span in gaps.take(again=chance.random() < 0.5):
                if chance.random() < 0.4:
                    gaps.failed(span)
                    continue
                start = -STEP if span.start is None else span.start
                end = (sent + 1) * STEP if span.end is None else span.end
                held |= {m for m in range(sent + 1) if start <= m * STEP < end}
                gaps.answered(span, end)
    gaps.interrupted("stop")
    assert all((span.end or 0) >= 0 for span in gaps.snapshot())
    assert set(range(MINUTES)) - held <= missing(gaps)


def corrections(gaps: Gaps) -> list[Span]:
    return [span for span in gaps.take() if span.cause == "correction"]


def test_the_last_bar_before_an_interruption_is_looked_at_again() -> None:
    """Its updated bar may have been missed; it is no gap, and one question answers it."""
    gaps = Gaps(["A", "B"], step=STEP, may_be_corrected=True)
    gaps.resume({"A": 3 * STEP})
    assert corrections(gaps) == [Span("A", 3 * STEP, 3 * STEP + 1, "correction")]
    gaps = Gaps(["A", "B"], step=STEP, may_be_corrected=True)
    gaps.resume({})
    gaps.seen("A", 7 * STEP)
    for _ in range(3):
        gaps.interrupted("reconnect")
    span = Span("A", 7 * STEP, 7 * STEP + 1, "correction")
    assert gaps.snapshot().count(span) == 1
    pending = gaps.pending
    (found,) = corrections(gaps)
    gaps.interrupted("reconnect")
    assert found == span
    assert corrections(gaps) == []
    assert gaps.pending == pending
    gaps.answered(found, found.end or 0)
    assert span not in gaps.snapshot()


def test_alpacas_bars_are_not_looked_at_again() -> None:
    gaps = Gaps(["A"], step=STEP)
    gaps.resume({"A": 3 * STEP})
    gaps.interrupted("reconnect")
    assert corrections(gaps) == []


def test_a_hole_among_many_bars_that_are_looked_at_again_stays_a_hole() -> None:
    gaps = Gaps(["A"], step=STEP, may_be_corrected=True)
    gaps.resume({"A": 0})
    gaps.seen("A", 5 * STEP)
    for minute in range(6, 100):
        gaps.seen("A", minute * STEP)
        gaps.interrupted("malformed")
    assert gaps.pending > 0
    assert 2 in missing(gaps)
