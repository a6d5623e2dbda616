"""From the stream into ``market_data``: in batches, by way of the disk.

A batch is put into the spool as a whole, in a thread; in another one the database takes what is spooled, the
oldest first (`garch_platform.stream.drain`). So a batch is there or not, whenever the process is killed, and
while the database is away or hangs the batches wait in their order. What is written twice is there once: a
batch that failed half-way is written again.

Before a batch of a replay is spooled the recycler is asked which bars were another symbol's. Where the run
that sent them does not answer any more, all of them count as such: it took that knowledge with it, so waiting
would not bring it back, and no bar of another symbol may pass for a symbol's own.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from garch_platform.errors import StoreError, StreamError
from garch_platform.stream.counts import Counts
from garch_platform.stream.drain import Drain
from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.gaps import Gaps, Span
from garch_platform.stream.journal import GapJournal
from garch_platform.stream.live_database import LiveDatabase
from garch_platform.stream.resume import StoredBars
from garch_platform.stream.rows import CHANNELS, MARKET_DATA, BarRow, Proxied, rows_frame
from garch_platform.stream.spool import Spool
from garch_platform.stream.tasks import cancelled
from garch_platform.stream.thread import DaemonThread

__all__ = ["Writer"]

logger = logging.getLogger(__name__)

STREAM_GAPS: Final = "stream_gaps"
GAP_KEY: Final = ("symbol", "timeframe", "feed", "data_source", "gap_start")
BATCHES_IN_MEMORY: Final = 8
FIRST_LOOK_SECONDS: Final = 5.0
"""That the first connection waits for the database."""
CLOSE_SECONDS: Final = 15.0
"""That the disk may take for a batch at the end."""
POLL_SECONDS: Final = 0.25


@dataclass(frozen=True, eq=False)
class _Batch:
    rows: list[BarRow] = field(default_factory=list)
    gaps: list[dict[str, Any]] = field(default_factory=list)
    missing: list[Span] = field(default_factory=list)


class Writer:
    """Takes bars in the event loop, and sees that they come into the database.

    Args:
        database: with the tables ``market_data``, ``stream_gaps`` and ``symbols``.
        spool: takes every batch before ``database`` does.
        endpoint: that the rows come from.
        gaps: what is missing; kept in ``journal`` before later bars are stored.
        stored: where the stream is taken up again.
        proxied: asks a recycler which bars were another symbol's; null in mode alpaca.
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
        proxied: Callable[[], Proxied | None] | None,
        resumed: Callable[[Mapping[str, int]], None],
        counts: Counts,
        flush_seconds: float,
        flush_rows: int,
    ) -> None:
        self.spool = spool
        self.endpoint = endpoint
        self.flush_seconds = flush_seconds
        self.flush_rows = flush_rows
        self._gaps = gaps
        self._journal = journal
        self._proxied = proxied
        self._counts = counts
        self._drain = Drain(
            database,
            spool,
            endpoint,
            stored=stored,
            resumed=resumed,
            reopened=gaps.reopen,
            counts=counts,
        )
        self._error: str | None = None
        self._rows: list[BarRow] = []
        self._gap_rows: list[dict[str, Any]] = []
        self._before: list[Span] = []
        self._full = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._thread = DaemonThread("stream-spool")
        self._is_ending = False
        self._storing_since: float | None = None
        self._flushing = asyncio.Lock()

    @property
    def error(self) -> str | None:
        """Why disk or database do not take rows at present; null if they do."""
        return self._error or self._drain.error

    async def take(self, row: BarRow) -> None:
        """Take a bar, when there is room for it; it is on disk within ``flush_seconds``.

        Raises:
            StreamError: the client ends and the disk hangs: there will be no room.
        """
        while not self._room.is_set():
            if self._is_ending and self._is_stuck():
                raise StreamError(f"{self.spool.folder} takes no rows, and no bars fit into memory any more")
            with suppress(TimeoutError):
                async with asyncio.timeout(POLL_SECONDS):
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
        """Write batches for ever, also while `close` writes the last."""
        draining = asyncio.create_task(self._drain.run())
        try:
            while True:
                with suppress(TimeoutError):
                    async with asyncio.timeout(self.flush_seconds):
                        await self._full.wait()
                if draining.done():
                    draining.result()
                await self.flush()
        finally:
            await cancelled(draining)

    async def ready(self) -> None:
        """Wait until it is known where the stream goes on; not for long, the database may be away."""
        await self._drain.first_look(FIRST_LOOK_SECONDS)

    async def flush(self) -> None:
        """Put everything taken so far on disk, for the database."""
        async with self._flushing:
            while True:
                batch = self._cut()
                if not batch.rows and not batch.gaps:
                    return
                lost = await asyncio.get_running_loop().run_in_executor(self._thread, self._store, batch)
                for span in lost:
                    self._gaps.reopen(span)
                self._drain.stir()
                if len(self._rows) < self.flush_rows:
                    return

    def prepare_to_close(self) -> None:
        """The client ends: what is still taken is the last that it asked for."""
        self._is_ending = True

    async def close(self) -> None:
        """Put the rest on disk, let the database take what it can, and end the threads.

        Neither is waited for if it hangs. Rows that are on disk come into the database at the next run; those
        that are not will be asked for again.
        """
        flushing = asyncio.create_task(self.flush())
        while not flushing.done():
            await asyncio.wait([flushing], timeout=POLL_SECONDS)
            if self._is_stuck():
                flushing.cancel()
                self._error = f"{self.spool.folder} took no rows in {CLOSE_SECONDS:g} s"
                logger.error("%s; they will be asked for again", self._error)
                self._thread.shutdown(wait=False)
                return
        flushing.result()
        self._thread.shutdown(wait=True)
        await self._drain.finish()
        self._save_journal(self._gaps.snapshot())

    def _is_stuck(self) -> bool:
        since = self._storing_since
        return since is not None and time.monotonic() - since > CLOSE_SECONDS

    def _cut(self) -> _Batch:
        rows, self._rows = self._rows, []
        gaps, self._gap_rows = self._gap_rows, []
        self._full.clear()
        self._room.set()
        now = self._gaps.snapshot()
        missing, self._before = [*self._before, *now], now
        return _Batch(rows, gaps, missing)

    def _store(self, batch: _Batch) -> list[Span]:
        """In the thread: make a batch durable; the spans of rows for which there was no room."""
        self._storing_since = time.monotonic()
        try:
            return self._stored(batch)
        finally:
            self._storing_since = None

    def _stored(self, batch: _Batch) -> list[Span]:
        """Spans that are missing, then rows that may lie behind them."""
        self._error = None
        self._save_journal(batch.missing)
        lost: list[Span] = []
        if batch.rows:
            lost = self._keep(MARKET_DATA, self._frame(batch.rows))
        if batch.gaps:
            rows = pl.DataFrame(batch.gaps).unique(GAP_KEY, keep="last", maintain_order=True)
            self._keep(STREAM_GAPS, rows)
        return lost

    def _frame(self, rows: Sequence[BarRow]) -> pl.DataFrame:
        """The rows of ``market_data``; the recycler is asked now, when it has sent them all."""
        if self._proxied is None:
            return rows_frame(rows, self.endpoint, None)
        proxied = self._proxied()
        unknown = sum(proxied is None or row.run != proxied.run for row in rows)
        if unknown:
            logger.warning(
                "the recycler that sent them cannot be asked any more whose bars %d of %d rows are: "
                "stored as proxied",
                unknown,
                len(rows),
            )
        return rows_frame(rows, self.endpoint, proxied)

    def _save_journal(self, spans: Sequence[Span]) -> None:
        try:
            self._journal.save(spans)
        except StoreError as error:
            self._report(error)

    def _report(self, error: StoreError) -> None:
        self._error = str(error)
        logger.error("%s", error)

    def _keep(self, table: str, rows: pl.DataFrame) -> list[Span]:
        """Put a batch behind the others on disk; where there is no room, straight into the database."""
        try:
            self.spool.put(table, rows)
        except StoreError as error:
            self._report(error)
            if not self._drain.write_through(table, rows) and table == MARKET_DATA:
                self._counts.lost += rows.height
                return _lost_spans(rows, self._gaps.after)
        return []


def _lost_spans(rows: pl.DataFrame, after: Callable[[int], int]) -> list[Span]:
    """The spans that ``rows`` covered, symbol by symbol."""
    bars = rows.filter(pl.col("channel") != CHANNELS["d"])
    times = bars.group_by("symbol", maintain_order=True).agg(
        pl.col("timestamp").min().dt.timestamp("us").alias("first"),
        pl.col("timestamp").max().dt.timestamp("us").alias("last"),
    )
    return [Span(symbol, first, after(last), "spool") for symbol, first, last in times.iter_rows()]
