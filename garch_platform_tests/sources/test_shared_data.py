"""Real market data, where it is present: every file reads, and its known defects are found."""

from __future__ import annotations

from datetime import UTC, date, datetime

import polars as pl
import pytest

from garch_platform.errors import SourceError
from garch_platform.quant.bar_quality import check_bars, content_hash, find_gaps, find_outliers
from garch_platform_tests.sources.market_files import CALENDAR, shared_data, source


@pytest.mark.parametrize(
    ("name", "timeframe", "symbols", "start", "end", "accepted", "reasons"),
    [
        ("minute_bars_2018", "1Min", 130, date(2018, 4, 6), date(2018, 4, 6), 49_918, {}),
        ("minute_bars_2025", "1Min", 53, date(2025, 1, 2), date(2025, 1, 2), 18_093, {}),
        (
            "minute_bars_spy_2017_2018",
            "1Min",
            1,
            date(2017, 1, 1),
            date(2018, 12, 31),
            194_687,
            {"ohlc_order": 193},
        ),
        ("minute_bars_permissive", "1Min", 31, date(2008, 1, 1), date(2024, 1, 1), 58_442, {}),
        ("hourly_bars", "1Hour", 36, date(1998, 1, 1), date(2025, 12, 31), 195_289, {}),
        ("daily_bars", "1Day", 266, date(2014, 1, 1), date(2014, 12, 31), 64_888, {}),
        (
            "daily_bars_etf_other",
            "1Day",
            104,
            date(1990, 1, 1),
            date(2024, 1, 1),
            295_436,
            {"conflicting_duplicate": 32_643, "duplicate": 4, "non_positive_price": 21},
        ),
        (
            "indices_daily",
            "1Day",
            13,
            date(1950, 1, 1),
            date(2019, 1, 1),
            74_552,
            {"conflicting_duplicate": 9_594, "duplicate": 976, "not_a_session": 18_448},
        ),
    ],
)
def test_every_file_reads(
    name: str, timeframe: str, symbols: int, start: date, end: date, accepted: int, reasons: dict[str, int]
) -> None:
    """Counts were made apart from this code: with pandas on the raw files and the exchange's schedule."""
    files = source(shared_data(f"{name}.parquet"), timeframe)
    known = files.symbols()
    assert known.height == symbols
    rows = files.fetch(known["symbol"].to_list(), start, end)
    quality = check_bars(rows, max_log_move=0.4, sessions=CALENDAR.schedule)
    assert dict(quality.rejected["reason"].value_counts().iter_rows()) == reasons
    assert quality.accepted.height == accepted
    assert quality.accepted["session_date"].is_between(start, end).all()
    assert quality.accepted["symbol"].is_in(known["symbol"].implode()).all()


def test_quotes_need_a_declared_close() -> None:
    path = shared_data("minute_quotes_lean.parquet")
    with pytest.raises(SourceError, match=r"has no column for 'close'.*such as \{close: bid_close\}"):
        source(path).symbols()
    columns = {field: f"bid_{field}" for field in ("open", "high", "low", "close")}
    rows = source(path, columns=columns).fetch(["SPY"], date(2013, 10, 7), date(2013, 10, 7))
    assert rows.height == 390


def test_the_split_of_aapl_is_found() -> None:
    files = source(shared_data("minute_bars_permissive.parquet"))
    rows = files.fetch(["AAPL"], date(2014, 6, 5), date(2014, 6, 9))
    found = find_outliers(check_bars(rows, max_log_move=0.4).accepted, max_log_move=0.4)
    assert found.select("timestamp", "kind", "suggested_factor").rows() == [
        (datetime(2014, 6, 9, 13, 30, tzinfo=UTC), "unadjusted_split", 7.0)
    ]


def test_the_declared_split_of_aapl_is_none() -> None:
    files = source(shared_data("daily_bars.parquet"), "1Day")
    rows = files.fetch(["AAPL"], date(2014, 5, 1), date(2014, 7, 1))
    assert find_outliers(rows, max_log_move=0.4).is_empty()
    undeclared = rows.with_columns(pl.lit(None, dtype=pl.Float64).alias("split_factor"))
    assert find_outliers(undeclared, max_log_move=0.4)["suggested_factor"].to_list() == [7.0]


def test_the_bad_print_of_nvda_is_found() -> None:
    files = source(shared_data("hourly_bars.parquet"), "1Hour", regular_hours=False)
    rows = files.fetch(["NVDA"], date(2025, 7, 8), date(2025, 7, 11))
    found = find_outliers(rows, max_log_move=0.4)
    assert found.select("timestamp", "kind").rows() == [(datetime(2025, 7, 9, 20, tzinfo=UTC), "bad_print")]
    assert found["log_move"][0] == pytest.approx(-0.4856, abs=1e-3)


def test_hours_before_the_open_are_told_from_hours_over_it() -> None:
    """Since 2025 a bar of 09:00 ends when that of 09:30 begins; before, it covers the open."""
    files = source(shared_data("hourly_bars.parquet"), "1Hour")
    old = files.fetch(["AAPL"], date(1998, 1, 2), date(1998, 1, 2))
    assert old["timestamp"].dt.hour().to_list() == list(range(14, 21))
    new = files.fetch(["NVDA"], date(2025, 7, 9), date(2025, 7, 9))
    assert new["timestamp"].dt.strftime("%H:%M").to_list() == [f"{hour}:30" for hour in range(13, 20)]
    assert (new["volume"] > 0).all()


def test_a_day_of_minutes_has_the_gaps_it_has() -> None:
    day = date(2018, 4, 6)
    files = source(shared_data("minute_bars_2018.parquet"))
    rows = files.fetch(files.symbols()["symbol"].to_list(), day, day)
    grid = (
        CALENDAR.expected_timestamps(day, files.timeframe).to_frame().with_columns(session_date=pl.lit(day))
    )
    gaps = find_gaps(rows, grid, symbols=files.symbols()["symbol"].to_list())
    assert gaps["present"].sum() == rows.height
    assert gaps.filter(pl.col("present") == 0)["symbol"].to_list() == ["CPN"]
    assert content_hash(rows).height == 129
    assert files.symbols()["sector"].null_count() == 0
