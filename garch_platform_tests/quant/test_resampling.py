"""Longer bars and the panel of log closes."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

from garch_platform.bars import BAR_SCHEMA
from garch_platform.errors import DataError
from garch_platform.quant.resampling import close_panel, resample_closes
from garch_platform_tests.quant.test_bar_quality import DAY, OPEN, SESSIONS, bar, bars, closes

SHORT = pl.DataFrame({"session_date": [DAY], "open_at": [OPEN], "close_at": [OPEN + timedelta(minutes=20)]})


def test_one_bar_holds_what_its_parts_hold() -> None:
    parts = bars(
        bar(0, open=10.0, high=10.4, low=9.9, close=10.2, volume=100.0, vwap=10.1, trade_count=3),
        bar(1, open=10.2, high=10.9, low=10.2, close=10.8, volume=300.0, vwap=10.5, trade_count=4),
        bar(14, open=10.8, high=10.8, low=9.5, close=9.7, volume=0.0, vwap=None, trade_count=None),
        bar(15, open=9.7, high=9.8, low=9.6, close=9.65, volume=50.0, vwap=9.7, trade_count=1),
    )
    long = resample_closes(parts, minutes=15, session_open=SESSIONS)
    first, second = long.rows(named=True)
    assert (first["timestamp"], second["timestamp"]) == (OPEN, OPEN + timedelta(minutes=15))
    assert [first[name] for name in ("open", "high", "low", "close")] == [10.0, 10.9, 9.5, 9.7]
    assert (first["volume"], first["trade_count"], first["timeframe"]) == (400.0, 7, "15Min")
    assert first["vwap"] == pytest.approx((100 * 10.1 + 300 * 10.5) / 400, rel=1e-15)
    assert (second["close"], second["vwap"], second["volume"]) == (9.65, pytest.approx(9.7), 50.0)
    assert long.schema == pl.Schema(BAR_SCHEMA)


def test_missing_stays_null() -> None:
    long = resample_closes(closes(10.0, 11.0, volume=None), minutes=5, session_open=SESSIONS)
    row = long.row(0, named=True)
    assert row["close"] == 11.0
    nulls = ("open", "high", "low", "volume", "vwap", "trade_count", "split_factor", "dividend")
    assert all(row[name] is None for name in nulls)
    partly = bars(bar(0, vwap=10.0, volume=5.0), bar(1, vwap=None, volume=5.0))
    assert resample_closes(partly, minutes=5, session_open=SESSIONS)["vwap"][0] is None


def test_splits_multiply_and_dividends_add() -> None:
    parts = bars(bar(0, split_factor=2.0, dividend=0.1), bar(1, split_factor=1.5, dividend=None))
    row = resample_closes(parts, minutes=5, session_open=SESSIONS).row(0, named=True)
    assert (row["split_factor"], row["dividend"]) == (3.0, 0.1)


def test_a_bar_is_available_when_its_stretch_is_over_and_never_after_the_close() -> None:
    parts = closes(10.0, 10.1, 10.2)
    early = resample_closes(parts, minutes=15, session_open=SHORT)
    assert early["available_at"].to_list() == [OPEN + timedelta(minutes=15)]
    late = bars(bar(16))
    assert resample_closes(late, minutes=15, session_open=SHORT)["available_at"].to_list() == [
        OPEN + timedelta(minutes=20)
    ]
    without_close = resample_closes(parts, minutes=15, session_open=SHORT.drop("close_at"))
    assert without_close["available_at"].to_list() == [OPEN + timedelta(minutes=3)]


def test_sessions_align_to_their_own_open_and_never_mix() -> None:
    """The clock change of 2024-11-03 moves the open from 13:30 to 14:30 UTC."""
    opens = [datetime(2024, 11, 1, 13, 30, tzinfo=UTC), datetime(2024, 11, 4, 14, 30, tzinfo=UTC)]
    days = [date(2024, 11, 1), date(2024, 11, 4)]
    sessions = pl.DataFrame(
        {"session_date": days, "open_at": opens, "close_at": [at + timedelta(hours=6.5) for at in opens]}
    )
    parts = bars(
        *(
            bar(
                timestamp=at + timedelta(minutes=m),
                available_at=at + timedelta(minutes=m + 1),
                session_date=day,
            )
            for day, at in zip(days, opens, strict=True)
            for m in range(390)
        )
    )
    hours = resample_closes(parts, minutes=60, session_open=sessions)
    assert hours.height == 14
    assert hours["timestamp"].to_list() == [at + timedelta(hours=h) for at in opens for h in range(7)]
    assert hours["available_at"][6] == opens[0] + timedelta(hours=6.5)
    assert hours["volume"].to_list() == ([60_000.0] * 6 + [30_000.0]) * 2
    assert set(hours["timeframe"]) == {"1Hour"}
    whole = resample_closes(parts, minutes=1440, session_open=sessions)
    assert whole["timestamp"].to_list() == opens
    assert whole["available_at"].to_list() == sessions["close_at"].to_list()


def test_a_bar_that_begins_before_the_open_belongs_to_the_first() -> None:
    start = OPEN - timedelta(minutes=30)
    row = bar(timestamp=start, available_at=start + timedelta(hours=1))
    assert resample_closes(bars(row), minutes=60, session_open=SESSIONS)["timestamp"].to_list() == [OPEN]


def test_bars_outside_the_sessions_are_refused() -> None:
    with pytest.raises(DataError, match=r"1 bar\(s\) belong to no session of session_open, first AAPL at"):
        resample_closes(bars(bar(session_date=date(2024, 3, 30))), minutes=15, session_open=SESSIONS)
    with pytest.raises(DataError, match="minutes=0 is not a bar length"):
        resample_closes(bars(bar()), minutes=0, session_open=SESSIONS)


@settings(max_examples=30, deadline=None)
@given(st.sets(st.integers(0, 120), min_size=1), st.sampled_from([5, 10, 15, 30]))
def test_twice_is_once_and_nothing_is_lost(minutes: set[int], length: int) -> None:
    parts = bars(*(bar(m, close=100.0 + 0.001 * m, volume=1.0) for m in sorted(minutes)))
    long = resample_closes(parts, minutes=length, session_open=SESSIONS)
    assert long["volume"].sum() == len(minutes)
    assert long["timestamp"].is_unique().all()
    assert (long["available_at"] > long["timestamp"]).all()
    assert_frame_equal(resample_closes(long, minutes=length, session_open=SESSIONS), long)


def test_the_panel_has_a_column_a_symbol_and_keeps_holes() -> None:
    frame = pl.concat([closes(10.0, 11.0), closes(20.0, symbol="MSFT"), closes(1.0, symbol="ZM")])
    panel = close_panel(frame, ["MSFT", "AAPL", "NONE"])
    assert panel.columns == ["timestamp", "MSFT", "AAPL", "NONE"]
    assert panel["timestamp"].to_list() == [OPEN, OPEN + timedelta(minutes=1)]
    assert panel["AAPL"].to_list() == [math.log(10.0), math.log(11.0)]
    assert panel["MSFT"].to_list() == [math.log(20.0), None]
    assert panel["NONE"].to_list() == [None, None]
    assert panel.schema["NONE"] == pl.Float64


def test_a_close_without_a_logarithm_is_null() -> None:
    panel = close_panel(closes(10.0, 0.0, math.nan, math.inf), ["AAPL"])
    assert panel["AAPL"].to_list() == [math.log(10.0), None, None, None]


def test_two_bars_at_one_time_are_refused() -> None:
    with pytest.raises(DataError, match="AAPL has more than one bar at 2024-03-28 13:30:00"):
        close_panel(bars(bar(), bar(feed="sip")), ["AAPL"])
    with pytest.raises(DataError, match=r"symbol\(s\) AAPL are named twice"):
        close_panel(closes(1.0), ["AAPL", "AAPL"])


def test_an_empty_panel_has_its_columns() -> None:
    panel = close_panel(pl.DataFrame(schema=BAR_SCHEMA), ["AAPL"])
    assert panel.shape == (0, 2)
