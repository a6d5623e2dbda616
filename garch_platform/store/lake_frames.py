"""What a frame must look like before the lake takes it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Final

import polars as pl

from garch_platform.bars import BAR_KEY
from garch_platform.errors import DataError
from garch_platform.store.lake_partitions import date_column
from garch_platform.store.lake_schema import LAKE_KEYS

__all__ = ["aligned", "require_storable", "same_rows"]

RECYCLED: Final = "recycled"

_Schema = Mapping[str, pl.DataType | type[pl.DataType]]


def aligned(frame: pl.DataFrame, schema: _Schema) -> pl.DataFrame:
    """Give ``frame`` the columns of ``schema`` first and in order (null where it lacks one), then its own.

    Raises:
        DataError: a column has another type than the table's.
    """
    columns = [name for name in schema if name != "period"]
    if frame.width == 0:
        return pl.DataFrame(schema={name: schema[name] for name in columns})
    for name in columns:
        if name in frame.columns and frame[name].dtype not in (schema[name], pl.Null):
            raise DataError(
                f"column {name} is {frame[name].dtype}, in the lake it is {schema[name]}; cast it"
            )
    absent = [pl.lit(None, schema[name]).alias(name) for name in columns if name not in frame.columns]
    own = [name for name in frame.columns if name not in columns]
    return frame.with_columns(absent).select(*(pl.col(name).cast(schema[name]) for name in columns), *own)


def same_rows(before: pl.DataFrame, after: pl.DataFrame) -> bool:
    """Whether two frames hold the same rows, in whatever order."""
    if before.height != after.height or set(before.columns) != set(after.columns):
        return False
    order = [name for name in BAR_KEY if name in before.columns]
    return before.sort(order).equals(after.select(before.columns).sort(order))


def require_storable(
    table: str,
    frame: pl.DataFrame,
    schema: _Schema,
    timeframe: str,
    symbols: Sequence[str],
    start: date | None,
    end: date | None,
) -> pl.DataFrame:
    """Return ``frame`` with numbers that are not finite made null, or raise `DataError` that says why not."""
    if start is not None and end is not None and start > end:
        raise DataError(f"the range {start} to {end} is reversed; give the earlier date first")
    if "period" in frame.columns:
        raise DataError("the column period is the lake's own; drop it")
    _require_columns(table, frame, schema)
    frame = aligned(frame, schema) if table == "bars" else frame
    frame = frame.with_columns(
        pl.when(pl.selectors.float().is_finite()).then(pl.selectors.float()).name.keep()
    )
    if frame.is_empty():
        return frame
    day = date_column(frame.columns)
    _require_keys(table, frame, day)
    _require_owned(table, frame, day, timeframe, symbols, start, end)
    _require_unique(table, frame)
    if table == "bars":
        _require_genuine(frame)
    return frame


def _require_columns(table: str, frame: pl.DataFrame, schema: _Schema) -> None:
    if frame.is_empty():
        return
    if table == "bars":
        needed, allowed = list(schema), set(schema)
    else:
        needed, allowed = [*LAKE_KEYS[table], date_column(frame.columns)], set(frame.columns)
    missing = [name for name in needed if name not in frame.columns]
    extra = [name for name in frame.columns if name not in allowed]
    if missing or extra:
        raise DataError(
            f"rows for {table} do not meet its contract: "
            + "; ".join(
                f"{what} {', '.join(names)}"
                for what, names in (("missing", missing), ("unknown", extra))
                if names
            )
        )


def _require_keys(table: str, frame: pl.DataFrame, day: str) -> None:
    for name in (*LAKE_KEYS[table], day):
        if nulls := frame[name].null_count():
            raise DataError(f"{nulls} rows for {table} have no {name}; rows are found by it")


def _require_unique(table: str, frame: pl.DataFrame) -> None:
    doubled = frame.filter(pl.struct(*LAKE_KEYS[table]).is_duplicated())
    if doubled.height:
        first = ", ".join(f"{name}={doubled[name][0]}" for name in LAKE_KEYS[table])
        raise DataError(
            f"{doubled.height} rows for {table} share their key, such as {first}; keep one of each"
        )


def _require_owned(
    table: str,
    frame: pl.DataFrame,
    day: str,
    timeframe: str,
    symbols: Sequence[str],
    start: date | None,
    end: date | None,
) -> None:
    inside = (pl.col("timeframe") == timeframe) & pl.col("symbol").is_in(list(symbols))
    if start is not None:
        inside &= pl.col(day) >= start
    if end is not None:
        inside &= pl.col(day) <= end
    outside = frame.filter(~inside)
    if outside.height:
        row = outside.row(0, named=True)
        raise DataError(
            f"{outside.height} rows for {table} lie outside what this write owns ({timeframe}, "
            f"{len(symbols)} symbols, {start or 'beginning'} to {end or 'open'}), such as "
            f"{row['symbol']} {row['timeframe']} {row[day]}; leave them out or widen the write"
        )


def _require_genuine(frame: pl.DataFrame) -> None:
    foreign = frame.filter(
        pl.col("is_proxy").fill_null(False) | (pl.col("data_source") == RECYCLED).fill_null(False)
    )
    if foreign.height:
        row = foreign.row(0, named=True)
        kind = "recycled" if row["data_source"] == RECYCLED else "proxy"
        raise DataError(
            f"{foreign.height} {kind} rows, such as {row['symbol']} at {row['timestamp']}; "
            "replayed and proxied bars never enter the lake, remove them from the source"
        )
