"""Rows that the store tests write: bars, features and verdicts with values that do not round nicely."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl

from garch_platform.bars import BAR_SCHEMA, UTC_TIMESTAMP
from garch_platform.store.database import Database

JANUARY = [date(2024, 1, 2) + timedelta(days=day) for day in range(4)]


def bars(
    symbols: Sequence[str],
    days: Sequence[date],
    *,
    per_session: int = 3,
    timeframe: str = "1Min",
    seed: int = 1,
    price: float | None = None,
) -> pl.DataFrame:
    """Bars that meet the contract; ``price`` sets all closes."""
    keys = pl.DataFrame({"symbol": list(symbols)}, schema={"symbol": pl.String})
    keys = keys.join(
        pl.DataFrame({"session_date": list(days)}, schema={"session_date": pl.Date}), how="cross"
    )
    keys = keys.join(pl.DataFrame({"number": range(per_session)}), how="cross")
    length = pl.duration(minutes=1) if timeframe == "1Min" else pl.duration(hours=6, minutes=30)
    opening = pl.col("session_date").cast(pl.Datetime("us")).dt.replace_time_zone("UTC") + pl.duration(
        minutes=870
    )
    prices = 100 * np.exp(np.random.default_rng(seed).normal(0, 0.01, keys.height).cumsum())
    return (
        keys.with_columns(
            timeframe=pl.lit(timeframe),
            timestamp=(opening + pl.duration(minutes=pl.col("number"))).cast(UTC_TIMESTAMP),
            close=pl.Series(prices) if price is None else pl.lit(price),
            feed=pl.lit("test"),
            data_source=pl.lit("simulated"),
            is_proxy=pl.lit(False),
            adjustment=pl.lit("raw"),
        )
        .with_columns(available_at=pl.col("timestamp") + length)
        .select(
            (pl.col(name) if name in BAR_CONTENT else pl.lit(None)).cast(kind).alias(name)
            for name, kind in BAR_SCHEMA.items()
        )
    )


BAR_CONTENT = {
    "symbol", "timeframe", "timestamp", "available_at", "session_date", "close", "feed", "data_source",
    "is_proxy", "adjustment",
}  # fmt: skip


def features(symbols: Sequence[str], days: Sequence[date], *, timeframe: str = "1Min") -> pl.DataFrame:
    """Some columns of the features of `bars`."""
    return bars(symbols, days, timeframe=timeframe).select(
        "symbol",
        "timeframe",
        "timestamp",
        "session_date",
        pl.col("close").log().alias("log_close"),
        pl.col("session_date").alias("feature_date"),
        pl.lit("test").alias("computation_method"),
        "data_source",
    )


def verdicts(symbols: Sequence[str], days: Sequence[date], *, seed: int = 1) -> pl.DataFrame:
    """Rows of ``variance_stability_tracking``; every other one is stable."""
    keys = [(symbol, day) for symbol in symbols for day in days]
    random = np.random.default_rng(seed)
    stable = [number % 2 == 0 for number in range(len(keys))]
    return pl.DataFrame(
        {
            "symbol": [symbol for symbol, _ in keys],
            "test_date": [day for _, day in keys],
            "record_count": pl.Series([504] * len(keys), dtype=pl.Int64),
            "arch_test_pvalue": random.uniform(0, 1, len(keys)),
            "rolling_std_cv": random.exponential(0.3, len(keys)),
            "ljung_box_pvalue": random.uniform(0, 1, len(keys)),
            "is_stable": stable,
            "filter_reason": [None if fine else "rolling_std_cv" for fine in stable],
            "gate": ["strict"] * len(keys),
        },
        schema_overrides={"symbol": pl.String, "test_date": pl.Date, "filter_reason": pl.String},
    )


def register(database: Database, *symbols: str) -> None:
    """Put symbols into the table ``symbols``."""
    database.upsert("symbols", pl.DataFrame({"symbol": list(symbols), "sector": "technology"}))


def instant(day: date, hour: int = 12) -> datetime:
    """A time of ``day``, UTC."""
    return datetime(day.year, day.month, day.day, hour, tzinfo=UTC)
