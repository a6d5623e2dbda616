"""The real daily bars that installed packages carry."""

from __future__ import annotations

import subprocess
import sys
from datetime import date
from pathlib import Path

import polars as pl
import pytest

from garch_platform.bars import BAR_SCHEMA, Timeframe
from garch_platform.errors import CalendarError, ConfigurationError, SourceError
from garch_platform.quant.bar_quality import check_bars
from garch_platform.sources import BarSource, SampleSource
from garch_platform.sources import sample as sample_module
from garch_platform_tests.sources.market_files import CALENDAR

STOCKS = "AAPL AMD BAC BBY CVX GE HD JNJ JPM KO LLY MRK MSFT PEP PFE PG RRC UNH WMT XOM".split()
SAMPLE = SampleSource(CALENDAR)


def test_the_symbols_are_20_stocks_and_2_indices() -> None:
    symbols = SAMPLE.symbols()
    assert symbols["symbol"].to_list() == sorted([*STOCKS, "^GSPC", "^IXIC"])
    assert symbols.null_count().sum_horizontal().item() == 0
    spans = symbols.group_by("asset_class").agg(pl.col("first_session").min(), pl.col("last_session").max())
    assert sorted(spans.rows()) == [
        ("equity", date(1990, 1, 2), date(2022, 12, 28)),
        ("index", date(1999, 1, 4), date(2018, 12, 31)),
    ]
    assert isinstance(SAMPLE, BarSource)


def test_closes_are_those_published_and_the_rest_is_null() -> None:
    """First and last line of skfolio's sp500_dataset.csv.gz."""
    rows = SAMPLE.fetch(["AAPL", "XOM"], date(1990, 1, 2), date(2022, 12, 28))
    assert rows.schema == pl.Schema(BAR_SCHEMA)
    ends = rows.filter(pl.col("session_date").is_in([date(1990, 1, 2), date(2022, 12, 28)]))
    assert ends["close"].to_list() == [0.264, 125.674, 4.068, 106.627]
    absent = ["open", "high", "low", "volume", "vwap", "trade_count", "split_factor", "dividend"]
    assert all(rows[name].null_count() == rows.height for name in absent)
    constants = rows.select("timeframe", "feed", "data_source", "is_proxy", "adjustment").unique().rows()
    assert constants == [("1Day", "sample", "sample", False, "all")]


def test_index_bars_are_whole() -> None:
    row = SAMPLE.fetch(["^GSPC"], date(1999, 1, 4), date(1999, 1, 4)).row(0, named=True)
    values = [row[name] for name in ("open", "high", "low", "close", "volume")]
    assert values == [1229.22998, 1248.810059, 1219.099976, 1228.099976, 877_000_000.0]


def test_a_bar_spans_its_session() -> None:
    day = date(2021, 11, 26)
    rows = SAMPLE.fetch(STOCKS, day, day)
    assert rows.height == 20
    assert rows.select("timestamp", "available_at", "session_date").unique().rows() == [
        (*CALENDAR.bounds(day), day)
    ]


def test_all_of_it_passes_quality_control() -> None:
    everything = SAMPLE.fetch(SAMPLE.symbols()["symbol"].to_list(), date(1990, 1, 1), date(2022, 12, 31))
    quality = check_bars(everything, max_log_move=0.4, sessions=CALENDAR.schedule)
    assert everything.height == 20 * 8313 + 2 * 5031
    assert quality.rejected.is_empty()


def test_ranges_and_unknown_symbols() -> None:
    assert SAMPLE.fetch(["ZZZZ"], date(2020, 1, 1), date(2020, 2, 1)).is_empty()
    assert SAMPLE.fetch(["AAPL"], date(2023, 1, 1), date(2023, 2, 1)).schema == pl.Schema(BAR_SCHEMA)
    with pytest.raises(CalendarError, match="is reversed"):
        SAMPLE.fetch(["AAPL"], date(2020, 2, 1), date(2020, 1, 1))


def test_only_daily_bars() -> None:
    with pytest.raises(ConfigurationError, match="the sample source has daily bars only, not 1Min"):
        SampleSource(CALENDAR, Timeframe.parse("1Min"))


def test_the_packages_are_not_imported() -> None:
    code = (
        "import sys; from datetime import date; from garch_platform.sources import SampleSource; "
        "from garch_platform.sessions import trading_calendar; "
        "assert not {'pandas', 'exchange_calendars'} & set(sys.modules); "
        "SampleSource(trading_calendar()).symbols(); "
        "print({'skfolio', 'arch', 'sklearn', 'statsmodels'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_an_absent_package_or_file_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="the package 'no_such_package' is not installed"):
        sample_module._data_file("no_such_package", "a.csv.gz")
    with pytest.raises(
        SourceError, match=r"sample data none.csv.gz cannot be read: .*'skfolio' does not carry it"
    ):
        sample_module._data_file("skfolio", "none.csv.gz")
    damaged = tmp_path / "data.csv.gz"
    damaged.write_bytes(b"\x1f\x8b damaged")
    monkeypatch.setattr(sample_module, "_data_file", lambda package, path: damaged)
    with pytest.raises(SourceError, match=r"data\.csv\.gz cannot be read \(.*\); reinstall the package"):
        SampleSource(CALENDAR).symbols()
