"""Alpaca's raw bars as Polars frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import polars as pl

from garch_platform.bars import UTC_TIMESTAMP

__all__ = ["bar_rows"]

FIELDS: Final[dict[str, tuple[str, type[pl.DataType]]]] = {
    "open": ("o", pl.Float64),
    "high": ("h", pl.Float64),
    "low": ("l", pl.Float64),
    "close": ("c", pl.Float64),
    "volume": ("v", pl.Float64),
    "vwap": ("vw", pl.Float64),
    "trade_count": ("n", pl.Int64),
}
"""Fields of a bar with Alpaca's names for them."""


def bar_rows(bars: Mapping[str, Sequence[Mapping[str, Any]]]) -> pl.DataFrame:
    """Raw bars by symbol as ``symbol``, ``timestamp`` (UTC, null where unreadable) and `FIELDS`."""
    names = [symbol for symbol, rows in bars.items() for _ in rows]
    flat = [row for rows in bars.values() for row in rows]
    columns = [pl.Series("symbol", names, dtype=pl.String), _stamps([row.get("t") for row in flat])]
    for name, (key, dtype) in FIELDS.items():
        columns.append(pl.Series(name, [row.get(key) for row in flat], dtype=dtype, strict=False))
    return pl.DataFrame(columns)


def _stamps(values: list[str | None]) -> pl.Series:
    text = pl.Series("timestamp", values, dtype=pl.String).str.replace(r"[Zz]$", "+00:00")
    return text.str.to_datetime("%Y-%m-%dT%H:%M:%S%.f%:z", time_unit="us", strict=False).cast(UTC_TIMESTAMP)
