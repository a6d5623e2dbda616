"""The simulated market on the exchange's sessions."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from garch_platform.bars import BAR_SCHEMA, Timeframe
from garch_platform.errors import CalendarError, ConfigurationError
from garch_platform.quant.bar_quality import check_bars, find_gaps
from garch_platform.sources import BarSource, SimulatedSource
from garch_platform_tests.sources.market_files import CALENDAR

HALF_DAY = date(2023, 11, 24)


def simulated(**arguments: Any) -> SimulatedSource:
    usual = {"n_symbols": 10, "sessions": 5, "last_session": date(2023, 11, 28), "pairs": 3, "seed": 7}
    return SimulatedSource(CALENDAR, **(usual | arguments))


MARKET = simulated()
SYMBOLS = MARKET.symbols()["symbol"].to_list()
ALL = MARKET.fetch(SYMBOLS, date(2023, 1, 1), date(2023, 12, 31))


def test_sessions_are_those_of_the_exchange() -> None:
    assert ALL.schema == pl.Schema(BAR_SCHEMA)
    assert isinstance(MARKET, BarSource)
    assert ALL["session_date"].unique().sort().to_list() == [
        date(2023, 11, day) for day in (21, 22, 24, 27, 28)
    ]
    half = ALL.filter(pl.col("session_date") == HALF_DAY)
    assert half["timestamp"].min() == datetime(2023, 11, 24, 14, 30, tzinfo=UTC)
    assert half["timestamp"].max() == datetime(2023, 11, 24, 17, 59, tzinfo=UTC)
    assert half["available_at"].max() == datetime(2023, 11, 24, 18, 0, tzinfo=UTC)


def test_every_row_passes_quality_control_and_some_bars_are_missing() -> None:
    quality = check_bars(ALL, max_log_move=0.4, sessions=CALENDAR.schedule)
    assert quality.rejected.is_empty()
    grid = CALENDAR.expected_timestamps(HALF_DAY, MARKET.timeframe).to_frame()
    gaps = find_gaps(ALL, grid.with_columns(session_date=pl.lit(HALF_DAY)), symbols=SYMBOLS)
    assert gaps["expected"].to_list() == [210] * 10
    assert 0 < gaps["missing"].sum() < 0.02 * 2100
    constants = ALL.select("timeframe", "feed", "data_source", "is_proxy", "adjustment").unique().rows()
    assert constants == [("1Min", "simulated", "simulated", False, "all")]


def test_the_same_arguments_give_the_same_market_and_another_seed_another() -> None:
    again = simulated().fetch(SYMBOLS, date(2023, 1, 1), date(2023, 12, 31))
    assert_frame_equal(again, ALL, check_exact=True)
    other = simulated(seed=8).fetch(SYMBOLS[:1], HALF_DAY, HALF_DAY)
    assert other["close"][0] != ALL.filter(pl.col("session_date") == HALF_DAY)["close"][0]


def test_a_part_is_a_part_of_the_whole() -> None:
    part = MARKET.fetch(["SIM03"], HALF_DAY, HALF_DAY)
    whole = ALL.filter((pl.col("symbol") == "SIM03") & (pl.col("session_date") == HALF_DAY))
    assert_frame_equal(part, whole)
    assert MARKET.fetch(["ZZZZ"], HALF_DAY, HALF_DAY).is_empty()


def test_the_truth_names_pairs_of_one_sector() -> None:
    truth = MARKET.truth()
    assert truth.columns == ["symbol_1", "symbol_2", "hedge_ratio", "half_life_bars", "breaks_at"]
    assert truth.height == 3
    assert (truth["symbol_1"] < truth["symbol_2"]).all()
    sector = dict(MARKET.symbols().select("symbol", "sector").iter_rows())
    assert all(sector[one] == sector[two] for one, two in truth.select("symbol_1", "symbol_2").iter_rows())
    assert set(sector.values()) == {"technology", "healthcare", "financial"}
    assert truth["breaks_at"].is_null().to_list() == [True, True, False]
    assert truth["breaks_at"][2] in ALL["timestamp"].to_list()


def test_the_spread_reverts_with_the_half_life_that_the_truth_states() -> None:
    """The lag-one autocorrelation of log P1 - hedge_ratio log P2 is 2^(-1/half-life)."""
    market = simulated(sessions=60, last_session=date(2024, 3, 28), pairs=2)
    pair = market.truth().row(0, named=True)
    rows = market.fetch([pair["symbol_1"], pair["symbol_2"]], date(2023, 1, 1), date(2024, 12, 31))
    panel = rows.pivot("symbol", index="timestamp", values="close").drop_nulls().sort("timestamp")
    spread = panel[pair["symbol_1"]].log() - pair["hedge_ratio"] * panel[pair["symbol_2"]].log()
    centred = spread - spread.mean()
    phi = (centred.slice(1) * centred.head(-1)).sum() / (centred * centred).sum()
    assert phi == pytest.approx(2 ** (-1 / pair["half_life_bars"]), abs=0.006)


def test_longer_bars_and_names_that_sort() -> None:
    hourly = simulated(timeframe=Timeframe.parse("1Hour"), n_symbols=120, pairs=2)
    names = hourly.symbols()["symbol"].to_list()
    assert (names[0], names[-1], names) == ("SIM001", "SIM120", sorted(names))
    last = hourly.fetch(names[:1], date(2023, 11, 28), date(2023, 11, 28)).row(-1, named=True)
    assert last["available_at"] - last["timestamp"] == timedelta(minutes=30)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"last_session": date(2023, 11, 23)}, CalendarError, "2023-11-23 is an exchange holiday"),
        ({"last_session": date(1990, 1, 3)}, CalendarError, "holds 2 sessions up to 1990-01-03, not 5"),
        ({"n_symbols": 5}, ConfigurationError, "5 symbols, 5 sessions, 3 pairs is no market"),
        ({"sessions": 0}, ConfigurationError, "10 symbols, 0 sessions"),
    ],
)
def test_impossible_markets(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        simulated(**arguments)


def test_no_pairs_no_truth() -> None:
    assert simulated(pairs=0, sessions=1, n_symbols=2).truth().is_empty()


def test_a_reversed_range_is_refused() -> None:
    with pytest.raises(CalendarError, match="is reversed"):
        MARKET.fetch(SYMBOLS, date(2023, 12, 1), date(2023, 11, 1))
