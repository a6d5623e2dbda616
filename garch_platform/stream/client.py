"""The stream client: one connection that is kept, its gaps filled, its bars written."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from garch_platform.errors import StoreError, StreamError
from garch_platform.stream.connection import KeptConnection
from garch_platform.stream.counts import Counts, Latencies, StreamSummary
from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.feed import BarFeed
from garch_platform.stream.filler import GapFiller, Horizon
from garch_platform.stream.gaps import Gaps
from garch_platform.stream.history import FOR_EVER, BarHistory, ReplayState, stamp_of
from garch_platform.stream.hours import MarketHours
from garch_platform.stream.journal import GapJournal
from garch_platform.stream.live_database import LiveDatabase
from garch_platform.stream.resume import StoredBars
from garch_platform.stream.rows import CHANNELS, bar_row, instant, microseconds
from garch_platform.stream.spool import Spool
from garch_platform.stream.status import Metrics, StreamStatus, only_client, write_status
from garch_platform.stream.tasks import cancelled
from garch_platform.stream.writer import Writer

__all__ = ["StreamClient", "StreamOptions"]

logger = logging.getLogger(__name__)

CONNECTION_LIMIT_SECONDS: Final = 60.0
"""Before another try after 406: the account's connection belongs to another client."""
STATUS_SECONDS: Final = 2.0
FINAL_FILL_SECONDS: Final = 30.0
FILL_SECONDS: Final = {"alpaca": 300.0, "recycler": 1.0}
"""Between two rounds of asking for holes; a quiet symbol of a real market has many."""
REST_LAG: Final = 60_000_000
"""Microseconds after its end at which Alpaca's REST interface surely has a bar."""
JOURNAL_FILE: Final = "stream_gaps.json"


@dataclass(frozen=True)
class StreamOptions:
    """How a client works; see ``config/base.yaml`` for the meaning of the settings.

    Attributes:
        history_days: how far back a gap is filled in mode alpaca, and for new symbols of a live replay.
        requests_per_minute: of the REST interface in mode alpaca.
        connection_limit_seconds: before another try after error 406.
    """

    flush_seconds: float
    flush_rows: int
    mute_seconds: float
    health_seconds: float
    spool_megabytes: float
    metrics_port: int | None
    history_days: int
    attempts: int
    page_limit: int
    symbols_per_request: int
    requests_per_minute: int
    connection_limit_seconds: float = CONNECTION_LIMIT_SECONDS


class StreamClient:
    """Follows the bars of ``symbols`` and keeps ``market_data`` complete. One run a client.

    Args:
        endpoint: the server.
        symbols: registered symbols.
        database: with the tables ``market_data``, ``stream_gaps`` and ``symbols``.
        folder: the workspace: holds spool, journal and status.
        hours: of the market.
        options: see `StreamOptions`.

    Raises:
        StreamError: there are no symbols.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        symbols: Sequence[str],
        database: LiveDatabase,
        folder: Path,
        *,
        hours: MarketHours,
        options: StreamOptions,
    ) -> None:
        if not symbols:
            raise StreamError(
                "no symbols to follow; register some (garch symbols add AAPL) or name them in websocket.symbols"
            )
        self.endpoint = endpoint
        self.symbols = list(dict.fromkeys(symbols))
        self.folder = folder
        self.options = options
        self.counts = Counts()
        self.latencies = Latencies()
        self.spool = Spool(folder / "spool", megabytes=options.spool_megabytes)
        self._database = database
        self._hours = hours
        self._step = endpoint.step // timedelta(microseconds=1)
        self._replay = ReplayState(endpoint) if endpoint.is_recycler else None
        is_live_replay = endpoint.is_recycler and not endpoint.is_historical
        self._gaps = Gaps(
            self.symbols,
            step=self._step,
            is_expected=None if is_live_replay else hours.has_bars,
            may_step_back=endpoint.is_historical,
            may_be_corrected=endpoint.is_recycler,
        )
        self._first: dict[str, int] = {}
        self._peak = 0
        self._started = datetime.now(UTC)
        self._error: str | None = None
        self._is_stopped = False
        self._changed = asyncio.Event()
        self._assemble()

    async def run(
        self,
        stop: asyncio.Event | None = None,
        *,
        until: datetime | None = None,
        until_replay_ends: bool = False,
    ) -> StreamSummary:
        """Follow the stream until told to stop; then fill the last gap, write the rest and return.

        Args:
            stop: set it to end the run.
            until: end at this moment.
            until_replay_ends: end when the recycler has sent its last bar.

        Raises:
            StreamError: another client of the workspace runs, or the server refused for good (402, 405, 409,
                410); what was received is written.
        """
        with ExitStack() as resources:
            resources.enter_context(only_client(self.folder))
            port = self.options.metrics_port
            metrics = None if port is None else resources.enter_context(Metrics(port))
            self.spool.recall()
            self._stored.look_at(self.spool)
            if not self.endpoint.is_historical:
                self._gaps.restore(self._journal.load())
            work: list[Coroutine[Any, Any, object]] = [self._connection.keep(), self._filler.run()]
            if stop is not None:
                work.append(stop.wait())
            if until is not None:
                work.append(asyncio.sleep(max(0.0, (until - datetime.now(UTC)).total_seconds())))
            if until_replay_ends:
                work.append(self._connection.replay_ended())
            writing = asyncio.create_task(self._writer.run())
            tasks = [asyncio.ensure_future(each) for each in [*work, self._report_for_ever(metrics)]]
            failure: BaseException | None = None
            try:
                done, _ = await asyncio.wait([writing, *tasks], return_when=asyncio.FIRST_COMPLETED)
                failure = next((error for task in done if (error := task.exception()) is not None), None)
            except asyncio.CancelledError as cancellation:
                failure = cancellation
            self._is_stopped = stop is not None and stop.is_set()
            await self._end(tasks, failure, metrics)
            await cancelled(writing)
        if failure is not None:
            raise failure
        return self.summary()

    def summary(self) -> StreamSummary:
        """What was delivered so far."""
        timely, last = self.latencies, self._gaps.last
        return StreamSummary(
            mode=self.endpoint.mode,
            server=self.endpoint.stream_url,
            started_at=self._started,
            ended_at=datetime.now(UTC),
            symbols=self.symbols,
            counts=self.counts,
            bars=self.counts.bars,
            daily_bars=self.counts.daily_bars,
            connections=self._connection.count,
            pending_gaps=self._gaps.pending,
            stopped=self._is_stopped,
            spooled_files=len(self.spool.files),
            latency_p50_ms=timely.quantile(0.5),
            latency_p99_ms=timely.quantile(0.99),
            latency_max_ms=timely.largest,
            latencies=timely.samples,
            first_bar={symbol: instant(moment) for symbol, moment in sorted(self._first.items())},
            last_bar={symbol: instant(moment) for symbol, moment in sorted(last.items())},
            error=self._error,
        )

    def status(self, *, is_running: bool = True) -> StreamStatus:
        """Where it stands."""
        now, newest = datetime.now(UTC), self._gaps.newest
        lag = None if newest is None else (now - instant(newest + self._step)).total_seconds()
        return StreamStatus(
            pid=os.getpid(),
            is_running=is_running,
            mode=self.endpoint.mode,
            server=self.endpoint.stream_url,
            started_at=self._started,
            written_at=now,
            connected=self._connection.is_connected,
            subscribed=self._feed.subscribed,
            last_bar={symbol: instant(moment) for symbol, moment in sorted(self._gaps.last.items())},
            lag_seconds=lag,
            pending_gaps=self._gaps.pending,
            spool_files=len(self.spool.files),
            spool_bytes=self.spool.bytes,
            counts=self.counts,
            error=self._error or self._connection.error or self._writer.error or self._filler.error,
        )

    def _assemble(self) -> None:
        """The parts, each given the others that it needs."""
        options = self.options
        self._journal = GapJournal(self.folder / JOURNAL_FILE, self.endpoint.name)
        self._stored = StoredBars(self._database, self.endpoint, self.symbols, self._step)
        self._writer = Writer(
            self._database,
            self.spool,
            self.endpoint,
            gaps=self._gaps,
            journal=self._journal,
            stored=self._stored,
            proxied=self._replay.proxied if self._replay else None,
            resumed=self._resumed,
            counts=self.counts,
            flush_seconds=options.flush_seconds,
            flush_rows=options.flush_rows,
        )
        history = BarHistory(
            self.endpoint,
            attempts=options.attempts,
            page_limit=options.page_limit,
            symbols_per_request=options.symbols_per_request,
            requests_per_minute=None if self.endpoint.is_recycler else options.requests_per_minute,
        )
        self._filler = GapFiller(
            history,
            self._gaps,
            self._writer,
            horizon=self._horizon,
            counts=self.counts,
            seconds=FILL_SECONDS[self.endpoint.mode],
            step=self._step,
        )
        self._feed = BarFeed(self.endpoint, self.symbols, self._received)
        self._connection = KeptConnection(
            self._feed,
            self._gaps,
            self.counts,
            replay=self._replay,
            hours=self._hours,
            mute_seconds=options.mute_seconds,
            connection_limit_seconds=options.connection_limit_seconds,
            history=timedelta(days=options.history_days),
            before_first=self._writer.ready,
            connected=self._now_connected,
            is_ahead=self._is_ahead,
        )

    async def _end(
        self, tasks: Sequence[asyncio.Future[Any]], failure: BaseException | None, metrics: Metrics | None
    ) -> None:
        was_connected = self._connection.is_connected
        self._writer.prepare_to_close()
        for task in tasks:
            await cancelled(task)
        await self._connection.close()
        self._gaps.interrupted("stop")
        if self._connection.count:
            await self._filler.finish(FINAL_FILL_SECONDS)
        await self._writer.close()
        if failure is not None:
            self._error = str(failure) or type(failure).__name__
        elif not was_connected and not (self._connection.has_ended and self._filler.error is None):
            self._error = self._connection.error or f"{self.endpoint.stream_url} was not reached"
        self._report(metrics, is_running=False)
        logger.info("the stream client ended: %s", self.counts)

    def _resumed(self, last: Mapping[str, int]) -> None:
        """The writer has read what is stored."""
        if not self.endpoint.is_recycler:
            floor = microseconds(datetime.now(UTC) - timedelta(days=self.options.history_days))
            last = {symbol: max(moment, floor) for symbol, moment in last.items()}
        latest = self._connection.latest
        if latest is not None:
            last = {symbol: moment for symbol, moment in last.items() if moment <= latest}
        self._gaps.resume(last, first=self._connection.first_of_new)
        self._filler.wake()

    def _horizon(self) -> Horizon:
        """What the REST interface has by now.

        Of a replay in its own times, all after the first pass, and what was sent before a step back.
        """
        if self._replay is None:
            known = microseconds(datetime.now(UTC)) - self._step - REST_LAG
            return Horizon(known, known)
        status = self._replay.status()
        stamp = stamp_of(status)
        if stamp is None or not self.endpoint.is_historical:
            return Horizon(stamp, stamp)
        has_all = status is not None and (status.get("pass") or 1) > 1
        return Horizon(stamp, FOR_EVER if has_all else max(stamp, self._peak))

    def _is_ahead(self, newest: int | None) -> bool:
        """Whether the server has a later bar of one of the symbols."""
        start = None if newest is None else self._gaps.after(newest)
        probe = BarHistory(
            self.endpoint, attempts=1, page_limit=1, symbols_per_request=self.options.symbols_per_request
        )
        return any(rows for page in probe.pages(self.symbols, start, None) for rows in page.values())

    def _now_connected(self) -> None:
        self._peak = 0
        self._filler.wake()
        self._changed.set()

    async def _received(self, message: Mapping[str, Any]) -> None:
        now = time.time_ns() // 1000
        kind, symbol = message["T"], message["S"]
        row = bar_row(CHANNELS[kind], symbol, message, now, self._feed.run)
        if kind != "d":
            self._peak = max(self._peak, row.timestamp)
        with self._connection.receiving():
            await self._writer.take(row)
        self.counts.received += 1
        if kind == "d":
            self.counts.daily_bars += 1
        else:
            self.counts.bars += 1
            self._gaps.seen(symbol, row.timestamp)
            first = self._first.get(symbol)
            if first is None or row.timestamp < first:
                self._first[symbol] = row.timestamp
            if kind == "b" and self._connection.is_timely:
                self.latencies.add(now, (now - row.timestamp - self._step) / 1000)

    async def _report_for_ever(self, metrics: Metrics | None) -> None:
        healthy_at = asyncio.get_running_loop().time()
        while True:
            status = self._report(metrics)
            now = asyncio.get_running_loop().time()
            if now - healthy_at >= self.options.health_seconds:
                healthy_at = now
                logger.info("%s", health_line(status))
            self._changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(min(STATUS_SECONDS, self.options.health_seconds)):
                    await self._changed.wait()

    def _report(self, metrics: Metrics | None, *, is_running: bool = True) -> StreamStatus:
        status = self.status(is_running=is_running)
        if metrics is not None:
            metrics.show(status)
        try:
            write_status(self.folder, status)
        except StoreError as error:
            logger.error("%s", error)
        return status


def health_line(status: StreamStatus) -> str:
    """One line of a log that says how a client does."""
    lag = "no bar yet" if status.lag_seconds is None else f"lag {status.lag_seconds:,.1f} s"
    counts = status.counts
    parts = [
        f"{status.mode} {'connected' if status.connected else 'NOT connected'}",
        f"{len(status.subscribed)} symbols",
        lag,
        f"{counts.received:,} received",
        f"{counts.written:,} written",
        f"{counts.filled:,} filled",
        f"{status.pending_gaps} gaps pending",
        f"{counts.reconnects} reconnects",
        f"spool {status.spool_files} files {status.spool_bytes / 2**20:.1f} MB",
    ]
    return "stream: " + ", ".join(parts + ([status.error] if status.error else []))
