"""Each fault alone, what it does to the stream, and that the same seed does it again."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from websockets.exceptions import ConnectionClosed

from garch_platform.recycler.faults import Delivery, FaultInjector, are_on
from garch_platform.recycler.server import RecyclerServer
from garch_platform.settings.live import Faults
from garch_platform_tests.recycler.read_wire import decode_messages
from garch_platform_tests.recycler.replay import (
    MINUTE,
    START,
    Caller,
    ScriptedReplay,
    call,
    make_bar,
    make_server,
    make_tick,
    recycler_settings,
)

STEPS = 400


def faults(**changes: Any) -> Faults:
    """All off but those named."""
    return recycler_settings(faults=changes).faults


def injected(faults_: Faults, number: int = 0, symbols: tuple[str, ...] = ("A", "B")) -> list[Delivery]:
    """What becomes of `STEPS` bars of each symbol."""
    injector = FaultInjector(faults_, number)
    found = []
    for step in range(STEPS):
        for symbol in symbols:
            found += injector.deliveries(START + step * MINUTE, make_bar(symbol, step))
    return found + list(injector.remaining())


def plain() -> list[Delivery]:
    """The bars without any fault."""
    return injected(faults())


def test_without_faults_nothing_happens_and_none_counts_as_on() -> None:
    assert not are_on(faults())
    assert not are_on(faults(slow_ack_seconds=1.0))
    assert [(one.timestamp, one.delay, one.is_malformed_before) for one in plain()[::2]] == [
        (START + step * MINUTE, 0.0, False) for step in range(STEPS)
    ]


shares = st.sampled_from([0.0, 0.1, 1.0])


@settings(max_examples=25, deadline=None)
@given(shares, shares, shares, shares, shares, st.integers(-5, 5), st.integers(0, 3))
def test_the_same_seed_and_connection_misbehave_the_same_way(
    drop: float, delay: float, duplicate: float, out_of_order: float, malformed: float, seed: int, number: int
) -> None:
    chosen = faults(
        seed=seed, drop=drop, delay=delay, duplicate=duplicate, out_of_order=out_of_order, malformed=malformed
    )
    first = injected(chosen, number)
    assert first == injected(chosen, number)
    counts = Counter((one.timestamp, one.bar.symbol) for one in first)
    assert set(counts) <= {(one.timestamp, one.bar.symbol) for one in plain()}
    assert max(counts.values(), default=0) <= (2 if duplicate else 1)
    if not drop:
        assert len(counts) == 2 * STEPS


@pytest.mark.parametrize("number", [0, 1])
def test_connections_and_seeds_differ(number: int) -> None:
    one = injected(faults(drop=0.5, seed=1), 0)
    assert one != injected(faults(drop=0.5, seed=1 if number else 2), number)


def test_one_fault_does_not_move_another() -> None:
    dropped = {(one.timestamp, one.bar.symbol) for one in injected(faults(drop=0.2))}
    both = {(one.timestamp, one.bar.symbol) for one in injected(faults(drop=0.2, delay=0.5, duplicate=0.3))}
    assert dropped == both


def test_shares_are_kept() -> None:
    total = 2 * STEPS
    assert len(injected(faults(drop=0.25))) == pytest.approx(0.75 * total, rel=0.1)
    assert len(injected(faults(duplicate=0.25))) == pytest.approx(1.25 * total, rel=0.1)
    late = [one for one in injected(faults(delay=0.25, delay_seconds=2.5)) if one.delay]
    assert len(late) == pytest.approx(0.25 * total, rel=0.2)
    assert {one.delay for one in late} == {2.5}
    assert sum(one.is_malformed_before for one in injected(faults(malformed=0.25))) == pytest.approx(
        0.25 * total, rel=0.2
    )


def test_out_of_order_swaps_neighbours_of_one_symbol_and_loses_none() -> None:
    found = injected(faults(out_of_order=0.3))
    assert sorted(found) == sorted(plain())
    for symbol in ("A", "B"):
        steps = [int((one.timestamp - START) / MINUTE) for one in found if one.bar.symbol == symbol]
        moved = [abs(step - place) for place, step in enumerate(steps)]
        assert max(moved) == 1
        assert sum(moved) > STEPS / 5


def run(scenario: Callable[[RecyclerServer, ScriptedReplay], Awaitable[None]], **chosen: Any) -> None:
    """Run ``scenario`` with a misbehaving server."""

    async def main() -> None:
        replay = ScriptedReplay(["A", "B"])
        async with make_server(replay, faults=chosen) as server:
            await scenario(server, replay)

    asyncio.run(main())


async def received(caller: Caller, count: int, seconds: float = 10.0) -> list[Any]:
    """The next ``count`` messages, fewer if the connection ends or time is up; None for what is unreadable."""
    found: list[Any] = []
    with contextlib.suppress(TimeoutError, ConnectionClosed):
        async with asyncio.timeout(seconds):
            while len(found) < count:
                data = await caller.socket.recv()
                try:
                    found += decode_messages(data)
                except ValueError:
                    found.append(None)
    return found


@pytest.mark.parametrize("is_msgpack", [False, True])
def test_the_server_does_what_the_injector_says(is_msgpack: bool) -> None:
    chosen = {"drop": 0.1, "duplicate": 0.2, "out_of_order": 0.2, "malformed": 0.1, "seed": 3}

    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server, is_msgpack=is_msgpack)
        await caller.subscribe(bars=["*"])
        replay.give(*(make_tick(step, ["A", "B"]) for step in range(STEPS)))
        replay.end()
        expected: list[Any] = []
        for one in injected(faults(**chosen)):
            expected += [None] * one.is_malformed_before + [(one.bar.symbol, one.bar.open)]
        found = await received(caller, len(expected))
        assert [message and (message["S"], message["o"]) for message in found] == expected

    run(scenario, **chosen)


def test_a_late_bar_comes_late() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server)
        await caller.subscribe(bars=["A"])
        began = time.monotonic()
        replay.give(make_tick(0, ["A"]))
        assert len(await caller.bars(1)) == 1
        assert time.monotonic() - began >= 0.29

    run(scenario, delay=1.0, delay_seconds=0.3)


@pytest.mark.parametrize(("then", "is_due"), [("bars", True), ("dailyBars", True), (None, False)])
def test_a_late_bar_comes_to_a_client_that_has_subscribed_anew(then: str | None, is_due: bool) -> None:
    """Unless it does not want it any more."""

    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server)
        await caller.subscribe(bars=["A"])
        replay.give(make_tick(0, ["A"]))
        await asyncio.sleep(0.05)
        if then is None:
            await caller.subscribe(bars=["B"])
            await caller.ask(action="unsubscribe", bars=["A"])
        else:
            await caller.subscribe(**{then: ["B"]})
        found = await received(caller, 1, seconds=0.5)
        assert [(one["T"], one["S"]) for one in found] == [("b", "A")] * is_due

    run(scenario, delay=1.0, delay_seconds=0.2)


def test_a_connection_is_cut_after_its_bars_without_a_word() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        for _ in range(2):
            caller = await call(server)
            await caller.subscribe(bars=["*"])
            replay.give(*(make_tick(step, ["A", "B"]) for step in range(9)))
            assert len(await received(caller, 9)) == 5
            assert caller.socket.close_code == 1006

    run(scenario, disconnect_after=5)


def test_a_mute_connection_stays_open_and_says_nothing() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server)
        await caller.subscribe(bars=["*"], dailyBars=["*"])
        replay.give(*(make_tick(step, ["A", "B"]) for step in range(9)))
        found = await received(caller, 5)
        assert [message["T"] for message in found] == ["b", "b", "d", "d", "b"]
        await caller.send(action="subscribe", bars=["A"])
        assert await received(caller, 1, seconds=0.2) == []
        await asyncio.wait_for(await caller.socket.ping(), 2)

    run(scenario, mute_after=3)


def test_answers_may_be_slow() -> None:
    async def scenario(server: RecyclerServer, _: ScriptedReplay) -> None:
        began = time.monotonic()
        caller = await call(server)
        await caller.subscribe(bars=["A"])
        assert time.monotonic() - began >= 0.39

    run(scenario, slow_ack_seconds=0.2)


def test_the_bars_of_an_honest_server_are_not_touched_by_the_faulty_path() -> None:
    async def scenario(server: RecyclerServer, replay: ScriptedReplay) -> None:
        caller = await call(server, path="/v2/test")
        await caller.subscribe(bars=["FAKEPACA", "B"], dailyBars=["B"])
        replay.give(make_tick(0, ["A", "B"]))
        assert [(one["T"], one["S"]) for one in await caller.bars(3)] == [
            ("b", "B"),
            ("b", "FAKEPACA"),
            ("d", "B"),
        ]

    run(scenario, disconnect_after=1_000)
