"""Which column of a file is which field of the bar contract."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import polars as pl

from garch_platform.errors import ConfigurationError, SourceError

__all__ = ["FIELD_NAMES", "NUMBERS", "field_values", "resolve_columns", "validate_mapping"]

FIELD_NAMES: Final[dict[str, tuple[str, ...]]] = {
    "symbol": ("symbol", "ticker", "sym", "tic", "instrument", "s"),
    "timestamp": ("timestamp", "datetime", "date_time", "ts", "t", "date", "time", "day", "window_start"),
    "open": ("open", "open_price", "o"),
    "high": ("high", "high_price", "h"),
    "low": ("low", "low_price", "l"),
    "close": ("close", "close_price", "c"),
    "volume": ("volume", "vol", "v"),
    "vwap": ("vwap", "vw"),
    "trade_count": ("trade_count", "trades", "transactions", "num_trades", "n"),
    "split_factor": ("split_factor", "split", "splits", "stock_splits", "split_coefficient"),
    "dividend": ("dividend", "dividends", "dividend_amount"),
    "is_proxy": ("is_proxy",),
    "data_source": ("data_source",),
}
"""Fields that a file may give, with the names under which each is recognised (case is ignored)."""

REQUIRED: Final = ("timestamp", "close")
NUMBERS: Final = ("open", "high", "low", "close", "volume", "vwap", "split_factor", "dividend")
"""Fields whose values are real numbers."""

MISSING_TEXT: Final = ("", "-", "na", "n/a", "nan", "null", "none")
TRUE_TEXT: Final = ("true", "t", "yes", "1")


def validate_mapping(mapping: Mapping[str, str]) -> None:
    """Raise `ConfigurationError` where ``mapping`` names a field that bars do not have."""
    for field in mapping:
        if field not in FIELD_NAMES:
            raise ConfigurationError(
                f"{field!r} in files.columns is not a field of a bar; use {', '.join(FIELD_NAMES)} "
                "(field: name of the column in the file)"
            )


def resolve_columns(file: str, names: Sequence[str], mapping: Mapping[str, str]) -> dict[str, str]:
    """Find the file's column for each field that it gives.

    Args:
        file: the file's name, for messages.
        names: its columns.
        mapping: field to column where declared; the other fields are recognised by name. A column that
            is declared for one field is not taken for another.

    Raises:
        SourceError: a declared column is absent, or there is none for the timestamp or the close.
    """
    listed = ", ".join(names)
    for field, column in mapping.items():
        if column not in names:
            raise SourceError(
                f"{file} has no column {column!r}, declared for {field!r} in files.columns; its columns are {listed}"
            )
    plain = {_plain(name): name for name in reversed(names) if name not in mapping.values()}
    found = dict(mapping)
    for field, aliases in FIELD_NAMES.items():
        match = next((plain[alias] for alias in aliases if alias in plain), None)
        if field not in found and match is not None:
            found[field] = match
    for field in REQUIRED:
        if field not in found:
            raise SourceError(
                f"{file} has no column for {field!r}; its columns are {listed}: declare the right one in "
                f"files.columns, such as {{{field}: {_likely(field, names)}}}"
            )
    return {field: found[field] for field in FIELD_NAMES if field in found}


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")


def _likely(field: str, names: Sequence[str]) -> str:
    return next((name for name in names if field in _plain(name)), "NAME_IN_FILE")


def field_values(file: str, field: str, column: str, dtype: pl.DataType) -> pl.Expr:
    """The values of ``column`` as the bar contract has them.

    Text that is no number becomes NaN, so that quality control rejects the row and names it; empty
    text and the usual marks of a missing value become null. A split of 0, by which some vendors mean
    that there was none, becomes 1.

    Raises:
        SourceError: the column's type can hold no such values.
    """
    values: pl.Expr
    raw = pl.col(column)
    if field == "symbol":
        return raw.cast(pl.String).str.strip_chars()
    if field == "data_source":
        return pl.when(raw.cast(pl.String) == "recycled").then(pl.lit("recycled")).otherwise(pl.lit("file"))
    if field == "is_proxy":
        return raw.cast(pl.String).str.strip_chars().str.to_lowercase().is_in(TRUE_TEXT).fill_null(False)
    if dtype == pl.String:
        text = raw.str.strip_chars()
        number = text.cast(pl.Float64, strict=False).fill_null(float("nan"))
        values = (
            pl.when(text.str.to_lowercase().is_in(MISSING_TEXT))
            .then(None)
            .when(raw.is_not_null())
            .then(number)
        )
    elif dtype.is_numeric() or dtype == pl.Null:
        values = raw.cast(pl.Float64)
    else:
        raise SourceError(
            f"{file}: column {column!r} is {dtype}, not numbers, and cannot be {field!r}; "
            "declare another one in files.columns"
        )
    if field == "trade_count":
        return values.cast(pl.Int64, strict=False)
    if field == "split_factor":
        return pl.when(values == 0).then(1.0).otherwise(values)
    return values
