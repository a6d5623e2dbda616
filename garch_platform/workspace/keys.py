"""Sets of partition keys: names (symbols or sectors) and trading days."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date

from garch_platform.errors import CalendarError
from garch_platform.sessions import TradingCalendar

__all__ = ["KeySet", "contiguous"]


@dataclass(frozen=True)
class KeySet:
    """The partition keys of one run: every combination of ``names`` (symbols or sectors) and ``dates``.

    ``dates`` is empty for assets that are partitioned by symbol alone.
    """

    names: tuple[str, ...]
    dates: tuple[date, ...] = ()

    @classmethod
    def of(cls, keys: Iterable[str]) -> KeySet:
        """Split ``DATE|NAME`` or ``NAME`` keys into sorted names and dates."""
        parts = [key.rpartition("|") for key in keys]
        return cls(
            names=tuple(sorted({name for _, _, name in parts})),
            dates=tuple(sorted({date.fromisoformat(day) for day, _, _ in parts if day})),
        )

    @property
    def start(self) -> date:
        """The earliest date; `CalendarError` for the empty set, which a reversed range of keys gives."""
        if not self.dates:
            raise CalendarError("the run has no session: its range of partition keys is reversed or empty")
        return self.dates[0]

    @property
    def end(self) -> date:
        """The latest date."""
        return self.dates[-1]

    def key(self, name: str, day: date | None = None) -> str:
        """The Dagster key of ``name`` (on ``day``)."""
        return name if day is None else f"{day}|{name}"

    def stretches(self, calendar: TradingCalendar) -> list[tuple[date, date]]:
        """The dates as runs of consecutive sessions, each given by its first and last."""
        position = {day: number for number, day in enumerate(calendar.sessions(self.start, self.end))}
        runs = contiguous([position[day] for day in self.dates])
        days = list(position)
        return [(days[first], days[last]) for first, last in runs]


def contiguous(numbers: Sequence[int]) -> list[tuple[int, int]]:
    """Split ascending integers into runs without holes, each as (first, last).

    >>> contiguous([1, 2, 3, 7, 9, 10])
    [(1, 3), (7, 7), (9, 10)]
    """
    runs: list[tuple[int, int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1] = (runs[-1][0], number)
        else:
            runs.append((number, number))
    return runs
