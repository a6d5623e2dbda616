"""A period of the tape in memory, and the view of the lake that it was read from."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import NamedTuple

import numpy as np
import polars as pl

from garch_platform.recycler.tick import Bar

__all__ = ["Chunk", "Period", "Session", "View"]


class Session(NamedTuple):
    """A session that has bars, with the start of its first and last one (UTC)."""

    day: date
    first: datetime
    last: datetime


class Period(NamedTuple):
    """First and last session that are read at once."""

    start: date
    end: date


@dataclass(frozen=True)
class View:
    """What is replayed from one version of the lake.

    Attributes:
        version: of the lake's table; None before its first write.
        providers: symbol that is served: symbol whose bars it gets (its own, or its proxy's).
        silent: symbols that are configured but have neither bars nor a proxy with bars.
        sessions: those in which a provider has bars, in order.
    """

    version: int | None = None
    providers: Mapping[str, str] = field(default_factory=dict)
    silent: tuple[str, ...] = ()
    sessions: tuple[Session, ...] = ()

    @property
    def proxies(self) -> dict[str, str]:
        """Symbol: the other symbol that stands in for it."""
        return {symbol: provider for symbol, provider in self.providers.items() if symbol != provider}

    def session_at(self, moment: datetime) -> Session | None:
        """The first session that is not over at ``moment``; None after the last."""
        place = bisect_left(self.sessions, moment, key=lambda session: session.last)
        return self.sessions[place] if place < len(self.sessions) else None


class Chunk:
    """The bars of one period, tick by tick.

    Args:
        view: that they were read from.
        period: sessions that they span.
        frame: ``timestamp``, ``session_date``, then the fields of `Bar`; in order of time and symbol.
    """

    def __init__(self, view: View, period: Period, frame: pl.DataFrame) -> None:
        self.view = view
        self.period = period
        stamps = frame["timestamp"].to_physical().to_numpy()
        starts = np.flatnonzero(np.diff(stamps, prepend=stamps[:1] - 1))
        ticks = frame[starts]
        self.timestamps: list[datetime] = ticks["timestamp"].to_list()
        self.days: list[date] = ticks["session_date"].to_list()
        self._offsets: list[int] = [*starts.tolist(), len(frame)]
        self.frame = frame
        self._bars = frame.select(Bar._fields)

    def __len__(self) -> int:
        """Number of ticks."""
        return len(self.timestamps)

    def place_of(self, moment: datetime) -> int:
        """Number of the first tick at or after ``moment``; the number of ticks if there is none."""
        return bisect_left(self.timestamps, moment)

    def is_last_of_session(self, number: int) -> bool:
        """Whether tick ``number`` ends its session."""
        return number + 1 == len(self) or self.days[number] != self.days[number + 1]

    def bars(self, number: int) -> tuple[Bar, ...]:
        """The bars of tick ``number``."""
        start, end = self._offsets[number : number + 2]
        columns = self._bars.slice(start, end - start).get_columns()
        return tuple(map(Bar, *(column.to_list() for column in columns)))
