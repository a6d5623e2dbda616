"""Run requests: validated dates and names turned into ranges of partition keys.

The one way to ask for a run, for the CLI, the schedule and the sensors alike. Dagster takes wrong
range tags silently (a Saturday, a reversed range, a future day), so they are refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from typing import Any

import dagster as dg

from garch_platform.errors import CalendarError, SymbolError
from garch_platform.orchestration.jobs import DAILY_JOB, HISTORY_JOB, RANKING_JOB
from garch_platform.orchestration.partitions import SYMBOLS_NAME, Partitions
from garch_platform.settings import Settings
from garch_platform.workspace.keys import contiguous

__all__ = ["RANGE_END", "RANGE_START", "KeyRange", "RequestPlanner"]

RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"


@dataclass(frozen=True)
class KeyRange:
    """One run: a job over a contiguous range of partition keys."""

    job: str
    first: str
    last: str
    names: tuple[str, ...]
    day: date | None = None
    options: tuple[tuple[str, Any], ...] = ()
    """Config of the job's one asset, for jobs without partitions."""

    @classmethod
    def whole(cls, job: str, **options: Any) -> KeyRange:
        """A run of a job without partitions; ``options`` that are None keep their default."""
        given = tuple((name, value) for name, value in options.items() if value is not None)
        return cls(job, "", "", (), options=given)

    @property
    def tags(self) -> dict[str, str]:
        """Dagster's range tags; none for a job without partitions."""
        return {RANGE_START: self.first, RANGE_END: self.last} if self.names else {}

    @property
    def keys(self) -> list[str]:
        """All partition keys of the run."""
        return [f"{self.day}|{name}" if self.day else name for name in self.names]

    @property
    def label(self) -> str:
        """For people: the date (if any) and how many names."""
        if not self.names:
            return ", ".join(f"{name} {value}" for name, value in self.options)
        names = self.names[0] if len(self.names) == 1 else f"{len(self.names)} keys"
        return f"{self.day}, {names}" if self.day else names

    def without(self, done: Set[str]) -> list[KeyRange]:
        """The stretches of this run whose keys are not in ``done``."""
        keys = self.keys
        left = contiguous([number for number, key in enumerate(keys) if key not in done])
        return [
            replace(self, first=keys[first], last=keys[last], names=self.names[first : last + 1])
            for first, last in left
        ]

    def builds_on(self, other: KeyRange) -> bool:
        """Whether this run reads what ``other`` writes and cannot be right without it."""
        if other.job == HISTORY_JOB:
            return self.job == DAILY_JOB and bool({*self.names} & {*other.names})
        return (self.job, other.job) == (RANKING_JOB, DAILY_JOB) and self.day == other.day

    def run_request(self, run_key: str | None = None) -> dg.RunRequest:
        """The same as a request of a schedule or sensor."""
        return dg.RunRequest(run_key=run_key, job_name=self.job, tags=self.tags)


@dataclass(frozen=True)
class RequestPlanner:
    """Plans runs for one workspace at one moment.

    Attributes:
        settings: the workspace's settings.
        partitions: its partitions.
        instance: the Dagster instance that stores the dynamic symbol keys.
        retired: symbols that have stopped trading, each with the first day without it.
        now: the moment of asking (timezone-aware): sessions that close later are refused.
    """

    settings: Settings
    partitions: Partitions
    instance: dg.DagsterInstance
    now: datetime
    retired: Mapping[str, date] = field(default_factory=dict)

    def symbol_keys(self) -> list[str]:
        """The dynamic symbol keys in Dagster's own order."""
        return list(self.instance.get_dynamic_partitions(SYMBOLS_NAME))

    def history(self, symbols: Sequence[str] | None = None) -> list[KeyRange]:
        """Runs of the history job: neighbouring keys, at most ``storage.history_batch`` a run."""
        chosen = self._chosen(symbols)
        return [run for stretch in self._stretches(chosen) for run in self.history_batches(stretch)]

    def of_symbols(self, job: str, symbols: Sequence[str] | None = None) -> list[KeyRange]:
        """Runs of a job that is partitioned by symbol, over ``symbols`` (all if None), in batches."""
        return [replace(run, job=job) for run in self.history(symbols)]

    def history_batches(self, keys: Sequence[str]) -> list[KeyRange]:
        """Neighbouring ``keys`` in runs that a machine's memory can hold."""
        size = self.settings.storage.history_batch
        batches = [tuple(keys[start : start + size]) for start in range(0, len(keys), size)]
        return [KeyRange(HISTORY_JOB, batch[0], batch[-1], batch) for batch in batches]

    def daily(self, start: date, end: date, symbols: Sequence[str] | None = None) -> list[KeyRange]:
        """Runs of the daily job, one a session and stretch of symbols, oldest first.

        A symbol has no run on the day of its retirement or later.
        """
        chosen = self._chosen(symbols)
        return [
            KeyRange(DAILY_JOB, f"{day}|{names[0]}", f"{day}|{names[-1]}", tuple(names), day)
            for day in self.sessions(start, end)
            for names in self._stretches({name for name in chosen if self.retired.get(name, date.max) > day})
        ]

    def ranking(self, start: date, end: date, sectors: Sequence[str] | None = None) -> list[KeyRange]:
        """Runs of the ranking job, one a session, over the active sectors (or ``sectors``)."""
        active = self.settings.universe.sectors.active
        unknown = sorted(set(sectors or []) - set(active))
        if unknown:
            raise SymbolError(f"sectors {unknown} are not active; universe.sectors.active is {active}")
        chosen = [number for number, name in enumerate(active) if sectors is None or name in sectors]
        return [
            KeyRange(
                RANKING_JOB,
                f"{day}|{active[first]}",
                f"{day}|{active[last]}",
                tuple(active[first : last + 1]),
                day,
            )
            for day in self.sessions(start, end)
            for first, last in contiguous(chosen)
        ]

    def sessions(self, start: date, end: date) -> list[date]:
        """The sessions ``start`` to ``end``, all of them closed and inside the daily window.

        Raises:
            CalendarError: the range is reversed, holds no session, an end is no session, lies before
                ``trading_days.start`` or after ``trading_days.end``, or has not closed yet.
        """
        calendar, window = self.settings.calendar, self.settings.trading_days
        if start > end:
            raise CalendarError(f"the range {start} to {end} is reversed; give the earlier date first")
        for day in (start, end):
            calendar.require_session(day)
        if start < window.start:
            raise CalendarError(
                f"{start} is before trading_days.start {window.start}; earlier bars belong to the history job "
                "(`garch materialize --history`)"
            )
        if window.end is not None and end > window.end:
            raise CalendarError(f"{end} is after trading_days.end {window.end} of this workspace")
        closed = calendar.last_closed(self.now)
        if end > closed:
            raise CalendarError(f"the session {end} has not closed yet; the last closed session is {closed}")
        return calendar.sessions(start, end)

    def _chosen(self, symbols: Iterable[str] | None) -> set[str]:
        keys = self.symbol_keys()
        if not keys:
            raise SymbolError("no symbol is registered; run `garch symbols add SYMBOL` first")
        chosen = set(keys) if symbols is None else set(symbols)
        unknown = sorted(chosen - set(keys))
        if unknown:
            raise SymbolError(
                f"symbols {', '.join(unknown)} are not registered in this workspace; "
                "run `garch symbols add SYMBOL`, or see `garch symbols list`"
            )
        if not chosen:
            raise SymbolError("the list of symbols is empty; name at least one, or leave it out for all")
        return chosen

    def _stretches(self, chosen: set[str]) -> list[list[str]]:
        """``chosen`` as runs of keys that are neighbours in Dagster's order."""
        keys = self.symbol_keys()
        positions = [number for number, key in enumerate(keys) if key in chosen]
        return [keys[first : last + 1] for first, last in contiguous(positions)]
