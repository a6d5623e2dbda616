"""Bringing a workspace up to date: history, then each session, then its rankings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from itertools import chain

import dagster as dg

from garch_platform.errors import CalendarError
from garch_platform.orchestration.jobs import DAILY_JOB, HISTORY_JOB, RANKING_JOB
from garch_platform.orchestration.launch import Launcher
from garch_platform.orchestration.planner import KeyRange

__all__ = ["RefreshPlan", "failed_symbols", "pending", "refresh_plan"]

LAST_ASSET = {HISTORY_JOB: "feature_history", DAILY_JOB: "garch_models", RANKING_JOB: "pair_rankings"}


@dataclass(frozen=True)
class RefreshPlan:
    """The runs that are missing, in order, and how many are already there."""

    runs: list[KeyRange]
    present: int


def refresh_plan(
    launcher: Launcher, start: date | None = None, end: date | None = None, *, again: bool = False
) -> RefreshPlan:
    """Plan history, daily and ranking runs for the sessions ``start`` to ``end``.

    Args:
        launcher: of the workspace.
        start: first session; ``trading_days.start`` if None.
        end: last session; the last closed one (or ``trading_days.end``) if None.
        again: also plan runs whose keys are all materialised.
    """
    planner = launcher.planner
    window, calendar = planner.settings.trading_days, planner.settings.calendar
    closed = calendar.last_closed(planner.now)
    last = end or (closed if window.end is None else min(window.end, closed))
    first = start or (window.start if calendar.is_session(window.start) else calendar.next(window.start))
    if last < first:
        raise CalendarError(
            f"nothing to run: the last closed session {last} is before the first session {first}"
        )
    retired = _history_only(launcher)
    active = [symbol for symbol in planner.symbol_keys() if symbol not in retired]
    history, daily = planner.history(), planner.daily(first, last, active)
    ranking = planner.ranking(first, last)
    planned = [*history, *daily, *ranking]
    if again:
        return RefreshPlan(planned, 0)
    done = _materialised(launcher.instance)
    left = {run: run.without(done[run.job]) for run in planned}
    days = {run.day for run in daily if left[run]}
    left |= {run: [run] for run in ranking if run.day in days}
    return RefreshPlan(list(chain.from_iterable(left.values())), sum(not parts for parts in left.values()))


def pending(instance: dg.DagsterInstance, runs: Sequence[KeyRange]) -> list[KeyRange]:
    """The runs with a key that is not materialised, each cut down to the stretches of such keys."""
    done = _materialised(instance)
    return [part for run in runs for part in run.without(done[run.job])]


def _materialised(instance: dg.DagsterInstance) -> dict[str, set[str]]:
    return {job: instance.get_materialized_partitions(dg.AssetKey(name)) for job, name in LAST_ASSET.items()}


def failed_symbols(launcher: Launcher, day: date) -> list[str]:
    """Symbols whose ``day`` has no bars, no verdict, or no usable fit because it failed."""
    database = launcher.workspace.database
    fits = database.read_table("garch_models", fit_date=[day])
    fine = set(fits.filter(fits["status"] != "failed")["symbol"])
    retired = _history_only(launcher)
    return [s for s in launcher.planner.symbol_keys() if s not in fine and s not in retired]


def _history_only(launcher: Launcher) -> set[str]:
    start = launcher.workspace.settings.trading_days.start
    retired = launcher.workspace.symbols().drop_nulls("retired_at")
    return set(retired.filter(retired["retired_at"].dt.date() <= start)["symbol"])
