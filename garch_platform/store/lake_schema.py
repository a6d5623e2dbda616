"""The lake's tables: their columns and what identifies a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import polars as pl

from garch_platform.bars import BAR_KEY, BAR_SCHEMA, UTC_TIMESTAMP

__all__ = ["FEATURE_SCHEMA", "LAKE_KEYS", "LAKE_TABLES"]

FEATURE_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "symbol": pl.String,
    "timeframe": pl.String,
    "timestamp": UTC_TIMESTAMP,
    "session_date": pl.Date,
    "log_close": pl.Float64,
    "log_return": pl.Float64,
    "z_score": pl.Float64,
    "rolling_std": pl.Float64,
    "rolling_mean": pl.Float64,
    "volatility_annualized": pl.Float64,
    "ma_short": pl.Float64,
    "ma_long": pl.Float64,
    "rsi": pl.Float64,
    "return_count": pl.Int64,
    "return_sum": pl.Float64,
    "return_sum_squares": pl.Float64,
    "feature_date": pl.Date,
    "computation_method": pl.String,
    "data_source": pl.String,
}
"""Columns that every `features` table has; further ones are added when a frame brings them."""

LAKE_TABLES: Final[Mapping[str, Mapping[str, pl.DataType | type[pl.DataType]]]] = {
    "bars": BAR_SCHEMA,
    "features": FEATURE_SCHEMA,
}

LAKE_KEYS: Final = {"bars": BAR_KEY, "features": ("symbol", "timeframe", "timestamp")}
"""Files are sorted by these, so that the statistics of row groups separate the symbols."""
