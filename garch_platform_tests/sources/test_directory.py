"""The committed directory of symbols."""

from __future__ import annotations

import polars as pl

from garch_platform.sources.directory import ASSET_CLASSES, SECTORS, describe_symbols, load_symbol_directory

DIRECTORY = load_symbol_directory()


def test_symbols_are_unique_trimmed_and_in_order() -> None:
    assert DIRECTORY.columns == ["symbol", "name", "sector", "asset_class"]
    assert DIRECTORY["symbol"].is_unique().all()
    assert DIRECTORY["symbol"].is_sorted()
    assert DIRECTORY["symbol"].str.contains(r"^\^?[A-Z0-9]+(\.[A-Z])?$").all()
    assert (DIRECTORY["name"] == DIRECTORY["name"].str.strip_chars()).all()


def test_sectors_and_classes_are_of_the_lists() -> None:
    assert set(DIRECTORY["sector"].drop_nulls()) == set(SECTORS)
    assert set(DIRECTORY["asset_class"]) == set(ASSET_CLASSES)
    unsorted = DIRECTORY.filter(pl.col("sector").is_null())
    assert set(unsorted["asset_class"]) == {"etf"}
    assert set(DIRECTORY.filter(pl.col("asset_class") == "index")["sector"]) == {"index"}


def test_well_known_symbols() -> None:
    wanted = {
        "AAPL": ("Apple", "technology", "equity"),
        "JNJ": ("Johnson & Johnson", "healthcare", "equity"),
        "JPM": ("JPMorgan Chase", "financial", "equity"),
        "GOOG": ("Alphabet Class C", "communication", "equity"),
        "SPY": ("SPDR S&P 500 ETF Trust", None, "etf"),
        "^GSPC": ("S&P 500", "index", "index"),
    }
    found = describe_symbols(pl.DataFrame({"symbol": list(wanted)}))
    assert {row[0]: row[1:] for row in found.rows()} == wanted


def test_an_unknown_symbol_has_nulls() -> None:
    assert describe_symbols(pl.DataFrame({"symbol": ["ZZZQ"]})).row(0) == ("ZZZQ", None, None, None)
