"""Real daily bars that packages of the environment carry: 20 US stocks and two indices."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Final

import polars as pl

from garch_platform.bars import Timeframe
from garch_platform.errors import CalendarError, ConfigurationError, SourceError
from garch_platform.sessions import TradingCalendar
from garch_platform.sources.directory import describe_symbols
from garch_platform.sources.session_rows import assign_daily_sessions
from garch_platform.sources.source import SYMBOLS_SCHEMA, candidate_rows

__all__ = ["SampleSource"]

STOCKS: Final = ("skfolio", "datasets/data/sp500_dataset.csv.gz")
INDICES: Final = {
    "^GSPC": ("arch", "data/sp500/sp500.csv.gz"),
    "^IXIC": ("arch", "data/nasdaq/nasdaq.csv.gz"),
}
FIELDS: Final = ("open", "high", "low", "close", "volume")


class SampleSource:
    """Daily closes of 20 US stocks, 1990-01-02 to 2022-12-28, and bars of two indices, 1999 to 2018.

    The stocks' closes are those of ``skfolio.datasets.load_sp500_dataset``: adjusted for splits and
    dividends (``adjustment='all'``), without open, high, low or volume, which stay null. The S&P 500
    and Nasdaq Composite bars are those of ``arch.data``.

    Args:
        calendar: sessions of the exchange.
        timeframe: daily; no other is carried.

    Raises:
        ConfigurationError: the timeframe is not ``1Day``.
        SourceError: on reading, where a package or its data file is absent.
    """

    name = "sample"

    def __init__(self, calendar: TradingCalendar, timeframe: Timeframe | None = None) -> None:
        self.calendar = calendar
        self.timeframe = timeframe or Timeframe.parse("1Day")
        if not self.timeframe.is_daily:
            raise ConfigurationError(
                f"the sample source has daily bars only, not {self.timeframe}; set universe.timeframe: 1Day"
            )

    @cached_property
    def _bars(self) -> pl.DataFrame:
        """``symbol``, ``day`` and prices of everything, in order."""
        indices = [_read_index(symbol) for symbol in INDICES]
        return pl.concat([_read_stocks(), *indices], how="diagonal").sort("symbol", "day")

    def unreadable(self) -> dict[str, str]:
        """Nothing: all bars are at hand."""
        return {}

    def symbols(self) -> pl.DataFrame:
        """The 22 symbols with their names, sectors, first and last sessions."""
        spans = self._bars.group_by("symbol").agg(
            pl.col("day").min().alias("first_session"), pl.col("day").max().alias("last_session")
        )
        return describe_symbols(spans.sort("symbol")).select(list(SYMBOLS_SCHEMA))

    def fetch(self, symbols: Sequence[str], start: date, end: date) -> pl.DataFrame:
        """Bars of ``symbols`` for the days ``start`` to ``end``, both included.

        Raises:
            CalendarError: the range is reversed.
        """
        if start > end:
            raise CalendarError(f"the range {start} to {end} is reversed; give the earlier date first")
        wanted = self._bars.filter(
            pl.col("symbol").is_in(list(symbols)) & pl.col("day").is_between(start, end)
        )
        return candidate_rows(
            assign_daily_sessions(wanted, self.calendar),
            timeframe=self.timeframe.name,
            feed=self.name,
            data_source=self.name,
            is_proxy=False,
            adjustment="all",
        )


def _data_file(package: str, path: str) -> Path:
    """A data file of an installed package, found without importing it (the import takes seconds)."""
    spec = find_spec(package)
    folders = list(spec.submodule_search_locations or []) if spec else []
    for folder in folders:
        if (file := Path(folder) / path).is_file():
            return file
    found = "does not carry it" if folders else "is not installed"
    raise SourceError(
        f"sample data {path} cannot be read: the package {package!r} {found}; install the versions of the "
        "project's constraints file"
    )


def _read_csv(package: str, path: str) -> pl.DataFrame:
    file = _data_file(package, path)
    try:
        return pl.read_csv(file, infer_schema_length=None)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise SourceError(f"{file} cannot be read ({error}); reinstall the package {package!r}") from None


def _read_stocks() -> pl.DataFrame:
    wide = _read_csv(*STOCKS).with_columns(pl.col("Date").str.to_date("%Y-%m-%d").alias("day")).drop("Date")
    return wide.unpivot(index="day", variable_name="symbol", value_name="close").drop_nulls("close")


def _read_index(symbol: str) -> pl.DataFrame:
    frame = _read_csv(*INDICES[symbol])
    return frame.select(
        pl.lit(symbol).alias("symbol"),
        pl.col("Date").str.to_date("%m/%d/%Y").alias("day"),
        *(pl.col(field.capitalize()).cast(pl.Float64).alias(field) for field in FIELDS),
    )
