"""What was sent so far: a bounded record of moments, from which the bars are read again for REST."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from threading import Lock
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from garch_platform.bars import UTC_TIMESTAMP
from garch_platform.recycler.period import View
from garch_platform.recycler.replay import REPLAYED
from garch_platform.recycler.tape import Tape
from garch_platform.recycler.wire import rfc3339

__all__ = ["EmittedTicks", "ProxySpans"]

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND: Final = timedelta(microseconds=1)
BARS_AT_ONCE: Final = 100_000
"""Ten pages of REST, which take them from memory when they were read for the first: about 10 MB."""
GROUPS_KEPT: Final = 2
JUST_AFTER: Final = timedelta(seconds=1)

Integers = NDArray[np.int64]


class EmittedTicks:
    """Stamp and source time of the last ticks, and the view of the lake that each came from.

    Args:
        limit: ticks that are remembered; 24 bytes each. Older ones are forgotten.
    """

    def __init__(self, limit: int = 200_000) -> None:
        self.limit = limit
        self.count = 0
        self._stamps = np.zeros(limit, dtype=np.int64)
        self._sources = np.zeros(limit, dtype=np.int64)
        self._views: deque[tuple[int, View]] = deque()
        self._kept: deque[_Group] = deque(maxlen=GROUPS_KEPT)
        self._lock = Lock()

    def append(self, stamp: datetime, source: datetime, view: View) -> None:
        """Remember a tick that is being sent."""
        with self._lock:
            place = self.count % self.limit
            self._stamps[place] = (stamp - EPOCH) // MICROSECOND
            self._sources[place] = (source - EPOCH) // MICROSECOND
            if not self._views or self._views[-1][1] is not view:
                self._views.append((self.count, view))
            self.count += 1
            while len(self._views) > 1 and self._views[1][0] <= self.count - self.limit:
                self._views.popleft()

    def bars(
        self,
        tape: Tape,
        symbols: Sequence[str],
        start: datetime | None,
        end: datetime | None,
        *,
        since: str = "",
    ) -> Iterator[pl.DataFrame]:
        """What was sent of ``symbols`` by now, as `garch_platform.recycler.replay.Replay.replayed` gives it.

        A stamp that was sent more than once (historical clock, later passes) gives the last one's bar. The
        symbols are read in groups that do not depend on ``since``, and the last groups are kept, so that the
        next page of the same query finds its bars in memory.

        Args:
            tape: that the ticks came from; bars are read again, at the version of the lake they came from.
            symbols: that are asked for.
            start: first stamp; None is the oldest that is remembered.
            end: last stamp, inclusive; None is the newest.
            since: symbols before it may be left out.
        """
        names = sorted(set(symbols))
        numbers, ticks = self._between(start, end)
        at_once = max(1, BARS_AT_ONCE // max(1, len(numbers)))
        for first in range(0, len(names), at_once):
            group = names[first : first + at_once]
            if group[-1] >= since and numbers.size:
                yield self._group(tape, group, numbers, ticks)

    def _group(self, tape: Tape, symbols: list[str], numbers: Integers, ticks: list[_Ticks]) -> pl.DataFrame:
        for kept in list(self._kept):
            if kept.symbols == symbols and np.array_equal(kept.numbers, numbers):
                return kept.frame
        frame = _read(tape, symbols, ticks)
        self._kept.append(_Group(symbols, numbers, frame))
        return frame

    def _between(self, start: datetime | None, end: datetime | None) -> tuple[Integers, list[_Ticks]]:
        """Numbers of the ticks from ``start`` to ``end``, and the ticks by the view that they came from."""
        with self._lock:
            numbers = np.arange(max(0, self.count - self.limit), self.count)
            stamps = self._stamps[numbers % self.limit]
            sources = self._sources[numbers % self.limit]
            views = list(self._views)
        inside = np.ones(len(stamps), dtype=bool)
        if start is not None:
            inside &= stamps >= (start - EPOCH) // MICROSECOND
        if end is not None:
            inside &= stamps <= (end - EPOCH) // MICROSECOND
        kept = np.flatnonzero(inside)
        if np.any(np.diff(stamps[kept]) <= 0):
            kept = kept[len(kept) - 1 - np.unique(stamps[kept][::-1], return_index=True)[1]]
        numbers, stamps, sources = numbers[kept], stamps[kept], sources[kept]
        begins = [begin for begin, _ in views]
        belongs = np.searchsorted(begins, numbers, side="right") - 1
        return numbers, [
            _Ticks(views[which][1], stamps[belongs == which], sources[belongs == which])
            for which in np.unique(belongs)
        ]


class _Ticks(NamedTuple):
    view: View
    stamps: Integers
    sources: Integers


class _Group(NamedTuple):
    symbols: list[str]
    numbers: Integers
    frame: pl.DataFrame


def _read(tape: Tape, symbols: Sequence[str], ticks: Iterable[_Ticks]) -> pl.DataFrame:
    frames = [
        bars.join(pl.DataFrame({"stamp": stamps, "timestamp": sources}).cast(UTC_TIMESTAMP), on="timestamp")
        for view, stamps, sources in ticks
        for bars in tape.read_again(view, symbols, np.unique(sources))
    ]
    if not frames:
        return REPLAYED.clear()
    return pl.concat(frames).sort("symbol", "stamp").select(REPLAYED.columns)


class ProxySpans:
    """The stamped times in which proxied bars were sent, symbol by symbol.

    Spans that touch are one, so that passes without end do not add up.
    """

    def __init__(self) -> None:
        self._spans: dict[str, list[tuple[str, datetime, datetime]]] = {}
        self._proxies: Mapping[str, str] = {}
        self._first: datetime | None = None
        self._last: datetime | None = None
        self._view: View | None = None

    def sent(self, stamp: datetime, view: View) -> None:
        """A tick of ``view`` is being sent with ``stamp``."""
        if view is not self._view:
            proxies = view.proxies
            if proxies != self._proxies:
                self._close()
                self._proxies = proxies
            self._view = view
        if self._last is not None and stamp <= self._last:
            self._close()
        self._first = self._first or stamp
        self._last = stamp

    def spans(self) -> dict[str, list[dict[str, Any]]]:
        """Symbol: its spans in order, each with ``proxy``, ``start`` and ``end`` (RFC 3339).

        A span holds the stamps t with start <= t < end; the end of one that goes on is None. Where stamps
        repeat (historical clock), a span names what was proxied in any pass.
        """
        found = {symbol: list(spans) for symbol, spans in self._spans.items()}
        result = {
            symbol: [_span(*one) for one in sorted(spans, key=_start)] for symbol, spans in found.items()
        }
        if self._first is not None:
            for symbol, proxy in self._proxies.items():
                result.setdefault(symbol, []).append(
                    {"proxy": proxy, "start": rfc3339(self._first), "end": None}
                )
        return dict(sorted(result.items()))

    def _close(self) -> None:
        if self._first is not None and self._last is not None:
            for symbol, proxy in self._proxies.items():
                spans = [*self._spans.get(symbol, []), (proxy, self._first, self._last)]
                self._spans[symbol] = _merged(spans)
        self._first = self._last = None


def _start(span: tuple[str, datetime, datetime]) -> datetime:
    return span[1]


def _span(proxy: str, start: datetime, last: datetime) -> dict[str, Any]:
    return {"proxy": proxy, "start": rfc3339(start), "end": rfc3339(last + JUST_AFTER)}


def _merged(spans: list[tuple[str, datetime, datetime]]) -> list[tuple[str, datetime, datetime]]:
    merged: list[tuple[str, datetime, datetime]] = []
    for proxy, start, last in sorted(spans):
        if merged and merged[-1][0] == proxy and start <= merged[-1][2]:
            merged[-1] = (proxy, merged[-1][1], max(last, merged[-1][2]))
        else:
            merged.append((proxy, start, last))
    return merged
