"""What the stream has not delivered: per symbol the spans of time whose bars have to be asked for.

Pure bookkeeping, in microseconds since 1970. A bar that follows the last one by more than a step leaves a
*hole* between them. A disconnection (and the start) leaves an *open* span: from the last bar on, until a bar
of the stream closes it. Spans are half-open, ``start <= timestamp < end``. A quiet symbol has spans
without bars; they are asked for once, and `answered` closes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

__all__ = ["CORRECTION", "Gaps", "Span"]

DAY: Final = 86_400_000_000
LATE_STEPS: Final = 5
EARLIER_TIMES: Final = 3
CORRECTION: Final = "correction"
SPANS_PER_SYMBOL: Final = 64
"""More holes than these are merged into one span; asking for too much loses nothing."""


@dataclass(frozen=True, order=True)
class Span:
    """Time in which bars of a symbol may be missing.

    Attributes:
        start: first microsecond; null = as early as the server answers.
        end: first microsecond after it; null = open, up to what the server knows.
        cause: ``start``, ``reconnect``, ``hole``, ``malformed``, ``rewound``, ``spool``, ``stop``: why it is
            asked for; ``correction``: its bar is there, and the correction of it may have been missed.
    """

    symbol: str
    start: int | None
    end: int | None
    cause: str


class Gaps:
    """Holes and open spans of a set of symbols.

    Args:
        symbols: all that are followed.
        step: microseconds between two bars.
        is_expected: whether bars can exist between two moments (a night leaves no hole).
        may_step_back: whether the stream may begin again at an earlier time; then a few times in a row that
            lie well before the newest are taken for it (a late bar has newer ones around it).
        may_be_corrected: whether the REST interface has the right values of a bar whose updated bar was missed:
            then a symbol's last bar before an interruption is asked for again.
    """

    def __init__(
        self,
        symbols: Iterable[str],
        *,
        step: int,
        is_expected: Callable[[int, int], bool] | None = None,
        may_step_back: bool = False,
        may_be_corrected: bool = False,
    ) -> None:
        self._step = step
        self._may_be_corrected = may_be_corrected
        self._may_step_back = may_step_back
        self._newest: int | None = None
        self._earlier: list[int] = []
        self._is_expected = is_expected or (lambda _start, _end: True)
        self._symbols = list(symbols)
        self._last: dict[str, int] = {}
        self._open: dict[str, Span] = {}
        self._holes: dict[str, list[Span]] = {}
        self._asked: dict[Span, None] = {}
        self._answered: set[str] = set()

    @property
    def last(self) -> Mapping[str, int]:
        """Per symbol the latest bar that is known of."""
        return self._last

    @property
    def newest(self) -> int | None:
        """The latest bar of all symbols."""
        return max(self._last.values(), default=None)

    @property
    def pending(self) -> int:
        """Spans that wait to be asked for or for their answer; not the open ones, nor bars that are there."""
        return sum(span.cause != CORRECTION for span in self.snapshot())

    def after(self, timestamp: int) -> int:
        """Start of what may follow a bar; half a step for daily ones, which shift with daylight saving."""
        return timestamp + (self._step if self._step < DAY else self._step // 2)

    def had(self, symbol: str, timestamp: int) -> None:
        """All bars of ``symbol`` up to ``timestamp`` came over REST."""
        self._last[symbol] = max(timestamp, self._last.get(symbol, timestamp))

    def resume(self, last: Mapping[str, int], *, first: int | None = None, cause: str = "start") -> None:
        """Begin after what is stored: symbol → its last stored bar; ``first`` for symbols without one."""
        for symbol in self._symbols:
            stored = last.get(symbol)
            start = first if stored is None else self.after(stored)
            if stored is not None:
                self._look_again(symbol, stored)
            seen = self._last.get(symbol)
            if seen is None:
                if stored is not None:
                    self._last[symbol] = stored
                self._open[symbol] = Span(symbol, start, None, cause)
            elif start is None or start < seen:
                self._add(Span(symbol, start, seen, cause))

    def interrupted(self, cause: str) -> None:
        """From each symbol's last bar on, bars may have been missed."""
        for symbol, last in self._last.items():
            self._look_again(symbol, last)
            if symbol not in self._open:
                self._open[symbol] = Span(symbol, self.after(last), None, cause)
        self._answered.clear()

    def _look_again(self, symbol: str, timestamp: int) -> None:
        span = Span(symbol, timestamp, timestamp + 1, CORRECTION)
        if self._may_be_corrected and span not in self._asked and span not in self._holes.get(symbol, []):
            self._add(span)

    def rewound(self, first: int | None) -> None:
        """The server's clock was set back: it knows nothing of what is missing, and what comes is new."""
        self._holes.clear()
        self._asked.clear()
        self._begin_again(first, "reconnect")

    def stepped_back(self) -> None:
        """The stream goes on at an earlier time; what is missing so far, up to the newest bar, still is."""
        newest = self.newest
        for symbol, last in self._last.items():
            start = self._open[symbol].start if symbol in self._open else self.after(last)
            if newest is not None and (start is None or start <= newest):
                self._add(Span(symbol, start, newest + 1, "rewound"))
        self._begin_again(None, "rewound")

    def _begin_again(self, first: int | None, cause: str) -> None:
        self._last.clear()
        self._newest = None
        self._earlier.clear()
        self._open = {symbol: Span(symbol, first, None, cause) for symbol in self._symbols}
        self._answered.clear()

    def _notice_step_back(self, timestamp: int) -> None:
        newest = self._newest
        if newest is None or timestamp >= newest - LATE_STEPS * self._step:
            self._newest = timestamp if newest is None else max(newest, timestamp)
            self._earlier.clear()
        elif not self._earlier or timestamp > self._earlier[-1]:
            self._earlier.append(timestamp)
            if len(self._earlier) == EARLIER_TIMES:
                self.stepped_back()
                self._newest = timestamp

    def seen(self, symbol: str, timestamp: int) -> None:
        """A bar came over the stream."""
        if self._may_step_back:
            self._notice_step_back(timestamp)
        last = self._last.get(symbol)
        if last is not None and symbol not in self._open:
            if timestamp == last + self._step:
                self._last[symbol] = timestamp
                return
            start = self.after(last)
            if timestamp >= start:
                self._last[symbol] = timestamp
                if start < timestamp and self._is_expected(start, timestamp):
                    self._add(Span(symbol, start, timestamp, "hole"))
                return
            self._filled(symbol, timestamp, timestamp + self._step)
            return
        self._seen_after_interruption(symbol, timestamp, last)

    def _seen_after_interruption(self, symbol: str, timestamp: int, last: int | None) -> None:
        span = self._open.get(symbol)
        if span is not None and (span.start is None or timestamp >= span.start):
            del self._open[symbol]
            if span.start is None or span.start < timestamp:
                self._add(replace(span, end=timestamp))
        elif span is not None:
            self._filled(symbol, timestamp, timestamp + self._step)
        self._last[symbol] = timestamp if last is None else max(last, timestamp)

    def reopen(self, span: Span) -> None:
        """A span whose bars were had and then lost."""
        self._add(span)

    def take(self, *, again: bool = False) -> list[Span]:
        """Everything that should be asked for now; follow each span by `answered` or `failed`.

        An open span that was answered waits for the bar that closes it, unless ``again``.
        """
        spans = [span for holes in self._holes.values() for span in holes]
        self._holes.clear()
        self._asked.update(dict.fromkeys(spans))
        return [
            *spans,
            *(span for span in self._open.values() if again or span.symbol not in self._answered),
        ]

    def answered(self, span: Span, until: int) -> None:
        """The server has given all bars of ``span`` before ``until``; a closed span's rest stays pending."""
        if span.end is not None:
            if span in self._asked:
                del self._asked[span]
                if until < span.end:
                    start = until if span.start is None else max(until, span.start)
                    self._add(replace(span, start=start))
            return
        if span.start is not None and until <= span.start:
            return
        self._filled(span.symbol, span.start, until)
        self._answered.add(span.symbol)
        still = self._open.get(span.symbol)
        if still is not None and (still.start is None or still.start < until):
            self._open[span.symbol] = replace(still, start=until)

    def failed(self, span: Span) -> None:
        """``span`` could not be asked for; it is taken again next time."""
        if span in self._asked:
            del self._asked[span]
            self._add(span)

    def snapshot(self) -> list[Span]:
        """All closed spans, to be kept across a restart; open ones follow from what is stored."""
        return [*self._asked, *(span for spans in self._holes.values() for span in spans)]

    def restore(self, spans: Iterable[Span]) -> None:
        """Take up the spans of an earlier process."""
        known = set(self._symbols)
        for span in spans:
            if span.symbol in known and span not in self._holes.get(span.symbol, []):
                self._add(span)

    def _add(self, span: Span) -> None:
        spans = self._holes.setdefault(span.symbol, [])
        spans.append(span)
        if len(spans) > SPANS_PER_SYMBOL:
            starts = [each.start for each in spans if each.start is not None]
            start = min(starts) if len(starts) == len(spans) else None
            end = max(each.end for each in spans if each.end is not None)
            cause = next((each.cause for each in reversed(spans) if each.cause != CORRECTION), CORRECTION)
            self._holes[span.symbol] = [Span(span.symbol, start, end, cause)]

    def _filled(self, symbol: str, start: int | None, end: int) -> None:
        spans = self._holes.get(symbol)
        if not spans:
            return
        left = []
        for span in spans:
            if span.end is None or (start is not None and span.end <= start):
                left.append(span)
                continue
            if span.start is not None and span.start >= end:
                left.append(span)
                continue
            if start is not None and (span.start is None or span.start < start):
                left.append(replace(span, end=start))
            if end < span.end:
                left.append(replace(span, start=end))
        if left:
            self._holes[symbol] = left
        else:
            del self._holes[symbol]
