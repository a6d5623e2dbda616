"""From the stream into ``market_data``: in batches, in a thread, and onto disk while the database is away.

Rows keep their order: as long as a batch waits in the spool, later ones queue behind it. What is written
twice is there once, so a batch that failed half-way is simply written again.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import polars as pl

from garch_platform.errors import DataError, StoreError, StoreFull
from garch_platform.stream.counts import Counts
from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.gaps import Gaps, Span
from garch_platform.stream.journal import GapJournal
from garch_platform.stream.resume import StoredBars
from garch_platform.stream.rows import CHANNELS, MARKET_DATA, BarRow, rows_frame, split_rows
from garch_platform.stream.spool import Spool

__all__ = ["LiveDatabase", "Writer"]

logger = logging.getLogger(__name__)

Proxies = Callable[[], Mapping[str, list[tuple[int, int]]]]

STREAM_GAPS: Final = "stream_gaps"
GAP_KEY: Final = ("symbol", "timeframe", "feed", "data_source", "gap_start")
BATCHES_IN_MEMORY: Final = 8
FIRST_RETRY: Final = 0.5
LONGEST_RETRY: Final = 30.0


class LiveDatabase(Protocol):
    """What the client needs of the database; see `garch_platform.store.database.Database`."""

    def insert_missing(self, table_name: str, frame: pl.DataFrame) -> int:
        """Insert rows whose key is not there; return how many were new."""
        ...

    def upsert(self, table_name: str, frame: pl.DataFrame) -> int:
        """Insert rows, or replace those with the same key."""
        ...

    def read_table(self, table_name: str, **filters: Any) -> pl.DataFrame:
        """Rows of a table."""
        ...

    def read(self, statement: str, **parameters: Any) -> pl.DataFrame:
        """Rows of a query."""
        ...


@dataclass(frozen=True)
class _Batch:
    rows: list[BarRow] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    missing: list[Span] = field(default_factory=list)


@dataclass
class _Outcome:
    """What a thread found out, to be applied in the loop."""

    resumed: dict[str, int] | None = None
    lost: list[Span] = field(default_factory=list)


class Writer:
    """Takes bars in the event loop and writes them in a thread.

    Args:
        database: with the tables ``market_data``, ``stream_gaps`` and ``symbols``.
        spool: for as long as ``database`` is away.
        endpoint: that the rows come from.
        gaps: what is missing; kept in ``journal`` before later bars are stored.
        stored: where the stream is taken up again.
        proxies: the spans in which bars were another symbol's, asked once a batch.
        resumed: called in the loop once `stored` is known: symbol → its last stored bar.
        flush_seconds: longest time that a bar waits.
        flush_rows: bars a batch; as many as a few batches wait in memory, then the stream is not read on.
    """

    def __init__(
        self,
        database: LiveDatabase,
        spool: Spool,
        endpoint: Endpoint,
        *,
        gaps: Gaps,
        journal: GapJournal,
        stored: StoredBars,
        proxies: Proxies,
        resumed: Callable[[Mapping[str, int]], None],
        counts: Counts,
        flush_seconds: float,
        flush_rows: int,
    ) -> None:
        self.database = database
        self.spool = spool
        self.endpoint = endpoint
        self.flush_seconds = flush_seconds
        self.flush_rows = flush_rows
        self.error: str | None = None
        """Why the database does not take rows at present."""
        self._gaps = gaps
        self._journal = journal
        self._stored = stored
        self._proxies = proxies
        self._resumed = resumed
        self._counts = counts
        self._rows: list[BarRow] = []
        self._gap_rows: list[dict[str, Any]] = []
        self._before: list[Span] = []
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stream-writer")
        self._flushing = asyncio.Lock()
        self._is_closing = False
        self._failures = 0
        self._retry_at = 0.0

    @property
    def waiting(self) -> int:
        """Rows in memory."""
        return len(self._rows)

    async def take(self, row: BarRow) -> None:
        """Take a bar, when there is room for it; it is written within ``flush_seconds``."""
        if not self._room.is_set():
            await self._room.wait()
        self._rows.append(row)
        if len(self._rows) >= self.flush_rows:
            self._full.set()
            if len(self._rows) >= self.flush_rows * BATCHES_IN_MEMORY:
                self._room.clear()

    def record_gap(self, span: Span, start: datetime, end: datetime, bars: int) -> None:
        """Note that ``span`` was asked for; written after the bars taken before it."""
        self._gap_rows.append(
            {
                "symbol": span.symbol,
                "timeframe": self.endpoint.timeframe.name,
                "feed": self.endpoint.feed,
                "data_source": self.endpoint.data_source,
                "gap_start": start,
                "gap_end": end,
                "cause": span.cause,
                "bars_filled": bars,
                "detected_at": datetime.now(UTC),
            }
        )

    async def run(self) -> None:
        """Write batches until `close`."""
        while not self._is_closing:
            try:
                async with asyncio.timeout(self.flush_seconds):
                    await self._full.wait()
            except TimeoutError:
                pass
            await self.flush()

    async def flush(self) -> None:
        """Write everything taken so far, to the database or the spool."""
        async with self._flushing:
            while True:
                batch = self._cut()
                is_idle = not batch.rows and not batch.gaps
                if is_idle and not self._has_work():
                    return
                outcome = await asyncio.get_running_loop().run_in_executor(self._thread, self._store, batch)
                if outcome.resumed is not None:
                    self._resumed(outcome.resumed)
                for span in outcome.lost:
                    self._gaps.reopen(span)
                if len(self._rows) < self.flush_rows:
                    return

    async def close(self) -> None:
        """Write the rest, try what is spooled once more, and end the thread."""
        self._is_closing = True
        self._full.set()
        self._retry_at = 0.0
        await self.flush()
        self._retry_at = 0.0
        await self.flush()
        self._journal.save(self._gaps.snapshot())
        self._thread.shutdown(wait=True)

    def _has_work(self) -> bool:
        return time.monotonic() >= self._retry_at and (not self._stored.is_known or bool(self.spool.files))

    def _cut(self) -> _Batch:
        rows, self._rows = self._rows, []
        gaps, self._gap_rows = self._gap_rows, []
        self._full.clear()
        self._room.set()
        now = self._gaps.snapshot()
        missing, self._before = [*self._before, *now], now
        return _Batch(rows, gaps, missing)

    def _store(self, batch: _Batch) -> _Outcome:
        """In the thread: write a batch where there is room for it; never raises for a store that is away."""
        outcome = _Outcome()
        tables = self._tables(batch)
        try:
            self._journal.save(batch.missing)
        except StoreFull as error:
            self._report(error)
        try:
            if not self._stored.is_known and time.monotonic() >= self._retry_at:
                outcome.resumed = self._stored.read()
            is_direct = not self._failures and not self.spool.files
            while is_direct and tables:
                self._write(*tables[0])
                tables.pop(0)
        except StoreError as error:
            self._away(error)
        for table, rows in tables:
            self._keep(table, rows, outcome)
        self._drain()
        outcome.lost += self._unreadable()
        return outcome

    def _tables(self, batch: _Batch) -> list[tuple[str, pl.DataFrame]]:
        tables = []
        if batch.rows:
            tables.append((MARKET_DATA, rows_frame(batch.rows, self.endpoint, self._proxies())))
        if batch.gaps:
            rows = pl.DataFrame(batch.gaps).unique(GAP_KEY, keep="last", maintain_order=True)
            tables.append((STREAM_GAPS, rows))
        return tables

    def _drain(self) -> None:
        """Write what is spooled, the oldest first, until the database refuses."""
        if time.monotonic() < self._retry_at:
            return
        try:
            for batch in self.spool.batches():
                self._write(batch.table, batch.rows)
                self.spool.remove(batch)
        except StoreError as error:
            self._away(error)
            return
        if self._failures and self._stored.is_known:
            logger.info("the database takes rows again; everything spooled is written")
            self._failures, self._retry_at, self.error = 0, 0.0, None

    def _away(self, error: StoreError) -> None:
        if not self._failures:
            logger.warning("the database is away, rows go to %s: %s", self.spool.folder, error)
        self.error = str(error)
        self._retry_at = time.monotonic() + min(FIRST_RETRY * 2.0**self._failures, LONGEST_RETRY)
        self._failures += 1

    def _report(self, error: StoreFull) -> None:
        self.error = str(error)
        logger.error("%s", error)

    def _keep(self, table: str, rows: pl.DataFrame, outcome: _Outcome) -> None:
        try:
            self.spool.put(table, rows)
        except StoreFull as error:
            self._report(error)
            if table != MARKET_DATA:
                return
            self._counts.lost += rows.height
            outcome.lost += _lost_spans(rows, self._gaps.after)

    def _unreadable(self) -> list[Span]:
        lost, self.spool.lost = self.spool.lost, []
        return [
            Span(symbol, first, last + 1, "spool") for first, last in lost for symbol in self._stored.symbols
        ]

    def _write(self, table: str, rows: pl.DataFrame) -> None:
        """One table's rows; those that the database refuses are set aside, the others are written."""
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
            self._write(table, rows[:half])
            self._write(table, rows[half:])
        except StoreError:
            unknown = self._unregistered(rows)
            if unknown.is_empty():
                raise
            names = sorted(set(unknown["symbol"]))
            reason = f"not registered: {', '.join(names[:10])}; add them first (garch symbols add {names[0]})"
            self._set_aside(table, unknown, reason)
            self._write(table, rows.filter(~pl.col("symbol").is_in(names)))

    def _write_bars(self, rows: pl.DataFrame) -> None:
        first, replacing = split_rows(rows)
        is_rest = pl.col("channel") == "rest"
        streamed, asked = first.filter(~is_rest), first.filter(is_rest)
        new = self.database.insert_missing(MARKET_DATA, streamed) if streamed.height else 0
        filled = self.database.insert_missing(MARKET_DATA, asked) if asked.height else 0
        replaced = self.database.upsert(MARKET_DATA, replacing) if replacing.height else 0
        self._counts.written += new + filled + replaced
        self._counts.filled += filled
        minute_bars = rows.filter(pl.col("channel") == CHANNELS["b"]).height
        self._counts.duplicates += minute_bars - new

    def _unregistered(self, rows: pl.DataFrame) -> pl.DataFrame:
        known = self.database.read_table("symbols")["symbol"]
        return rows.filter(~pl.col("symbol").is_in(known.implode()))

    def _set_aside(self, table: str, rows: pl.DataFrame, reason: str) -> None:
        try:
            path = self.spool.set_aside(table, rows)
        except StoreFull as error:
            self._report(error)
            return
        self._counts.set_aside += rows.height
        logger.error("%d rows of %s are set aside in %s: %s", rows.height, table, path.name, reason)


def _lost_spans(rows: pl.DataFrame, after: Callable[[int], int]) -> list[Span]:
    """The spans that ``rows`` covered, symbol by symbol."""
    bars = rows.filter(pl.col("channel") != CHANNELS["d"])
    times = bars.group_by("symbol", maintain_order=True).agg(
        pl.col("timestamp").min().dt.timestamp("us").alias("first"),
        pl.col("timestamp").max().dt.timestamp("us").alias("last"),
    )
    return [Span(symbol, first, after(last), "spool") for symbol, first, last in times.iter_rows()]
