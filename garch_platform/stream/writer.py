"""From the stream into ``market_data``: in batches, in a thread, by way of the disk.

A batch is first put into the spool as a whole, then the database takes what is spooled, the oldest first.
So a batch is there or not, whenever the process is killed, and while the database is away the batches
wait in their order. What is written twice is there once: a batch that failed half-way is written again.
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
from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.gaps import Gaps, Span
from garch_platform.stream.journal import GapJournal
from garch_platform.stream.live_database import LiveDatabase
from garch_platform.stream.resume import StoredBars
from garch_platform.stream.rows import CHANNELS, MARKET_DATA, BarRow, rows_frame
from garch_platform.stream.sink import Sink
from garch_platform.stream.spool import Spool
from garch_platform.stream.thread import DaemonThread

__all__ = ["Writer"]

logger = logging.getLogger(__name__)

Proxies = Callable[[], Mapping[str, list[tuple[int, int]]]]

STREAM_GAPS: Final = "stream_gaps"
GAP_KEY: Final = ("symbol", "timeframe", "feed", "data_source", "gap_start")
BATCHES_IN_MEMORY: Final = 8
FIRST_RETRY: Final = 0.5
LONGEST_RETRY: Final = 30.0
CLOSE_SECONDS: Final = 15.0
"""That the database may take for a batch at the end; then the rest stays on disk."""
POLL_SECONDS: Final = 0.25


@dataclass(frozen=True, eq=False)
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
        spool: takes every batch before ``database`` does.
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
        self._thread = DaemonThread("stream-writer")
        self._sink = Sink(database, spool, endpoint, counts, self._report)
        self._in_flight: list[_Batch] = []
        self._is_abandoned = False
        self._is_ending = False
        self._storing_since: float | None = None
        self._known_proxies: Mapping[str, list[tuple[int, int]]] = {}
        self._flushing = asyncio.Lock()
        self._is_closing = False
        self._failures = 0
        self._retry_at = 0.0

    @property
    def waiting(self) -> int:
        """Rows in memory."""
        return len(self._rows)

    async def take(self, row: BarRow) -> None:
        """Take a bar, when there is room for it; it is written within ``flush_seconds``.

        Raises:
            StreamError: the client ends and the database hangs: there will be no room.
        """
        while not self._room.is_set():
            if self._is_ending and self._is_stuck():
                raise StreamError("the database does not answer, and no bars fit into memory any more")
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
                self._in_flight.append(batch)
                outcome = await asyncio.get_running_loop().run_in_executor(self._thread, self._store, batch)
                if outcome.resumed is not None:
                    self._resumed(outcome.resumed)
                for span in outcome.lost:
                    self._gaps.reopen(span)
                if len(self._rows) < self.flush_rows:
                    return

    def prepare_to_close(self) -> None:
        """The client ends: what is still taken is the last that it asked for."""
        self._is_ending = True

    async def close(self) -> None:
        """Write the rest, try what is spooled once more, and end the thread.

        A database that does not answer is not waited for: what it has not taken is in the spool then.
        """
        self._is_closing = True
        self._full.set()
        flushing = asyncio.create_task(self._flush_all())
        while not flushing.done():
            await asyncio.wait([flushing], timeout=POLL_SECONDS)
            if self._is_stuck():
                flushing.cancel()
                self._spool_rest()
                return
        flushing.result()
        self._thread.shutdown(wait=True)
        self._save_journal(self._gaps.snapshot())

    async def _flush_all(self) -> None:
        for _ in range(2):
            self._retry_at = 0.0
            await self.flush()

    def _is_stuck(self) -> bool:
        since = self._storing_since
        return since is not None and time.monotonic() - since > CLOSE_SECONDS

    def _spool_rest(self) -> None:
        """In the loop: put what the thread still holds, and what waits for it, on disk."""
        self.error = f"the database did not answer in {CLOSE_SECONDS:g} s"
        logger.error("%s; the rest waits in %s", self.error, self.spool.folder)
        outcome = _Outcome()
        self._is_abandoned = True
        for batch in [*self._in_flight, self._cut()]:
            self._make_durable(batch, self._known_proxies, outcome)
        for span in outcome.lost:
            self._gaps.reopen(span)
        self._save_journal(self._gaps.snapshot())
        self._thread.shutdown(wait=False)

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
        """In the thread: make a batch durable, then let the database take it; a store may be away."""
        self._storing_since = time.monotonic()
        try:
            return self._stored_batch(batch)
        finally:
            self._storing_since = None

    def _stored_batch(self, batch: _Batch) -> _Outcome:
        outcome = _Outcome()
        if batch.rows:
            self._known_proxies = self._proxies()
        self._make_durable(batch, self._known_proxies, outcome)
        self._in_flight.remove(batch)
        try:
            if not self._stored.is_known and time.monotonic() >= self._retry_at:
                outcome.resumed = self._stored.read()
        except StoreError as error:
            self._away(error)
        self._drain()
        outcome.lost += self._unreadable()
        return outcome

    def _make_durable(
        self, batch: _Batch, proxies: Mapping[str, list[tuple[int, int]]], outcome: _Outcome
    ) -> None:
        """Spans that are missing, then rows that may lie behind them."""
        self._save_journal(batch.missing)
        if batch.rows:
            self._keep(MARKET_DATA, rows_frame(batch.rows, self.endpoint, proxies), outcome)
        if batch.gaps:
            rows = pl.DataFrame(batch.gaps).unique(GAP_KEY, keep="last", maintain_order=True)
            self._keep(STREAM_GAPS, rows, outcome)

    def _save_journal(self, spans: Sequence[Span]) -> None:
        try:
            self._journal.save(spans)
        except StoreError as error:
            self._report(error)

    def _drain(self) -> None:
        """Write what is spooled, the oldest first, until the database refuses.

        Not before it is known what was stored: rows of this process would pass for those of an earlier one.
        """
        if time.monotonic() < self._retry_at or not self._stored.is_known:
            return
        try:
            for batch in self.spool.batches():
                if self._is_abandoned:
                    return
                self._sink.write(batch.table, batch.rows)
                self.spool.remove(batch)
        except StoreError as error:
            self._away(error)
            return
        if self._failures:
            logger.info("the database takes rows again; everything spooled is written")
            self._failures, self._retry_at, self.error = 0, 0.0, None

    def _away(self, error: StoreError) -> None:
        if not self._failures:
            logger.warning("the database is away, rows wait in %s: %s", self.spool.folder, error)
        self.error = str(error)
        self._retry_at = time.monotonic() + min(FIRST_RETRY * 2.0**self._failures, LONGEST_RETRY)
        self._failures += 1

    def _report(self, error: StoreError) -> None:
        self.error = str(error)
        logger.error("%s", error)

    def _keep(self, table: str, rows: pl.DataFrame, outcome: _Outcome) -> None:
        """Put a batch behind the others on disk; where there is no room, straight into the database."""
        try:
            self.spool.put(table, rows)
        except StoreError as error:
            self._report(error)
            self._drain()
            if not self.spool.files and self._written_directly(table, rows):
                return
            if table == MARKET_DATA:
                self._counts.lost += rows.height
                outcome.lost += _lost_spans(rows, self._gaps.after)

    def _written_directly(self, table: str, rows: pl.DataFrame) -> bool:
        if self._failures or not self._stored.is_known:
            return False
        try:
            self._sink.write(table, rows)
        except StoreError as error:
            self._away(error)
            return False
        return True

    def _unreadable(self) -> list[Span]:
        lost, self.spool.lost = self.spool.lost, []
        return [
            Span(symbol, first, last + 1, "spool") for first, last in lost for symbol in self._stored.symbols
        ]


def _lost_spans(rows: pl.DataFrame, after: Callable[[int], int]) -> list[Span]:
    """The spans that ``rows`` covered, symbol by symbol."""
    bars = rows.filter(pl.col("channel") != CHANNELS["d"])
    times = bars.group_by("symbol", maintain_order=True).agg(
        pl.col("timestamp").min().dt.timestamp("us").alias("first"),
        pl.col("timestamp").max().dt.timestamp("us").alias("last"),
    )
    return [Span(symbol, first, after(last), "spool") for symbol, first, last in times.iter_rows()]
