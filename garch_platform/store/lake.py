"""The lake: bars and features in Delta tables, read and written with Polars.

Tables are partitioned by ``timeframe`` and ``period`` (the session for intraday bars, the first of the
month for daily ones). A write states which symbols and sessions it owns and replaces exactly those rows,
so running it twice leaves the same table, and the second time not even a new version. A version stays
readable for ``reproducibility_days``; what was vacuumed is reported as not reproducible, never guessed.

Neither deltalake nor Polars survives a fork: start worker processes with the method ``spawn``.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import unquote

import polars as pl
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import CommitFailedError, DeltaError, TableNotFoundError
from filelock import FileLock, Timeout
from tenacity import Retrying, retry_if_exception_type, stop_after_attempt, wait_random

from garch_platform.bars import Timeframe
from garch_platform.errors import DataError, LakeConflict, StoreBusy, StoreError, StoreFull
from garch_platform.store.lake_frames import aligned, require_storable, same_rows
from garch_platform.store.lake_partitions import (
    date_column,
    earliest_period,
    period_of,
    predicate,
    with_period,
)
from garch_platform.store.lake_schema import FEATURE_SCHEMA, LAKE_KEYS, LAKE_TABLES

if TYPE_CHECKING:
    import pyarrow.dataset

__all__ = ["FEATURE_SCHEMA", "LAKE_TABLES", "Lake", "Maintenance"]

WRITE_ATTEMPTS: Final = 10


@dataclass(frozen=True)
class Maintenance:
    """What `Lake.maintain` did to one table."""

    table: str
    version: int
    files_compacted: int
    files_written: int
    files_vacuumed: int


class _Table(DeltaTable):
    """A Delta table that names local files as they are: deltalake writes the folder as in a URL (%20)."""

    def file_uris(self, partition_filters: Any = None, *, file_pruning_predicate: Any = None) -> list[str]:
        """Paths of the files, for Polars, which opens them as given."""
        found = super().file_uris(partition_filters, file_pruning_predicate=file_pruning_predicate)
        folder = self.table_uri.removeprefix("file://")
        local = folder != self.table_uri
        return [unquote(folder) + uri.removeprefix(folder) for uri in found] if local else found


class Lake:
    """The Delta tables below ``url``.

    Args:
        url: a folder or an object-store URL (``s3://bucket/lake``).
        reproducibility_days: how long old versions stay readable.
        lock_timeout: seconds to wait for another writer of a local table before `StoreBusy`.
        retry_wait: longest pause in seconds between two of the ten attempts of a conflicting commit.
        storage_options: credentials and endpoint of an object store, as deltalake takes them.
    """

    def __init__(
        self,
        url: str | Path,
        *,
        reproducibility_days: int = 400,
        lock_timeout: float = 60.0,
        retry_wait: float = 0.5,
        storage_options: dict[str, str] | None = None,
    ) -> None:
        self.url = str(url).removeprefix("file://").rstrip("/")
        self.reproducibility_days = reproducibility_days
        self.lock_timeout = lock_timeout
        self.retry_wait = retry_wait
        self.storage_options = storage_options

    @property
    def is_local(self) -> bool:
        """Whether the lake is a folder of this machine."""
        return "://" not in self.url

    def replace(
        self,
        table: str,
        frame: pl.DataFrame,
        *,
        timeframe: str,
        symbols: Sequence[str],
        start: date | None = None,
        end: date | None = None,
    ) -> int:
        """Make ``frame`` the only rows of these symbols and sessions.

        Args:
            table: ``bars`` or ``features``.
            frame: rows in any order; empty to delete.
            timeframe: of all rows.
            symbols: the symbols that this write owns.
            start: first session that it owns; None is the beginning.
            end: last session that it owns, inclusive; None is open.

        Returns:
            The table's version afterwards; the old one if the rows were there already.

        Raises:
            DataError: a row lies outside, a key is doubled or null, a column is missing or of another
                type, or bars are proxies or recycled.
            LakeConflict: other writers kept winning the commit, ten times.
            StoreBusy: a local table stayed locked. StoreFull: no space is left. The old rows stay.
        """
        schema = self._schema(table)
        symbols = sorted(set(symbols))
        Timeframe.parse(timeframe)
        frame = require_storable(table, frame, schema, timeframe, symbols, start, end)
        with self._locked(table):
            try:
                for attempt in Retrying(
                    retry=retry_if_exception_type(CommitFailedError),
                    stop=stop_after_attempt(WRITE_ATTEMPTS),
                    wait=wait_random(0, self.retry_wait),
                    reraise=True,
                ):
                    with attempt:
                        return self._replace_once(table, frame, timeframe, symbols, start, end)
            except CommitFailedError as error:
                raise LakeConflict(
                    f"table {table} in {self.url}: another writer won the commit {WRITE_ATTEMPTS} times "
                    f"({_first_line(error)}); run again when it has ended"
                ) from error
            except (OSError, DeltaError) as error:
                raise self._translated(error, f"writing {table}") from error
        raise AssertionError("unreachable")

    def _replace_once(
        self,
        table: str,
        frame: pl.DataFrame,
        timeframe: str,
        symbols: list[str],
        start: date | None,
        end: date | None,
    ) -> int:
        stored = self._open(table) or self._create(table, frame)
        if not symbols:
            return stored.version()
        frame = aligned(frame, _polars_schema(stored))
        before = self._scan(table, stored, timeframe, symbols, start, end).collect()
        if same_rows(before, frame):
            return stored.version()
        day = date_column(frame.columns)
        write_deltalake(
            stored,
            with_period(frame, timeframe).sort(LAKE_KEYS[table]),
            mode="overwrite",
            predicate=predicate(day, timeframe, symbols, start, end),
            schema_mode="merge",
        )
        return stored.version()

    def scan(
        self,
        table: str,
        *,
        timeframe: str | None = None,
        symbols: Sequence[str] | None = None,
        start: date | None = None,
        end: date | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
    ) -> pl.LazyFrame:
        """Rows of ``table``, unsorted; only the files of the periods asked for are read.

        Args:
            table: ``bars`` or ``features``.
            timeframe: None for all.
            symbols: None for all.
            start: first session. end: last session, inclusive.
            columns: None for all.
            version: an earlier version of the table.

        Returns:
            A lazy frame; empty and typed where the table does not exist yet.

        Raises:
            StoreError: the version is not there, or is no longer reproducible.
            DataError: a column is unknown.
        """
        schema = self._schema(table)
        stored = self._open(table) if version is None else self._open_version(table, version)
        if stored is None:
            frame = pl.DataFrame(schema=dict(schema)).lazy()
            known = list(schema)
        else:
            if version is not None and version != self.version(table):
                self._require_files(table, stored, timeframe, start, end)
            frame = self._scan(
                table, stored, timeframe, None if symbols is None else list(symbols), start, end
            )
            known = [name for name in _polars_schema(stored) if name != "period"]
        if columns is None:
            return frame
        unknown = [name for name in columns if name not in known]
        if unknown:
            raise DataError(f"table {table} has no columns {', '.join(unknown)}; it has {', '.join(known)}")
        return frame.select(columns)

    def version(self, table: str) -> int | None:
        """The table's newest version; None before its first write."""
        self._schema(table)
        stored = self._open(table)
        return None if stored is None else stored.version()

    def coverage(self, table: str, timeframe: str) -> pl.DataFrame:
        """Return one row a symbol: ``symbol``, ``first_session``, ``last_session``, ``rows``; in order."""
        frame = self.scan(table, timeframe=timeframe)
        day = date_column(frame.collect_schema().names())
        return (
            frame.group_by("symbol")
            .agg(
                pl.col(day).min().alias("first_session"),
                pl.col(day).max().alias("last_session"),
                pl.len().cast(pl.Int64).alias("rows"),
            )
            .sort("symbol")
            .collect()
        )

    def dataset(self, table: str) -> pyarrow.dataset.Dataset:
        """Return the table as an Arrow dataset, for tools that read those; empty where it does not exist yet.

        DuckDB 2 cannot filter its texts (see `garch_platform.store.sql`); it reads `scan` instead.
        """
        import pyarrow.dataset

        stored = self._open(table)
        if stored is not None:
            return stored.to_pyarrow_dataset()
        return pyarrow.dataset.dataset(pl.DataFrame(schema=dict(self._schema(table))).to_arrow())

    def maintain(self, before: date) -> list[Maintenance]:
        """Compact the periods that ended before ``before``, write checkpoints, drop outlived files.

        Files that no version of the last ``reproducibility_days`` uses are deleted, those of writes that
        were killed too. The rows do not change. Returns one entry a table that exists.
        """
        return [done for table in LAKE_TABLES if (done := self._maintain(table, before)) is not None]

    def _maintain(self, table: str, before: date) -> Maintenance | None:
        with self._locked(table):
            stored = self._open(table)
            if stored is None:
                return None
            try:
                wanted = self._configuration()
                if not wanted.items() <= stored.metadata().configuration.items():
                    stored.alter.set_table_properties(dict(wanted))
                compacted = written = 0
                for name in sorted({str(partition["timeframe"]) for partition in stored.partitions()}):
                    bound = period_of(before, name).isoformat()
                    metrics = stored.optimize.compact([("timeframe", "=", name), ("period", "<", bound)])
                    compacted += metrics["numFilesRemoved"]
                    written += metrics["numFilesAdded"]
                stored.create_checkpoint()
                hours = self.reproducibility_days * 24
                vacuumed = stored.vacuum(retention_hours=hours, dry_run=False, full=True)
            except (OSError, DeltaError) as error:
                raise self._translated(error, f"maintaining {table}") from error
            return Maintenance(table, stored.version(), compacted, written, len(vacuumed))

    def _schema(self, table: str) -> Mapping[str, pl.DataType | type[pl.DataType]]:
        try:
            return LAKE_TABLES[table]
        except KeyError:
            raise StoreError(f"the lake has no table {table!r}; it has {', '.join(LAKE_TABLES)}") from None

    def _uri(self, table: str) -> str:
        return f"{self.url}/{table}"

    def _configuration(self) -> dict[str, str]:
        kept = f"interval {self.reproducibility_days} days"
        return {"delta.logRetentionDuration": kept, "delta.deletedFileRetentionDuration": kept}

    def _open(self, table: str) -> DeltaTable | None:
        try:
            return _Table(self._uri(table), storage_options=self.storage_options)
        except TableNotFoundError:
            return None
        except (OSError, DeltaError) as error:
            raise self._translated(error, f"opening {table}") from error

    def _open_version(self, table: str, version: int) -> DeltaTable:
        newest = self.version(table)
        if newest is None or version > newest:
            raise StoreError(
                f"table {table} in {self.url} has no version {version}; its newest is "
                f"{'none yet' if newest is None else newest}"
            )
        try:
            return _Table(self._uri(table), version=version, storage_options=self.storage_options)
        except (OSError, DeltaError) as error:
            raise self._not_reproducible(table, version) from error

    def _require_files(
        self, table: str, stored: DeltaTable, timeframe: str | None, start: date | None, end: date | None
    ) -> None:
        from pyarrow.dataset import field, scalar
        from pyarrow.fs import FileType

        needed: Any = scalar(True)
        if timeframe is not None:
            needed &= field("timeframe") == timeframe
        if start is not None:
            needed &= field("period") >= earliest_period(start, timeframe)
        if end is not None:
            needed &= field("period") <= end
        dataset: Any = stored.to_pyarrow_dataset()
        paths = [fragment.path for fragment in dataset.get_fragments(needed)]
        if any(info.type is FileType.NotFound for info in dataset.filesystem.get_file_info(paths)):
            raise self._not_reproducible(table, stored.version())

    def _not_reproducible(self, table: str, version: int) -> StoreError:
        return StoreError(
            f"version {version} of table {table} in {self.url} is not reproducible: its files are gone, they are "
            f"kept for {self.reproducibility_days} days (setting storage.reproducibility_days); compute it anew "
            "from the present version"
        )

    def _create(self, table: str, frame: pl.DataFrame) -> DeltaTable:
        empty = aligned(frame.clear(), self._schema(table))
        write_deltalake(
            self._uri(table),
            with_period(empty, "1Day"),
            mode="ignore",
            partition_by=["timeframe", "period"],
            configuration=self._configuration(),
            storage_options=self.storage_options,
        )
        return _Table(self._uri(table), storage_options=self.storage_options)

    def _scan(
        self,
        table: str,
        stored: DeltaTable,
        timeframe: str | None,
        symbols: list[str] | None,
        start: date | None,
        end: date | None,
    ) -> pl.LazyFrame:
        first = list(self._schema(table))
        names = first + [name for name in _polars_schema(stored) if name not in {*first, "period"}]
        day = date_column(names)
        frame = pl.scan_delta(stored)
        if timeframe is not None:
            frame = frame.filter(pl.col("timeframe") == timeframe)
        if start is not None:
            frame = frame.filter(pl.col("period") >= earliest_period(start, timeframe), pl.col(day) >= start)
        if end is not None:
            frame = frame.filter(pl.col("period") <= end, pl.col(day) <= end)
        if symbols is not None:
            frame = frame.filter(pl.col("symbol").is_in(symbols))
        return frame.select(names)

    @contextmanager
    def _locked(self, table: str) -> Iterator[None]:
        if not self.is_local:
            yield
            return
        try:
            Path(self.url).mkdir(parents=True, exist_ok=True)
            lock = FileLock(Path(self.url) / f".{table}.lock", timeout=self.lock_timeout)
            with lock:
                yield
        except Timeout:
            raise StoreBusy(
                f"table {table} in {self.url} stayed locked for {self.lock_timeout:g} s; "
                "another run is writing, try again when it ends"
            ) from None
        except OSError as error:
            raise self._translated(error, f"locking {table}") from error

    def _translated(self, error: Exception, doing: str) -> StoreError:
        full = getattr(error, "errno", None) == errno.ENOSPC or "No space left on device" in str(error)
        if full:
            return StoreFull(
                f"{doing} in {self.url}: no space is left; the rows are as before, free some and run again"
            )
        return StoreError(f"{doing} in {self.url} was refused: {_first_line(error)}")


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _polars_schema(stored: DeltaTable) -> dict[str, pl.DataType]:
    return dict(pl.scan_delta(stored).collect_schema())
