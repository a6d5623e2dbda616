"""What a stream client has done so far, and how late the bars were."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

from garch_platform.stream.rows import instant

__all__ = ["Counts", "Latencies", "StreamSummary"]

SAMPLES: Final = 5_000


@dataclass
class Counts:
    """Numbers of bars and events since the client started.

    Attributes:
        received: messages with a bar in them that found room; one that did not is asked for again.
        bars: of these, bars of the followed timeframe, updated ones included.
        daily_bars: of these, the others.
        written: rows that were new in the database, or replaced one there.
        filled: of these, rows that came over REST.
        duplicates: rows whose bar was there already.
        set_aside: rows that the database refuses, kept in the spool's folder.
        lost: rows for which neither the database nor the spool had room; they are asked for again.
        gaps: spans of time whose bars the stream did not deliver and the REST interface had.
        reconnects: connections after the first.
        malformed: frames that could not be decoded.
    """

    received: int = 0
    bars: int = 0
    daily_bars: int = 0
    written: int = 0
    filled: int = 0
    duplicates: int = 0
    set_aside: int = 0
    lost: int = 0
    gaps: int = 0
    reconnects: int = 0
    malformed: int = 0


class Latencies:
    """A uniform sample of bounded size of how many milliseconds after its end each bar arrived."""

    def __init__(self, size: int = SAMPLES) -> None:
        self.size = size
        self.count = 0
        self.largest: float | None = None
        self._samples: list[tuple[int, float]] = []
        self._random = random.Random(0)  # noqa: S311 - which samples are kept is no secret

    def add(self, received_at: int, milliseconds: float) -> None:
        """One bar, received at ``received_at`` (microseconds since 1970)."""
        self.count += 1
        self.largest = milliseconds if self.largest is None else max(self.largest, milliseconds)
        if len(self._samples) < self.size:
            self._samples.append((received_at, milliseconds))
        elif (place := self._random.randrange(self.count)) < self.size:
            self._samples[place] = (received_at, milliseconds)

    @property
    def samples(self) -> list[tuple[datetime, float]]:
        """Time of receipt and milliseconds, in order of time."""
        return [(instant(moment), value) for moment, value in sorted(self._samples)]

    def quantile(self, share: float) -> float | None:
        """The smallest sample that ``share`` of the samples do not exceed; null without samples."""
        values = sorted(value for _, value in self._samples)
        return values[max(0, math.ceil(share * len(values)) - 1)] if values else None


@dataclass(frozen=True)
class StreamSummary:
    """What a run of the stream client delivered.

    Attributes:
        mode: ``alpaca`` or ``recycler``.
        server: address of the stream.
        counts: see `Counts`.
        bars, daily_bars: messages received, as in ``counts``.
        connections: how often it was connected.
        pending_gaps: spans whose bars could not be asked for; they are asked for at the next run.
        stopped: whether it was told to, by a signal or by its caller, before any other end came.
        spooled_files: batches that still wait on disk for the database.
        latency_p50_ms, latency_p99_ms, latency_max_ms: from a bar's end to its receipt; null where bars
            are not sent as they happen (historical clock, or another speed than 1.0).
        latencies: a sample of these, with times.
        first_bar, last_bar: per symbol the earliest and the latest bar received, daily bars apart.
        error: why it ended before it was told to, or why it was not connected at its end; null otherwise.
    """

    mode: str
    server: str
    started_at: datetime
    ended_at: datetime
    symbols: list[str]
    counts: Counts
    bars: int
    daily_bars: int
    connections: int
    pending_gaps: int
    stopped: bool
    spooled_files: int
    latency_p50_ms: float | None
    latency_p99_ms: float | None
    latency_max_ms: float | None
    latencies: list[tuple[datetime, float]] = field(repr=False)
    first_bar: dict[str, datetime] = field(repr=False)
    last_bar: dict[str, datetime] = field(repr=False)
    error: str | None = None
