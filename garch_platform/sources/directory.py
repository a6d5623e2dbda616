"""Names and sectors of well-known US-listed symbols."""

from __future__ import annotations

from collections.abc import Collection
from functools import cache
from importlib.resources import files

import polars as pl

from garch_platform.sources.source import SYMBOLS_SCHEMA

__all__ = ["ASSET_CLASSES", "SECTORS", "describe_symbols", "load_symbol_directory", "unlisted_symbols"]

SECTORS = (
    "communication",
    "consumer_discretionary",
    "consumer_staples",
    "energy",
    "financial",
    "healthcare",
    "index",
    "industrials",
    "materials",
    "real_estate",
    "technology",
    "utilities",
)

ASSET_CLASSES = ("equity", "etf", "index")


@cache
def load_symbol_directory() -> pl.DataFrame:
    """``symbol``, ``name``, ``sector`` and ``asset_class`` of the symbols that the package knows.

    Sectors follow the Global Industry Classification Standard as it stood after 28 September 2018
    (https://www.msci.com/our-solutions/indexes/gics) for every year alike; a fund over several sectors
    has none. Symbols that were delisted keep the name of their last year.
    """
    with (files("garch_platform.sources") / "us_symbols.csv").open("rb") as file:
        return pl.read_csv(file, infer_schema=False, null_values="").sort("symbol")


def describe_symbols(symbols: pl.DataFrame) -> pl.DataFrame:
    """Add ``name``, ``sector`` and ``asset_class`` to ``symbols``, null for symbols not in the directory."""
    return symbols.join(load_symbol_directory(), on="symbol", how="left", maintain_order="left")


def unlisted_symbols(names: Collection[str]) -> pl.DataFrame:
    """``names`` of a vendor that has no list, as `SYMBOLS_SCHEMA`; first and last sessions are null."""
    described = describe_symbols(pl.DataFrame({"symbol": sorted(names)}, {"symbol": pl.String}))
    unknown = [pl.lit(None, pl.Date).alias(name) for name in ("first_session", "last_session")]
    return described.with_columns(unknown).select(list(SYMBOLS_SCHEMA))
