"""Bars that a symbol lacks against those that a complete session holds."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

__all__ = ["find_gaps"]

UTC: Final = pl.Datetime("us", "UTC")


def find_gaps(
    bars: pl.DataFrame, expected: pl.DataFrame, *, symbols: Sequence[str] | None = None
) -> pl.DataFrame:
    """Count the bars that each symbol lacks in each session.

    Args:
        bars: ``symbol``, ``session_date``, ``timestamp``.
        expected: ``session_date``, ``timestamp`` of every bar of a complete session.
        symbols: symbols to judge; by default those of ``bars``. One without bars lacks them all.

    Returns:
        ``symbol``, ``session_date``, ``expected``, ``present`` and ``missing`` (counts), ``share``
        (missing over expected) and ``first_missing`` (timestamp, null where complete), in order of
        symbol and session. Bars that stand on none of the expected timestamps do not count.
    """
    names = pl.Series("symbol", sorted(set(bars["symbol"] if symbols is None else symbols)), dtype=pl.String)
    grid = expected.select("session_date", pl.col("timestamp").cast(UTC)).unique().sort("timestamp")
    grid = grid.with_columns(pl.int_range(pl.len()).over("session_date").alias("_rank"))
    ranks = (
        bars.select("symbol", "session_date", pl.col("timestamp").cast(UTC))
        .unique()
        .join(grid, on=["session_date", "timestamp"], how="inner")
        .sort("symbol", "session_date", "_rank")
    )
    place = pl.int_range(pl.len())
    present = ranks.group_by("symbol", "session_date").agg(
        pl.len().cast(pl.Int64).alias("present"),
        place.filter(pl.col("_rank") != place).first().alias("_hole"),
    )
    counts = grid.group_by("session_date").agg(pl.len().cast(pl.Int64).alias("expected"))
    return (
        names.to_frame()
        .join(counts, how="cross")
        .join(present, on=["symbol", "session_date"], how="left")
        .with_columns(pl.col("present").fill_null(0))
        .with_columns(
            (pl.col("expected") - pl.col("present")).alias("missing"),
            pl.col("_hole").fill_null(pl.col("present")).alias("_rank"),
        )
        .join(
            grid.rename({"timestamp": "first_missing"}).with_columns(pl.col("_rank").cast(pl.Int64)),
            on=["session_date", "_rank"],
            how="left",
        )
        .with_columns((pl.col("missing") / pl.col("expected")).alias("share"))
        .select("symbol", "session_date", "expected", "present", "missing", "share", "first_missing")
        .sort("symbol", "session_date")
    )
