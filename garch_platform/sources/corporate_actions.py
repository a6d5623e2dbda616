"""Splits and cash dividends, and the bars at which they take effect."""

from __future__ import annotations

from typing import Final

import polars as pl

__all__ = ["ACTIONS_SCHEMA", "apply_actions", "merge_actions"]

ACTIONS_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "symbol": pl.String,
    "ex_date": pl.Date,
    "action": pl.String,
    "value": pl.Float64,
    "data_source": pl.String,
}
"""``action`` is ``split`` (``value``: new shares for one old) or ``dividend`` (currency per share)."""


def merge_actions(actions: pl.DataFrame, data_source: str) -> pl.DataFrame:
    """One row a symbol, ex-date and action: dividends of a day add up, splits multiply.

    Rows without a positive value (an announcement whose rate is not set yet) are left out.
    """
    value = (
        pl.when(pl.col("action").first() == "split")
        .then(pl.col("value").product())
        .otherwise(pl.col("value").sum())
    )
    return (
        actions.filter((pl.col("value") > 0) & pl.col("ex_date").is_not_null())
        .group_by("symbol", "ex_date", "action")
        .agg(value)
        .sort("symbol", "ex_date", "action")
        .with_columns(pl.lit(data_source).alias("data_source"))
        .select(pl.col(name).cast(dtype) for name, dtype in ACTIONS_SCHEMA.items())
    )


def apply_actions(bars: pl.DataFrame, actions: pl.DataFrame) -> pl.DataFrame:
    """``bars`` with ``split_factor`` and ``dividend`` at the first bar on or after each ex-date.

    All other bars have nulls: no announcement is no promise that there was nothing.

    Args:
        bars: ``symbol``, ``timestamp``, ``session_date`` and other columns.
        actions: `ACTIONS_SCHEMA`.
    """
    first = (
        bars.drop_nulls(["session_date", "timestamp"])
        .group_by("symbol", "session_date")
        .agg(pl.col("timestamp").min())
        .sort("session_date")
    )
    taking = actions.sort("ex_date").join_asof(
        first,
        left_on="ex_date",
        right_on="session_date",
        by="symbol",
        strategy="forward",
        check_sortedness=False,
    )
    value = {name: pl.col("value").filter(pl.col("action") == name) for name in ("split", "dividend")}
    effects = (
        taking.drop_nulls("timestamp")
        .group_by("symbol", "timestamp")
        .agg(
            pl.when(value["split"].count() > 0).then(value["split"].product()).alias("split_factor"),
            pl.when(value["dividend"].count() > 0).then(value["dividend"].sum()).alias("dividend"),
        )
    )
    return bars.join(effects, on=["symbol", "timestamp"], how="left", maintain_order="left")
