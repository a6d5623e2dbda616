"""What Yahoo says of a company."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

import polars as pl

from garch_platform.bars import UTC_TIMESTAMP
from garch_platform.sources.yahoo_access import YAHOO

__all__ = ["COMPANY_SCHEMA", "company_row"]

COMPANY_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "symbol": pl.String,
    "name": pl.String,
    "sector": pl.String,
    "industry": pl.String,
    "exchange": pl.String,
    "currency": pl.String,
    "country": pl.String,
    "market_cap": pl.Float64,
    "shares_outstanding": pl.Float64,
    "data_source": pl.String,
    "recorded_at": UTC_TIMESTAMP,
}
"""``market_cap`` in ``currency``; ``recorded_at`` is when Yahoo was asked."""

TEXTS: Final = {
    "name": ("longName", "shortName"),
    "sector": ("sector",),
    "industry": ("industry",),
    "exchange": ("fullExchangeName", "exchange"),
    "currency": ("currency",),
    "country": ("country",),
}
NUMBERS: Final = {"market_cap": "marketCap", "shares_outstanding": "sharesOutstanding"}


def company_row(symbol: str, info: Mapping[str, Any], now: datetime) -> pl.DataFrame:
    """One row of `COMPANY_SCHEMA`, null where Yahoo says nothing; no row where it does not know ``symbol``."""
    texts = {name: next((info[key] for key in keys if info.get(key)), None) for name, keys in TEXTS.items()}
    numbers = {name: _number(info.get(key)) for name, key in NUMBERS.items()}
    if not any(value is not None for value in (*texts.values(), *numbers.values())):
        return pl.DataFrame(schema=COMPANY_SCHEMA)
    row = {"symbol": symbol, **texts, **numbers, "data_source": YAHOO, "recorded_at": now}
    return pl.DataFrame([row], schema=COMPANY_SCHEMA)


def _number(value: Any) -> float | None:
    """A positive number; Yahoo writes some that it does not have as 0 or as text."""
    return float(value) if isinstance(value, int | float) and value > 0 else None
