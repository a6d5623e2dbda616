"""Rows into the database's tables: which are new, which replace another, which are there already.

Bars of Alpaca are facts: what a bar of the stream or of the REST interface stated first stays, until an updated
bar corrects it. Bars of a replay are what was replayed last: one that differs takes the place of the stored
one, an equal one leaves it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Final

import polars as pl

from garch_platform.errors import DataError, StoreError, StoreFull
from garch_platform.stream.counts import Counts
from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.live_database import LiveDatabase
from garch_platform.stream.rows import CHANNELS, CONTENT, KEY, MARKET_DATA, REST, split_rows
from garch_platform.stream.spool import Spool

__all__ = ["Sink"]

logger = logging.getLogger(__name__)

SPARSE: Final = 4
"""Keys asked for, by rows wanted, above which a question is split."""


class Sink:
    """Writes frames, and counts what became of their rows.

    Args:
        database: with the tables ``market_data``, ``stream_gaps`` and ``symbols``.
        spool: takes rows that the database refuses.
        endpoint: that the rows come from.
        counts: are brought up to date.
        full: told when the spool has no room for rows that are refused.
    """

    def __init__(
        self,
        database: LiveDatabase,
        spool: Spool,
        endpoint: Endpoint,
        counts: Counts,
        full: Callable[[StoreFull], None],
    ) -> None:
        self.database = database
        self._spool = spool
        self._is_replay = endpoint.is_recycler
        self._counts = counts
        self._full = full

    def write(self, table: str, rows: pl.DataFrame) -> None:
        """Write one table's rows; those that the database refuses are set aside, the others are written.

        Raises:
            StoreError: the database is away; rows may have been written, and can be again.
        """
        try:
            if table == MARKET_DATA:
                self._write_bars(rows)
            else:
                self.database.upsert(table, rows)
        except DataError as error:
            if rows.height == 1:
                self._set_aside(table, rows, str(error))
                return
            half = rows.height // 2
            self.write(table, rows[:half])
            self.write(table, rows[half:])
        except StoreError:
            unknown = self._unregistered(rows)
            if unknown.is_empty():
                raise
            names = sorted(set(unknown["symbol"]))
            reason = f"not registered: {', '.join(names[:10])}; add them first (garch symbols add {names[0]})"
            self._set_aside(table, unknown, reason)
            self.write(table, rows.filter(~pl.col("symbol").is_in(names)))

    def _write_bars(self, rows: pl.DataFrame) -> None:
        """Bars that fill older spans go first: a later bar says that those before it were asked for."""
        first, replacing = split_rows(rows, is_replay=self._is_replay)
        is_rest = pl.col("channel") == REST
        filled = self._taken(first.filter(is_rest))
        new = self._taken(first.filter(~is_rest))
        replaced = self._replaced(replacing)
        self._counts.written += new + filled + replaced
        self._counts.filled += filled
        is_bar = pl.col("channel") == CHANNELS["b"]
        bars = rows.filter(is_bar)
        held = first.filter(is_bar)
        corrected = bars.select(KEY).unique().height - held.height if self._is_replay else 0
        self._counts.duplicates += bars.height - corrected - new

    def _taken(self, rows: pl.DataFrame) -> int:
        """Rows that were new, or of a replay and other than the stored ones."""
        if rows.is_empty():
            return 0
        new = self.database.insert_missing(MARKET_DATA, rows)
        if not self._is_replay or new == rows.height:
            return new
        other = rows.join(self._stored(rows), on=[*KEY, *CONTENT], how="anti", nulls_equal=True)
        return new + (self.database.upsert(MARKET_DATA, other) if other.height else 0)

    def _replaced(self, rows: pl.DataFrame) -> int:
        if self._is_replay or rows.is_empty():
            return self._taken(rows)
        return self.database.upsert(MARKET_DATA, rows)

    def _stored(self, rows: pl.DataFrame) -> pl.DataFrame:
        """At least the stored rows with the keys of ``rows``, all of one feed and source."""
        parts = [rows]
        if rows["symbol"].n_unique() * rows["timestamp"].n_unique() > SPARSE * rows.height:
            shorter = min(("symbol", "timestamp"), key=lambda name: rows[name].n_unique())
            parts = rows.partition_by(shorter)
        return pl.concat([self._read(part) for part in parts])

    def _read(self, rows: pl.DataFrame) -> pl.DataFrame:
        wanted = {name: rows[name].unique().to_list() for name in KEY}
        return self.database.read_table(MARKET_DATA, **wanted).select(
            pl.col(name).cast(rows.schema[name]) for name in (*KEY, *CONTENT)
        )

    def _unregistered(self, rows: pl.DataFrame) -> pl.DataFrame:
        known = self.database.read_table("symbols")["symbol"]
        return rows.filter(~pl.col("symbol").is_in(known.implode()))

    def _set_aside(self, table: str, rows: pl.DataFrame, reason: str) -> None:
        try:
            path = self._spool.set_aside(table, rows)
        except StoreFull as error:
            self._full(error)
            return
        self._counts.set_aside += rows.height
        logger.error("%d rows of %s are set aside in %s: %s", rows.height, table, path.name, reason)
