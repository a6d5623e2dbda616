"""Replays in their own times that go back: earlier sessions, seeks; what is missing is noticed all the same."""

from __future__ import annotations

import asyncio
from datetime import date
from pathlib import Path
from typing import Any

import pytest
from polars.testing import assert_frame_equal

from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.stream import StreamSummary
from garch_platform.stream.gaps import Gaps, Span
from garch_platform_tests.store.rows import register
from garch_platform_tests.stream.edge import (
    DAYS,
    SYMBOLS,
    client_of,
    edge_settings,
    follow,
    server_of,
    source_bars,
    with_faults,
    written,
)
from garch_platform_tests.stream.test_gaps import STEP, missing


def of_day(day: date, **faults: Any) -> dict[str, Any]:
    return {
        **with_faults(**faults),
        "replay_mode": "date_range",
        "date_range": {"start_date": day, "end_date": day},
    }


@pytest.mark.parametrize("faults", [{"drop": 0.1}, {"disconnect_after": 100}], ids=["drop", "disconnect"])
def test_an_earlier_session_is_replayed_whole(
    tmp_path: Path, market: Lake, sqlite: Database, faults: dict[str, Any]
) -> None:
    for day in reversed(DAYS):
        summary = follow(market, edge_settings(tmp_path, recycler=of_day(day, **faults)), sqlite)
        assert (summary.error, summary.pending_gaps) == (None, 0)
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)


def test_a_seek_back_is_followed_by_the_same_client(tmp_path: Path, market: Lake, sqlite: Database) -> None:
    """The replay jumps to the second session, then back to the first, which the client had not seen."""
    settings = edge_settings(tmp_path, recycler={**with_faults(drop=0.15), "replay_speed": 4800.0})

    async def scenario() -> StreamSummary:
        async with server_of(market, settings) as server:
            server.replay.seek(DAYS[1])
            client = client_of(settings, sqlite)
            running = asyncio.create_task(client.run(until_replay_ends=True))
            async with asyncio.timeout(20):
                while client.counts.received < 60:  # noqa: ASYNC110 - counts have no event
                    await asyncio.sleep(0.01)
            server.replay.seek(DAYS[0])
            server.replay.set_speed("max")
            return await running

    register(sqlite, *SYMBOLS)
    summary = asyncio.run(scenario())
    assert_frame_equal(written(sqlite), source_bars(market), check_exact=True)
    assert summary.pending_gaps == 0


def followed(*minutes: int) -> Gaps:
    gaps = Gaps(["A"], step=STEP, may_step_back=True)
    gaps.resume({"A": -STEP})
    for minute in minutes:
        gaps.seen("A", minute * STEP)
    return gaps


def test_a_step_back_leaves_what_was_missing_and_begins_again() -> None:
    gaps = followed(*range(20), 21, *range(30, 40), 2, 3, 4, 6)
    assert missing(gaps) >= {20, *range(22, 30), 5}
    assert gaps.last == {"A": 6 * STEP}
    assert Span("A", None, 4 * STEP, "rewound") in gaps.take()


@pytest.mark.parametrize("late", [(35, 2, 36, 3, 37, 4, 38), (35, 31, 32, 33, 36), (35, 2, 2, 2, 36)])
def test_late_bars_are_no_step_back(late: tuple[int, ...]) -> None:
    gaps = followed(*range(35), *late)
    assert gaps.last == {"A": max(late) * STEP}
    assert {span.cause for span in gaps.take()} <= {"hole"}
