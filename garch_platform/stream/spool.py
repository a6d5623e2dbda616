"""Rows on disk, for as long as the database is away.

One Arrow IPC file a batch, named ``<number>.<table>.<first>-<last>.arrow`` after the times of its rows
(microseconds since 1970): written beside its place, synced, then renamed into it, so that a file is whole or
absent whenever the process or the machine stops. Files are read back in the order of their numbers. A file
that cannot be read is renamed to ``.corrupt`` and left there; its name still says which time it held.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

import polars as pl

from garch_platform.errors import StoreError, StoreFull
from garch_platform.stream.rows import MARKET_DATA

__all__ = ["Spool", "SpooledBatch", "write_durably"]

logger = logging.getLogger(__name__)

SUFFIX: Final = ".arrow"
ASIDE: Final = ".aside"
CORRUPT: Final = ".corrupt"
PARTIAL: Final = ".partial"
NO_SPACE: Final = (errno.ENOSPC, errno.EDQUOT)


class SpooledBatch(NamedTuple):
    """A batch on disk: its file, the table that it belongs to and its rows."""

    path: Path
    table: str
    rows: pl.DataFrame


class Spool:
    """A bounded queue of batches on disk; one thread may add while another takes away.

    Args:
        folder: made when the first batch comes.
        megabytes: bound on all files together, those set aside included.
    """

    def __init__(self, folder: Path, *, megabytes: float) -> None:
        self.folder = folder
        self.megabytes = megabytes
        self.lost: list[tuple[int, int]] = []
        """First and last microsecond of the batches that could not be read."""
        self._last = 0
        self._adding = threading.Lock()

    @property
    def files(self) -> list[Path]:
        """Batches that wait, the oldest first."""
        return sorted(self.folder.glob(f"*{SUFFIX}")) if self.folder.is_dir() else []

    @property
    def bytes(self) -> int:
        """Size of everything in the folder."""
        if not self.folder.is_dir():
            return 0
        return sum(size for path in self.folder.iterdir() if (size := _size(path)) is not None)

    def put(self, table: str, rows: pl.DataFrame) -> Path:
        """Write a batch durably behind all others; return its file.

        Raises:
            StoreFull: the bound is reached, or the volume has no space left; nothing was written.
            StoreError: the folder cannot be written to.
        """
        return self._write(table, rows, SUFFIX)

    def set_aside(self, table: str, rows: pl.DataFrame) -> Path:
        """Write rows that the database refuses where they stop nobody; `recall` brings them back."""
        return self._write(table, rows, SUFFIX + ASIDE)

    def recall(self) -> int:
        """Put what was set aside back into the queue, and return how many batches that were."""
        if not self.folder.is_dir():
            return 0
        for path in self.folder.glob(f"*{PARTIAL}"):
            path.unlink()
        found = sorted(self.folder.glob(f"*{SUFFIX}{ASIDE}"))
        for path in found:
            path.rename(path.with_suffix(""))
        return len(found)

    def batches(self) -> Iterator[SpooledBatch]:
        """The batches, the oldest first; one that cannot be read is quarantined with a warning."""
        for path in self.files:
            try:
                rows = pl.read_ipc(path.read_bytes())
            except (pl.exceptions.PolarsError, OSError) as error:
                path.rename(path.with_name(path.name + CORRUPT))
                self.lost += _times(path)
                logger.warning(
                    "the spooled batch %s cannot be read (%s); kept as %s, its bars will be asked for again",
                    path.name,
                    error,
                    path.name + CORRUPT,
                )
                continue
            yield SpooledBatch(path, path.name.split(".")[1], rows)

    def remove(self, batch: SpooledBatch) -> None:
        """Forget a batch that the database has taken."""
        batch.path.unlink(missing_ok=True)

    def _number(self) -> int:
        self._last = max(self._last + 1, time.time_ns(), *(_numbered(path) + 1 for path in self.files[-1:]))
        return self._last

    def _write(self, table: str, rows: pl.DataFrame, suffix: str) -> Path:
        content = rows.write_ipc(None).getvalue()
        limit = int(self.megabytes * 2**20)
        times = rows["timestamp" if "timestamp" in rows.columns else "gap_start"].dt.timestamp("us")
        span = f"{times.min()!s}-{times.max()!s}"
        with self._adding:
            used = self.bytes
            if used + len(content) > limit:
                raise StoreFull(
                    f"spool {self.folder} holds {used:,} of {limit:,} bytes; {rows.height} more rows do not fit: "
                    "bring the database back, or raise websocket.spool_megabytes"
                )
            name = f"{self._number():020d}.{table}.{span}{suffix}"
            return write_durably(self.folder / name, content)


def write_durably(path: Path, content: bytes) -> Path:
    """Replace ``path`` by ``content`` in one step that survives a power cut.

    Raises:
        StoreFull: no space is left.
        StoreError: the folder cannot be written to.
    """
    partial = path.with_name(path.name + PARTIAL)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        partial.replace(path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        if error.errno in NO_SPACE:
            raise StoreFull(f"no space left for {path} ({error}); free some") from error
        raise StoreError(
            f"{path} cannot be written ({error}); let this user write to {path.parent}"
        ) from error
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
    return path


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _times(path: Path) -> list[tuple[int, int]]:
    _, table, span, *_ = path.name.split(".")
    first, _, last = span.partition("-")
    return [(int(first), int(last))] if table == MARKET_DATA else []


def _numbered(path: Path) -> int:
    number = path.name.partition(".")[0]
    return int(number) if number.isdecimal() else 0
