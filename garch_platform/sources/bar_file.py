"""One file of bars: where it is, how it is laid out, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Final, Literal

import polars as pl

from garch_platform.bars import Timeframe
from garch_platform.errors import SourceError
from garch_platform.sources.columns import NUMBERS, field_values, resolve_columns
from garch_platform.sources.timestamps import TimeReader

__all__ = ["BarFile", "bar_paths", "open_bar_file", "reading", "require_layout"]

SUFFIXES: Final = (".parquet", ".csv", ".csv.gz")
SAMPLE_ROWS: Final = 1000


@dataclass(frozen=True)
class BarFile:
    """One file, with what its header says."""

    path: Path
    columns: dict[str, str]
    schema: pl.Schema
    times: TimeReader

    @property
    def layout(self) -> tuple[tuple[str, ...], str]:
        """The fields that the file gives and how it writes times."""
        return tuple(sorted(self.columns)), self.times.kind

    @property
    def own_symbol(self) -> str | None:
        """The symbol that the file's name gives, where no column does."""
        return None if "symbol" in self.columns else _stem(self.path)

    def scan(self) -> pl.LazyFrame:
        """The file's rows, read when they are collected."""
        return _scan(self.path)

    def symbol(self) -> pl.Expr:
        """The symbol of each row."""
        if self.own_symbol is not None:
            return pl.lit(self.own_symbol)
        return self.values("symbol")

    def values(self, field: str) -> pl.Expr:
        """The values of a field of the bar contract."""
        column = self.columns[field]
        return field_values(str(self.path), field, column, self.schema[column])

    def within(self, rows: pl.LazyFrame, start: date, end: date) -> pl.LazyFrame:
        """Leave out, while the file is being read, what is far from the days ``start`` to ``end``."""
        column = pl.col(self.times.column)
        low, high = start - timedelta(days=3), end + timedelta(days=3)
        if self.times.kind == "date":
            return rows.filter(column.is_between(low, high))
        dtype = self.times.dtype
        if not isinstance(dtype, pl.Datetime):
            return rows
        first, last = (
            pl.lit(datetime.combine(day, time())).cast(pl.Datetime(dtype.time_unit)) for day in (low, high)
        )
        if dtype.time_zone is not None:
            first, last = (
                bound.dt.replace_time_zone("UTC").dt.convert_time_zone(dtype.time_zone)
                for bound in (first, last)
            )
        return rows.filter(column.is_between(first, last))


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").removesuffix(".csv").removesuffix(".parquet")


def bar_paths(path: Path) -> list[Path]:
    """The bar files at ``path`` in order: itself, or those in the folder and its subfolders.

    Raises:
        SourceError: there is none.
    """
    if not path.exists():
        raise SourceError(
            f"{path} does not exist; put Parquet or CSV bars there, or point files.path at the right place"
        )
    if path.is_file():
        if not path.name.endswith(SUFFIXES):
            raise SourceError(
                f"{path} is neither Parquet nor CSV; use a file that ends in {', '.join(SUFFIXES)}"
            )
        return [path]
    found = sorted(
        file
        for file in path.rglob("*")
        if file.is_file()
        and file.name.endswith(SUFFIXES)
        and not any(part.startswith((".", "_")) for part in file.relative_to(path).parts)
    )
    if not found:
        raise SourceError(
            f"the folder {path} holds no file that ends in {', '.join(SUFFIXES)}; put bars there"
        )
    return found


def _scan(path: Path) -> pl.LazyFrame:
    if path.name.endswith(".parquet"):
        return pl.scan_parquet(path, glob=False)
    return pl.scan_csv(path, infer_schema=False, glob=False)


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the reader of ``path`` raises into a `SourceError` that names the file."""
    try:
        yield
    except (pl.exceptions.PolarsError, OSError) as error:
        kind = "Parquet" if path.name.endswith(".parquet") else "CSV"
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise SourceError(
            f"{path} cannot be read as {kind} ({reason}); write the file again or take it out of the folder"
        ) from error


def open_bar_file(
    path: Path,
    *,
    columns: Mapping[str, str],
    timeframe: Timeframe,
    timezone: str,
    exchange_timezone: str,
    label: Literal["start", "end"],
) -> BarFile:
    """Read the header and the first rows of a file and find out how it writes bars.

    Raises:
        SourceError: the file cannot be read, lacks a column, or a column is not what it is taken for.
    """
    with reading(path):
        schema = _scan(path).collect_schema()
        sample = _scan(path).head(SAMPLE_ROWS).collect()
    found = resolve_columns(str(path), schema.names(), columns)
    column = found["timestamp"]
    times = TimeReader(
        file=str(path),
        column=column,
        dtype=schema[column],
        timeframe=timeframe,
        timezone=timezone,
        exchange_timezone=exchange_timezone,
        label=label,
    )
    file = BarFile(path, found, schema, times)
    _check_times(file, sample)
    _check_numbers(file, sample)
    return file


def require_layout(file: BarFile, first: BarFile) -> None:
    """Raise `SourceError` where two files of a folder are laid out differently."""
    if file.layout == first.layout:
        return
    (fields, kind), (first_fields, first_kind) = file.layout, first.layout
    if kind != first_kind:
        difference = f"its column {file.times.column!r} writes times as {kind}, there as {first_kind}"
    else:
        odd = sorted(set(fields) ^ set(first_fields))
        difference = f"only one of them gives {', '.join(odd)}"
    raise SourceError(
        f"{file.path} and {first.path} have different layouts: {difference}; keep one layout in a folder, "
        "or declare the columns in files.columns"
    )


def _check_times(file: BarFile, sample: pl.DataFrame) -> None:
    """Raise where the whole column holds no times, which is no fault of single rows."""
    times = file.times
    raw = sample[times.column]
    daily = times.timeframe.is_daily
    days = sample.select(times.day().alias("day"))["day"]
    readable = days if daily else sample.select(times.stamp().alias("at"))["at"]
    if raw.len() and readable.null_count() == raw.len():
        example = next((value for value in raw if value is not None), None)
        raise SourceError(
            f"{file.path}: column {times.column!r} cannot be read as {'dates' if daily else 'times of day'} "
            f"(first value {example!r}); write ISO 8601, such as 2024-03-28T13:30:00Z, or declare another "
            "column in files.columns"
        )
    if daily and times.kind != "date" and raw.n_unique() > 3 * days.n_unique():
        raise SourceError(
            f"{file.path}: column {times.column!r} holds {raw.n_unique()} times on {days.n_unique()} day(s), "
            "so its bars are shorter than 1Day; set universe.timeframe, or files.resample, to their length"
        )


def _check_numbers(file: BarFile, sample: pl.DataFrame) -> None:
    """Raise where a whole column holds no numbers."""
    for field in NUMBERS:
        if field not in file.columns:
            continue
        column = file.columns[field]
        values = sample.select(file.values(field).alias(field))[field].drop_nulls()
        if sample.schema[column] == pl.String and values.len() and values.is_nan().all():
            example = next(value for value in sample[column] if value is not None)
            raise SourceError(
                f"{file.path}: column {column!r} holds no numbers (first value {example!r}) and cannot be "
                f"{field!r}; declare another one in files.columns"
            )
