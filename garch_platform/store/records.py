"""Frames to rows and back: the border between Polars and the database.

A number that is not finite enters as null; a row that does not fit its table is refused before it is
sent, so that SQLite and PostgreSQL agree about what they take.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from sqlalchemy import Result, String, Table
from sqlalchemy.types import TypeEngine

from garch_platform.errors import DataError
from garch_platform.store.schema import METADATA, polars_type, unique_key

__all__ = ["COLUMN_TYPES", "frame_of", "require_inside", "rows_of"]


def _column_types() -> dict[str, TypeEngine[Any]]:
    return {column.name: column.type for table in METADATA.sorted_tables for column in table.columns}


COLUMN_TYPES: Mapping[str, TypeEngine[Any]] = _column_types()
"""Type of every column name of the schema; a name means the same in all tables."""


def rows_of(table: Table, frame: pl.DataFrame) -> list[dict[str, Any]]:
    """Rows of ``frame`` as values for ``table``; columns take the table's types.

    Raises:
        DataError: a column is unknown, has the wrong type, no time zone, or a text is too long; a key
            is null.
    """
    unknown = [name for name in frame.columns if name not in table.columns]
    if unknown:
        raise DataError(
            f"table {table.name} has no columns {', '.join(unknown)}; "
            f"it has {', '.join(table.columns.keys())}"
        )
    if frame.is_empty():
        return []
    columns = [_fit(table, frame[name]) for name in frame.columns]
    fitted = pl.DataFrame(columns)
    for name in unique_key(table):
        if name in fitted.columns and fitted[name].null_count():
            raise DataError(
                f"table {table.name}: key column {name} is null in {fitted[name].null_count()} rows; "
                "rows are identified by it, so give its value"
            )
    return fitted.to_dicts()


def _fit(table: Table, values: pl.Series) -> pl.Series:
    kind = table.columns[values.name].type
    wanted = polars_type(kind)
    if wanted is None or values.dtype == pl.Null:
        return values
    place = f"table {table.name}, column {values.name}"
    if isinstance(values.dtype, pl.Datetime) and values.dtype.time_zone is None:
        raise DataError(f"{place}: timestamps have no time zone; give them in UTC")
    if isinstance(values.dtype, pl.Datetime) and isinstance(wanted, pl.Datetime):
        values = values.dt.convert_time_zone("UTC")
    if values.dtype.is_float():
        values = values.set(~values.is_finite().fill_null(True), None)
    if values.dtype != wanted and not _converts(values.dtype, wanted):
        raise DataError(f"{place} holds {wanted}, not {values.dtype}; cast it first")
    try:
        values = values.cast(wanted)
    except pl.exceptions.InvalidOperationError as error:
        raise DataError(f"{place} holds {wanted}: {str(error).splitlines()[0]}") from None
    if isinstance(kind, String) and kind.length is not None:
        long = values.filter(values.str.len_chars() > kind.length)
        if len(long):
            raise DataError(f"{place}: {long[0]!r} is longer than {kind.length} characters")
    return values


def _converts(given: pl.DataType, wanted: pl.DataType | type[pl.DataType]) -> bool:
    if wanted in (pl.Int64, pl.Float64):
        return given.is_integer() or (given.is_float() and wanted == pl.Float64)
    if wanted == pl.String:
        return isinstance(given, pl.Categorical | pl.Enum)
    return isinstance(given, pl.Datetime) and isinstance(wanted, pl.Datetime)


def require_inside(table: Table, frame: pl.DataFrame, where: Mapping[str, Sequence[Any]]) -> None:
    """Check that ``where`` names columns and that it owns every row of ``frame``; else `DataError`."""
    for name, values in where.items():
        if name not in table.columns:
            raise DataError(
                f"table {table.name} has no column {name}; it has {', '.join(table.columns.keys())}"
            )
        if frame.is_empty():
            continue
        if name not in frame.columns:
            raise DataError(
                f"the rows for table {table.name} lack the column {name} that this write is keyed by"
            )
        outside = frame.filter(~pl.col(name).is_in(list(values)) | pl.col(name).is_null())
        if outside.height:
            raise DataError(
                f"{outside.height} rows for table {table.name} have a {name} that this write does not own, "
                f"such as {outside[name][0]!r}; add it to the keys or leave those rows out"
            )


def frame_of(result: Result[Any], types: Mapping[str, TypeEngine[Any]]) -> pl.DataFrame:
    """All rows of ``result``; a column named in ``types`` has its Polars type even without rows."""
    names = list(result.keys())
    rows = result.fetchall()
    schema = {name: polars_type(types[name]) if name in types else None for name in names}
    return pl.DataFrame([tuple(row) for row in rows], schema=schema, orient="row", infer_schema_length=None)
