"""What every source of bars offers, and the rows that it gives."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from difflib import get_close_matches
from typing import Final, Protocol, runtime_checkable

import polars as pl

from garch_platform.bars import BAR_SCHEMA
from garch_platform.errors import SymbolError

__all__ = ["SYMBOLS_SCHEMA", "BarSource", "candidate_rows", "empty_bars", "require_symbols"]

SYMBOLS_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "symbol": pl.String,
    "name": pl.String,
    "sector": pl.String,
    "asset_class": pl.String,
    "first_session": pl.Date,
    "last_session": pl.Date,
}


@runtime_checkable
class BarSource(Protocol):
    """A place where bars come from: a file, a package, a simulator, a data vendor."""

    name: str
    """Value of the rows' ``data_source``: ``sample``, ``simulated``, ``file``."""

    def symbols(self) -> pl.DataFrame:
        """One row a symbol: ``symbol``, ``name``, ``sector``, ``asset_class`` (``equity``, ``index`` or
        ``etf``), ``first_session`` and ``last_session``; null where unknown."""
        ...

    def fetch(self, symbols: Sequence[str], start: date, end: date) -> pl.DataFrame:
        """Candidate rows of the bar contract for the days ``start`` to ``end``, both included.

        Faulty rows come as found: quality control is the reader's, and names what it rejects. A row
        that belongs to no session has a null ``session_date``. A symbol that the source does not have
        gives no rows.
        """
        ...

    def unreadable(self) -> dict[str, str]:
        """Parts of the source that cannot be read now, a corrupt file or a symbol: name and what is wrong.

        `fetch` leaves them out and gives the rest.
        """
        ...


def empty_bars() -> pl.DataFrame:
    """No rows, with the columns of the bar contract."""
    return pl.DataFrame(schema=BAR_SCHEMA)


def candidate_rows(frame: pl.DataFrame, **constants: str | bool) -> pl.DataFrame:
    """``frame`` with exactly the columns of the bar contract: ``constants`` first, else null."""
    columns = []
    for name, dtype in BAR_SCHEMA.items():
        if name in constants:
            columns.append(pl.lit(constants[name], dtype=dtype).alias(name))
        elif name in frame.columns:
            columns.append(pl.col(name).cast(dtype))
        else:
            columns.append(pl.lit(None, dtype=dtype).alias(name))
    return frame.select(columns)


def require_symbols(source: BarSource, symbols: Sequence[str]) -> None:
    """Raise `SymbolError` for the first of ``symbols`` that ``source`` does not have."""
    known = source.symbols()["symbol"].to_list()
    for symbol in symbols:
        if symbol not in known:
            near = get_close_matches(symbol, known, n=3)
            hint = f"did you mean {' or '.join(near)}?" if near else "list what it has with symbols()"
            raise SymbolError(f"symbol {symbol!r} is not in the source {source.name!r}; {hint}")
