"""Splits in raw prices: closes in the share of the beginning.

A close after a split counts for ``split_factor`` times as many shares of before. Multiplying it by all factors
up to its own bar makes the series continuous without touching what lies before: forward adjustment, which at
bar t needs nothing later than t, where the usual backward adjustment rewrites the past with every split
(https://en.wikipedia.org/wiki/Stock_split#Effect_on_historical_charts). Returns are the same either way.
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

__all__ = ["with_split_adjustment"]


def with_split_adjustment(bars: pl.DataFrame, before: Mapping[str, float] | None = None) -> pl.DataFrame:
    """Add ``split_adjustment``: the product of all split factors up to each bar, its own included.

    One computation and any split into consecutive appends give the same bits.

    Args:
        bars: ``symbol``, ``timestamp``, ``adjustment`` and ``split_factor`` (new shares for one old, null
            or 1 where there was none), in any order. Factors beside prices that are adjusted already are
            not applied.
        before: the last ``split_adjustment`` of each symbol before these bars; 1 where it has none.

    Returns:
        ``bars`` in their order with the new column (Float64, 1.0 where there was no split).
    """
    own = pl.when(pl.col("adjustment") == "raw").then("split_factor").fill_null(1.0)
    carried = pl.col("symbol").replace_strict(dict(before or {}), default=1.0, return_dtype=pl.Float64)
    first = pl.col("timestamp") == pl.col("timestamp").min().over("symbol")
    factor = pl.when(first).then(carried * own).otherwise(own)
    return bars.with_columns(
        split_adjustment=factor.cum_prod().over("symbol", order_by="timestamp").cast(pl.Float64)
    )
