"""Bars that are sent with other values first, and corrected by an updated bar before the symbol's next one."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from garch_platform.recycler.faults import Delivery, FaultInjector, are_on
from garch_platform.recycler.rest import bars_page
from garch_platform.recycler.server import RecyclerServer
from garch_platform.recycler.tick import Bar, Tick
from garch_platform_tests.recycler.read_wire import decode_messages, read_bar
from garch_platform_tests.recycler.replay import (
    MINUTE,
    START,
    Caller,
    ScriptedReplay,
    call,
    make_bar,
    make_server,
    make_tick,
)
from garch_platform_tests.recycler.test_faults import faults, injected

NAMES = ["A", "B"]
STEPS = 60


def test_a_share_of_the_bars_is_revised_in_every_value() -> None:
    found = injected(faults(revise=0.25))
    revised = [one for one in found if one.correction is not None]
    assert len(revised) == pytest.approx(0.25 * len(found), rel=0.1)
    assert are_on(faults(revise=0.01))
    for one in revised:
        assert one.correction is not None
        assert one.bar.symbol == one.correction.symbol
        assert not any(was == is_ for was, is_ in zip(one.bar[1:], one.correction[1:], strict=True))
        assert one.bar.low <= min(one.bar.open, one.bar.close) <= one.bar.high
    assert [one._replace(bar=one.correction or one.bar, correction=None) for one in found] == injected(
        faults()
    )


def test_what_the_store_does_not_have_is_not_invented_for_it() -> None:
    injector = FaultInjector(faults(revise=1.0), 0)
    (one,) = injector.deliveries(START, make_bar("A", trade_count=None, vwap=None))
    assert (one.bar.trade_count, one.bar.vwap) == (None, None)


def test_revisions_move_no_other_fault() -> None:
    def others(found: Iterable[Delivery]) -> list[Any]:
        return [(one.timestamp, one.bar.symbol, one.delay, one.is_malformed_before) for one in found]

    chosen = {"drop": 0.2, "delay": 0.2, "duplicate": 0.2, "out_of_order": 0.2, "malformed": 0.2}
    assert others(injected(faults(**chosen, revise=0.5))) == others(injected(faults(**chosen)))


def test_only_the_last_copy_carries_the_correction() -> None:
    first, second = FaultInjector(faults(revise=1.0, duplicate=1.0), 0).deliveries(START, make_bar("A"))
    assert first.correction is None
    assert second.correction == make_bar("A")
    assert first.bar == second.bar != make_bar("A")


Scenario = Callable[[RecyclerServer, ScriptedReplay], Awaitable[Any]]


def run(scenario: Scenario, ticks: Sequence[Tick] = (), **chosen: Any) -> Any:
    """Run ``scenario`` with a server that revises."""

    async def main() -> Any:
        replay = ScriptedReplay(NAMES, ticks)
        async with make_server(replay, faults={"revise": 0.5, "seed": 3, **chosen}) as server:
            return await scenario(server, replay)

    return asyncio.run(main())


def session() -> list[Tick]:
    return [make_tick(step, NAMES) for step in range(STEPS)]


async def whole(server: RecyclerServer, caller: Caller, late_by: float = 0.0) -> list[dict[str, Any]]:
    """Everything that the server has to say until its replay ends; the pong comes behind it."""
    found: list[dict[str, Any]] = []

    async def read() -> None:
        async for data in caller.socket:
            with suppress(ValueError):
                found.extend(decode_messages(data))

    reading = asyncio.create_task(read())
    await server.finished()
    await asyncio.sleep(late_by)
    await (await caller.socket.ping())
    await asyncio.sleep(0.05)
    reading.cancel()
    return found


OTHERS: dict[str, dict[str, Any]] = {
    "alone": {},
    "duplicate": {"duplicate": 0.3},
    "out of order": {"out_of_order": 0.4},
    "delay": {"delay": 0.3, "delay_seconds": 0.1},
    "drop": {"drop": 0.3},
    "malformed": {"malformed": 0.3},
    "all": {"duplicate": 0.3, "out_of_order": 0.3, "delay": 0.2, "delay_seconds": 0.1, "drop": 0.2},
}


@pytest.mark.parametrize("is_msgpack", [False, True])
@pytest.mark.parametrize("other", OTHERS)
def test_the_last_word_on_every_bar_that_is_sent_is_its_own(other: str, is_msgpack: bool) -> None:
    """Corrections come after every copy of their bar and, where it is in time, before the symbol's next."""

    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> list[dict[str, Any]]:
        caller = await call(server, is_msgpack=is_msgpack)
        await caller.subscribe(bars=["*"], updatedBars=["*"])
        return await whole(server, caller, late_by=0.3 if "delay" in OTHERS[other] else 0.0)

    found = run(scenario, session(), **OTHERS[other])
    last: dict[Any, Bar] = {}
    before: dict[str, list[Any]] = {name: [] for name in NAMES}
    for message in found:
        timestamp, bar = read_bar(message)
        last[bar.symbol, timestamp] = bar
        sent = before[bar.symbol]
        if message["T"] == "b":
            sent.append(timestamp)
        else:
            assert timestamp in (sent[-1], max(sent))
    kinds = Counter(message["T"] for message in found)
    assert kinds["u"] > STEPS / 2
    assert len(last) == 2 * STEPS or "drop" in OTHERS[other]
    assert all(bar == make_bar(symbol, (moment - START) // MINUTE) for (symbol, moment), bar in last.items())


@pytest.mark.parametrize("late_by", [0.0, 0.05])
def test_bars_and_corrections_go_to_those_who_asked_for_them(late_by: float) -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        wanted = ({"bars": ["*"]}, {"updatedBars": ["A"]}, {"bars": ["A"], "updatedBars": ["B"]})
        callers = [await call(server) for _ in wanted]
        for caller, channels in zip(callers, wanted, strict=True):
            await caller.subscribe(**channels)
        replay.set_speed("max")
        replay.give(*session())
        replay.end()
        bars, updates, mixed = await asyncio.gather(
            *(whole(server, caller, late_by + 0.2) for caller in callers)
        )
        assert Counter((one["T"], one["S"]) for one in bars) == {("b", "A"): STEPS, ("b", "B"): STEPS}
        assert {(one["T"], one["S"]) for one in updates} == {("u", "A")}
        assert {read_bar(one)[1] for one in updates} <= {make_bar("A", step) for step in range(STEPS)}
        assert {(one["T"], one["S"]) for one in mixed} == {("b", "A"), ("u", "B")}
        assert STEPS / 4 < len(updates) < STEPS

    run(scenario, delay=float(late_by > 0), delay_seconds=late_by)


def test_the_correction_comes_half_a_bar_later_or_before_the_next_bar() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        replay.set_speed(60.0)
        caller = await call(server)
        await caller.subscribe(bars=["A"], updatedBars=["A"])
        replay.give(make_tick(0, ["A"]))
        assert [one["T"] for one in await caller.bars(1)] == ["b"]
        began = time.monotonic()
        assert [one["T"] for one in await caller.bars(1)] == ["u"]
        assert time.monotonic() - began == pytest.approx(0.5, abs=0.25)
        replay.set_speed(0.1)
        replay.give(make_tick(1, ["A"]), make_tick(2, ["A"]))
        found = [(one["T"], read_bar(one)[0] - START) for one in await caller.bars(3)]
        assert found == [("b", MINUTE), ("u", MINUTE), ("b", 2 * MINUTE)]
        await caller.subscribe(bars=["B"])
        replay.end()
        (last,) = await caller.bars(1)
        assert (last["T"], read_bar(last)) == ("u", (START + 2 * MINUTE, make_bar("A", 2)))

    run(scenario, revise=1.0)


def test_a_server_that_stops_owes_no_correction() -> None:
    async def main() -> None:
        replay = ScriptedReplay(NAMES)
        async with make_server(replay, faults={"revise": 1.0}) as server:
            caller = await call(server)
            await caller.subscribe(bars=["A"], updatedBars=["A"])
            replay.give(make_tick(0, ["A"]))
            assert [one["T"] for one in await caller.bars(1)] == ["b"]
        assert [read_bar(one)[1] for one in await caller.bars(1)] == [make_bar("A")]

    asyncio.run(main())


def test_rest_has_the_own_values_and_daily_bars_are_made_of_them() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server)
        await caller.subscribe(bars=["A"], dailyBars=["A"])
        replay.give(make_tick(0, ["A"]))
        bar, day = (read_bar(one)[1] for one in await caller.bars(2))
        assert bar != make_bar("A") == day
        page = bars_page(replay, "symbols=A&timeframe=1Min")["bars"]["A"]
        assert page[0]["c"] == make_bar("A").close

    run(scenario, revise=1.0)
