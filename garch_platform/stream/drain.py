"""From the spool into the database, the oldest batch first, in a thread of its own.

A database may be away, and it may hang: then this thread does, and nothing else.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from typing import Final, TypeVar

import polars as pl

from garch_platform.errors import StoreError
from garch_platform.stream.counts import Counts
from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.gaps import Span
from garch_platform.stream.live_database import LiveDatabase
from garch_platform.stream.resume import StoredBars
from garch_platform.stream.sink import Sink
from garch_platform.stream.spool import Spool
from garch_platform.stream.thread import DaemonThread

__all__ = ["Drain"]

logger = logging.getLogger(__name__)

FIRST_RETRY: Final = 0.5
LONGEST_RETRY: Final = 30.0
HANG_SECONDS: Final = 5.0
"""After which a database that does not answer is said to hang."""
CLOSE_SECONDS: Final = 15.0
"""That the database may take for a batch at the end; then the rest stays on disk."""
LAST_ROUNDS: Final = 2
POLL_SECONDS: Final = 0.25

T = TypeVar("T")


class Drain:
    """Lets the database take what is spooled.

    Args:
        database: with the tables ``market_data``, ``stream_gaps`` and ``symbols``.
        spool: is emptied.
        endpoint: that the rows come from.
        stored: where the stream is taken up again; read before the first batch is written.
        resumed: called in the loop once ``stored`` is known: symbol → its last stored bar.
        reopened: called in the loop with every span whose spooled bars could not be read.
        counts: are brought up to date.
    """

    def __init__(
        self,
        database: LiveDatabase,
        spool: Spool,
        endpoint: Endpoint,
        *,
        stored: StoredBars,
        resumed: Callable[[Mapping[str, int]], None],
        reopened: Callable[[Span], None],
        counts: Counts,
    ) -> None:
        self._spool = spool
        self._stored = stored
        self._resumed = resumed
        self._reopened = reopened
        self._sink = Sink(database, spool, endpoint, counts, self._report)
        self._thread = DaemonThread("stream-database")
        self._error: str | None = None
        self._stirred = asyncio.Event()
        self._stirred.set()
        self._has_looked = asyncio.Event()
        self._rounds = asyncio.Lock()
        self._asked_at: float | None = None
        self._failures = 0
        self._retry_at = 0.0
        self._is_abandoned = False

    @property
    def error(self) -> str | None:
        """Why the database does not take rows at present; null if it does."""
        silence = self.silence
        if silence > HANG_SECONDS and not self._is_abandoned:
            return f"the database has not answered for {silence:.0f} s; rows wait in {self._spool.folder}"
        return self._error

    @property
    def silence(self) -> float:
        """Seconds since the database was given the batch that it has not taken yet; 0 if there is none."""
        since = self._asked_at
        return 0.0 if since is None else time.monotonic() - since

    def stir(self) -> None:
        """Something was spooled."""
        self._stirred.set()

    async def first_look(self, seconds: float) -> None:
        """Wait until the database has said what is stored, or was found away; ``seconds`` at most."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._has_looked.wait()

    async def run(self) -> None:
        """Write what is spooled, for ever; later after each failure."""
        while True:
            pause = self._retry_at - time.monotonic() if self._failures else None
            if pause is None or pause > 0.0:
                with suppress(TimeoutError):
                    async with asyncio.timeout(pause):
                        await self._stirred.wait()
            self._stirred.clear()
            if time.monotonic() >= self._retry_at:
                await self._round()

    async def finish(self) -> None:
        """Try what is spooled once more, and end the thread.

        A database that does not answer is not waited for: what it has not taken is in the spool.
        """
        finishing = asyncio.create_task(self._last_rounds())
        while not finishing.done():
            await asyncio.wait([finishing], timeout=POLL_SECONDS)
            if self.silence > CLOSE_SECONDS:
                self._is_abandoned = True
                finishing.cancel()
                self._error = f"the database did not answer in {CLOSE_SECONDS:g} s"
                logger.error("%s; the rest waits in %s", self._error, self._spool.folder)
                self._thread.shutdown(wait=False)
                return
        finishing.result()
        self._thread.shutdown(wait=True)

    def write_through(self, table: str, rows: pl.DataFrame) -> bool:
        """From another thread: rows for which the spool has no room, after those in it; whether they are written.

        Waits for as long as the database answers.
        """
        if self._is_abandoned:
            return False
        writing = self._thread.submit(self._written, table, rows)
        while True:
            try:
                return writing.result(POLL_SECONDS)
            except TimeoutError:
                if self.silence > HANG_SECONDS or self._is_abandoned:
                    writing.cancel()
                    return False

    async def _last_rounds(self) -> None:
        for _ in range(LAST_ROUNDS):
            self._retry_at = 0.0
            await self._round()

    async def _round(self) -> None:
        async with self._rounds:
            if not self._stored.is_known:
                last = await self._call(self._look)
                if last is not None:
                    self._resumed(last)
                self._has_looked.set()
            for span in await self._call(self._emptied):
                self._reopened(span)

    async def _call(self, work: Callable[[], T]) -> T:
        """``work`` in the thread; said once if it takes long."""
        working = asyncio.get_running_loop().run_in_executor(self._thread, work)
        is_said = False
        while not working.done():
            await asyncio.wait([working], timeout=HANG_SECONDS / 2)
            if not is_said and (error := self.error) is not None and not working.done():
                is_said = True
                logger.warning("%s", error)
        return working.result()

    def _look(self) -> dict[str, int] | None:
        """In the thread: what is stored; null while the database is away."""
        try:
            return self._asked(self._stored.read)
        except StoreError as error:
            self._away(error)
            return None

    def _emptied(self) -> list[Span]:
        """In the thread: empty the spool; the spans of what in it could not be read."""
        self._empty()
        lost, self._spool.lost = self._spool.lost, []
        return [
            Span(symbol, first, last + 1, "spool") for first, last in lost for symbol in self._stored.symbols
        ]

    def _empty(self) -> None:
        """Write what is spooled, until the database refuses.

        Not before it is known what was stored: rows of this process would pass for those of an earlier one.
        """
        if time.monotonic() < self._retry_at or not self._stored.is_known:
            return
        try:
            for batch in self._spool.batches():
                if self._is_abandoned:
                    return
                self._asked(partial(self._sink.write, batch.table, batch.rows))
                self._spool.remove(batch)
        except StoreError as error:
            self._away(error)
            return
        if self._failures:
            logger.info("the database takes rows again; everything spooled is written")
            self._failures, self._retry_at, self._error = 0, 0.0, None

    def _written(self, table: str, rows: pl.DataFrame) -> bool:
        self._empty()
        if self._failures or not self._stored.is_known or self._spool.files:
            return False
        try:
            self._asked(partial(self._sink.write, table, rows))
        except StoreError as error:
            self._away(error)
            return False
        return True

    def _asked(self, work: Callable[[], T]) -> T:
        self._asked_at = time.monotonic()
        try:
            return work()
        finally:
            self._asked_at = None

    def _away(self, error: StoreError) -> None:
        if not self._failures:
            logger.warning("the database is away, rows wait in %s: %s", self._spool.folder, error)
        self._error = str(error)
        self._retry_at = time.monotonic() + min(FIRST_RETRY * 2.0**self._failures, LONGEST_RETRY)
        self._failures += 1

    def _report(self, error: StoreError) -> None:
        self._error = str(error)
        logger.error("%s", error)
