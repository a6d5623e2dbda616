"""Asks the REST interface for what the stream has not delivered, and notes what was asked.

Spans of all symbols are put together: closed ones that are near become one request, open ones that begin in the
same hour another. A request that fails stays pending.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, NamedTuple

from garch_platform.errors import StreamError
from garch_platform.stream.counts import Counts
from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.gaps import CORRECTION, Gaps, Span
from garch_platform.stream.history import BarHistory
from garch_platform.stream.rows import BarRow, instant, microseconds
from garch_platform.stream.writer import Writer

__all__ = ["GapFiller", "Horizon"]

logger = logging.getLogger(__name__)

HOUR: Final = 3_600_000_000
NEAR: Final = HOUR // 2
"""Two short requests cost more than the bars of half an hour."""
BEGINNING: Final = -(2**62)
LONGEST_PAUSE: Final = 60.0
FINAL_ATTEMPTS: Final = 2


class Horizon(NamedTuple):
    """Times, in microseconds since 1970, up to which the server has the bars of all symbols; null = unknown.

    Attributes:
        open: for spans that go on to the present.
        closed: for spans that ended.
    """

    open: int | None
    closed: int | None


NOTHING_KNOWN: Final = Horizon(None, None)


@dataclass
class _Request:
    """Spans that one question answers."""

    start: int | None
    end: int | None
    spans: list[Span]

    @property
    def symbols(self) -> list[str]:
        return sorted({span.symbol for span in self.spans})


class GapFiller:
    """Fills the gaps of a stream.

    Args:
        history: the REST interface.
        gaps: what is missing.
        writer: takes the bars.
        horizon: called in a thread before each round.
        counts: spans that had bars are counted.
        seconds: between two rounds while nothing is urgent.
        step: microseconds between two bars.
    """

    def __init__(
        self,
        history: BarHistory,
        gaps: Gaps,
        writer: Writer,
        *,
        horizon: Callable[[], Horizon],
        counts: Counts,
        seconds: float,
        step: int,
    ) -> None:
        self.endpoint: Endpoint = history.endpoint
        self.error: str | None = None
        """Why the last round was not answered."""
        self._history = history
        self._gaps = gaps
        self._writer = writer
        self._horizon = horizon
        self._counts = counts
        self._seconds = seconds
        self._step = step
        self._urgent = asyncio.Event()
        self._rounds = asyncio.Lock()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="stream-filler")

    def wake(self) -> None:
        """Ask now."""
        self._urgent.set()

    async def run(self) -> None:
        """Ask for ever: when woken, else every few seconds, later after failures."""
        failures = 0
        while True:
            pause = min(self._seconds * 2.0**failures, max(LONGEST_PAUSE, self._seconds))
            try:
                async with asyncio.timeout(pause):
                    await self._urgent.wait()
            except TimeoutError:
                pass
            self._urgent.clear()
            failures = 0 if await self.fill() else failures + 1

    async def fill(self, *, again: bool = False, attempts: int | None = None) -> bool:
        """One round; whether everything was answered. ``again`` asks answered open spans once more."""
        async with self._rounds:
            spans = self._gaps.take(again=again) if self.endpoint.has_history else []
            requests = _requests(spans)
            try:
                horizon = await self._known(requests)
                await self._closed([each for each in requests if each.end is not None], horizon, attempts)
                await self._open([each for each in requests if each.end is None], horizon, attempts)
            except StreamError as error:
                self.error = str(error)
                logger.warning("gaps stay pending: %s", error)
                return False
            finally:
                for span in spans:
                    self._gaps.failed(span)
            self.error = None
            return True

    async def finish(self, seconds: float) -> None:
        """The last round: everything up to now, within ``seconds``."""
        try:
            async with asyncio.timeout(seconds):
                await self.fill(again=True, attempts=FINAL_ATTEMPTS)
        except TimeoutError:
            logger.warning("gaps stay pending: %s did not answer in %g s", self._history.place, seconds)
        self._history.stopping.set()
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _known(self, requests: Sequence[_Request]) -> Horizon:
        if not requests:
            return NOTHING_KNOWN
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._horizon)

    async def _closed(self, requests: Sequence[_Request], horizon: Horizon, attempts: int | None) -> None:
        for request in requests:
            spans: dict[str, list[Span]] = {}
            for span in request.spans:
                spans.setdefault(span.symbol, []).append(span)
            found: Counter[Span] = Counter()
            first: dict[Span, int] = {}
            async for row in self._rows(request, attempts):
                inside = [span for span in spans.get(row.symbol, []) if _holds(span, row.timestamp)]
                for span in inside:
                    found[span] += 1
                    first.setdefault(span, row.timestamp)
                if inside:
                    await self._writer.take(row)
            for span in request.spans:
                if horizon.closed is not None:
                    until = min(span.end or 0, self._gaps.after(horizon.closed))
                    self._gaps.answered(span, until)
                    self._note(span, first.get(span), until, found[span])

    async def _open(self, requests: Sequence[_Request], horizon: Horizon, attempts: int | None) -> None:
        """Bars of different symbols are read at different moments: only the horizon of before holds for all."""
        found: Counter[str] = Counter()
        first: dict[str, int] = {}
        last: dict[str, int] = {}
        for request in requests:
            async for row in self._rows(request, attempts):
                await self._writer.take(row)
                found[row.symbol] += 1
                first.setdefault(row.symbol, row.timestamp)
                last[row.symbol] = max(row.timestamp, last.get(row.symbol, row.timestamp))
        for span in (span for request in requests for span in request.spans):
            newest = last.get(span.symbol)
            known = [] if horizon.open is None else [self._gaps.after(horizon.open)]
            if newest is not None:
                known.append(self._gaps.after(newest))
                self._gaps.had(span.symbol, newest)
            if known:
                self._gaps.answered(span, max(known))
                self._note(span, first.get(span.symbol), max(known), found[span.symbol])

    def _note(self, span: Span, first: int | None, end: int, bars: int) -> None:
        """Record it; not the minutes in which a symbol of the market did not trade: they are no gaps.

        Neither is a bar that is there and was looked at again.
        """
        if span.cause == CORRECTION:
            return
        start = first if span.start is None else span.start
        is_quiet_minute = not bars and span.cause == "hole" and not self.endpoint.is_recycler
        if start is not None and start < end and not is_quiet_minute:
            self._writer.record_gap(span, instant(start), instant(end), bars)
        self._counts.gaps += bars > 0

    async def _rows(self, request: _Request, attempts: int | None) -> AsyncIterator[BarRow]:
        """The bars of a request, page after page."""
        loop = asyncio.get_running_loop()
        pages = self._history.pages(request.symbols, request.start, request.end, attempts=attempts)
        while (page := await loop.run_in_executor(self._thread, next, pages, None)) is not None:
            now = microseconds(datetime.now(UTC))
            for row in (row for rows in page.values() for row in rows):
                if not self.endpoint.is_recycler and row.timestamp + self._step > now:
                    continue
                yield row


def _requests(spans: Iterable[Span]) -> list[_Request]:
    """Closed spans that are near in one request; open ones by the hour that they begin in."""
    requests: list[_Request] = []
    for span in sorted((span for span in spans if span.end is not None), key=_start):
        last = requests[-1] if requests else None
        if last is not None and _start(span) <= (last.end or 0) + NEAR:
            last.spans.append(span)
            last.end = max(last.end or 0, span.end or 0)
        else:
            requests.append(_Request(span.start, span.end, [span]))
    hours: dict[int | None, _Request] = {}
    for span in sorted((span for span in spans if span.end is None), key=_start):
        hour = None if span.start is None else span.start // HOUR
        hours.setdefault(hour, _Request(span.start, None, [])).spans.append(span)
    return [*requests, *hours.values()]


def _holds(span: Span, timestamp: int) -> bool:
    return (span.start is None or span.start <= timestamp) and (span.end is None or timestamp < span.end)


def _start(span: Span) -> int:
    return BEGINNING if span.start is None else span.start
