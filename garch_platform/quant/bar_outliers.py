"""Suspicious moves of bar prices: bad prints, unadjusted splits, large moves."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Final

import polars as pl

from garch_platform.errors import DataError

__all__ = ["SPLIT_FACTORS", "find_outliers"]

SPLIT_FACTORS: Final[tuple[Fraction, ...]] = (
    Fraction(5, 4),
    Fraction(4, 3),
    Fraction(3, 2),
    *(Fraction(n) for n in (2, 3, 4, 5, 6, 7, 8, 10, 15, 20, 25, 30, 40, 50, 100)),
    *(Fraction(1, n) for n in (2, 3, 4, 5, 6, 7, 8, 10, 12, 15, 20, 25, 30, 40, 50, 100)),
)
"""New shares for one old share in the splits and reverse splits that occur in practice."""

SPLIT_TOLERANCE: Final = 0.04
"""Distance in logs between a move and a split's ratio: the market also moves over the split."""

REVERTED: Final = 0.25
"""A spike has reverted when at most this share of it is left at the next close."""

OUTLIER_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "symbol": pl.String,
    "timestamp": pl.Datetime("us", "UTC"),
    "log_move": pl.Float64,
    "kind": pl.String,
    "suggested_factor": pl.Float64,
}


def find_outliers(bars: pl.DataFrame, *, max_log_move: float) -> pl.DataFrame:
    """Report bars that stray further than ``max_log_move`` from both closes before them.

    The move of bar t is the logarithm of its farthest price (close, high or low) over the close of
    bar t-1, after the bar's own ``split_factor`` where it is known: a declared split is no outlier.

    - ``bad_print``: the close of bar t (where it strayed alone) or of bar t+1 is back, with at most a
      quarter of the move left.
    - ``unadjusted_split``: the close strays, within 0.04 of the logarithm of a usual split ratio, and
      the close of bar t+1 stays there. ``suggested_factor`` is the new shares per old share (7 for
      7:1, 0.1 for 1:10): earlier prices divided by it join on.
    - ``large_move``: any other, among them the last bar of a symbol, which no later bar judges.

    A verdict on bar t uses bar t+1, so it is known at the ``available_at`` of bar t+1 and not before.
    This is a report on the quality of data already received; it must not feed features or signals.

    Args:
        bars: rows of the bar contract; ``symbol``, ``timestamp`` and ``close`` are needed, ``high``,
            ``low``, ``split_factor``, ``timeframe`` and ``feed`` are used where present.
        max_log_move: smallest absolute log move to report, > 0.

    Returns:
        ``symbol``, ``timestamp``, ``log_move``, ``kind``, ``suggested_factor`` (null unless a split).

    Raises:
        DataError: ``max_log_move`` is not positive.
    """
    if not max_log_move > 0:
        raise DataError(f"max_log_move={max_log_move} must be positive; 0.4 is a usual choice")
    group: list[str] = [name for name in ("symbol", "timeframe", "feed") if name in bars.columns]
    moves = _moves(bars, group).filter(
        (pl.col("_move").abs() > max_log_move) & (pl.col("_move_2").abs().fill_null(math.inf) > max_log_move)
    )
    after = pl.col("_next_move")
    close = pl.col("_close_move")
    alone = pl.col("_stray").abs() > close.abs()
    returned = (
        pl.when(alone & (close.abs() <= REVERTED * pl.col("_stray").abs()))
        .then(True)
        .otherwise((close + after).abs() <= REVERTED * pl.col("_stray").abs())
        .fill_null(False)
    )
    factor = _nearest_factor(-close)
    stays = (after.abs() <= REVERTED * close.abs()).fill_null(False)
    kind = (
        pl.when(returned)
        .then(pl.lit("bad_print"))
        .when(stays & factor.is_not_null() & (close.abs() > max_log_move))
        .then(pl.lit("unadjusted_split"))
        .otherwise(pl.lit("large_move"))
    )
    return (
        moves.with_columns(kind.alias("kind"), factor.alias("suggested_factor"))
        .with_columns(pl.when(pl.col("kind") == "unadjusted_split").then(pl.col("suggested_factor")))
        .select("symbol", "timestamp", pl.col("_move").alias("log_move"), "kind", "suggested_factor")
        .cast(OUTLIER_SCHEMA)  # type: ignore[arg-type]
        .sort("symbol", "timestamp")
    )


def _log(column: str) -> pl.Expr:
    return pl.when(pl.col(column) > 0).then(pl.col(column).log())


def _moves(bars: pl.DataFrame, group: list[str]) -> pl.DataFrame:
    columns = [*group, "timestamp", "close"]
    extremes = [name for name in ("high", "low") if name in bars.columns]
    has_splits = "split_factor" in bars.columns
    frame = bars.select(*columns, *extremes, *(["split_factor"] if has_splits else []))
    frame = frame.filter(pl.col("close").is_finite() & (pl.col("close") > 0)).sort(*group, "timestamp")
    declared = pl.col("split_factor").log().fill_null(0.0) if has_splits else pl.lit(0.0)
    frame = frame.with_columns(
        _log("close").alias("_x"),
        *(_log(name).alias(f"_{name}") for name in extremes),
        declared.alias("_declared"),
    )
    return (
        frame.with_columns(
            pl.col("_x").shift(1).over(group).alias("_x1"),
            pl.col("_x").shift(2).over(group).alias("_x2"),
            pl.col("_declared").shift(1).over(group).alias("_declared_1"),
            (pl.col("_x").shift(-1) - pl.col("_x") + pl.col("_declared").shift(-1))
            .over(group)
            .alias("_next_move"),
        )
        .with_columns(
            (pl.col("_x") - pl.col("_x1") + pl.col("_declared")).alias("_close_move"),
            *(
                (pl.col(f"_{name}") - pl.col("_x1") + pl.col("_declared")).alias(f"_{name}_move")
                for name in extremes
            ),
        )
        .with_columns(_farthest("_close_move", *(f"_{name}_move" for name in extremes)).alias("_stray"))
        .with_columns(
            pl.col("_stray").alias("_move"),
            (pl.col("_stray") + pl.col("_x1") - pl.col("_x2") + pl.col("_declared_1")).alias("_move_2"),
        )
    )


def _farthest(*columns: str) -> pl.Expr:
    """The value of the largest size among ``columns``; the first of equals."""
    best = pl.col(columns[0])
    for name in columns[1:]:
        best = pl.when(pl.col(name).abs() > best.abs()).then(pl.col(name)).otherwise(best)
    return best


def _nearest_factor(log_ratio: pl.Expr) -> pl.Expr:
    """The usual split factor within the tolerance of ``exp(log_ratio)``, else null."""
    found: pl.Expr = pl.lit(None, dtype=pl.Float64)
    for factor in SPLIT_FACTORS:
        near = (log_ratio - math.log(factor)).abs() <= SPLIT_TOLERANCE
        found = pl.when(near).then(pl.lit(float(factor))).otherwise(found)
    return found
