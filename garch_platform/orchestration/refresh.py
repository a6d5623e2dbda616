"""Bringing a workspace up to date: history, then each session, then its rankings."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime
from itertools import chain

import dagster as dg
import polars as pl

from garch_platform.errors import CalendarError
from garch_platform.orchestration.jobs import DAILY_JOB, HISTORY_JOB, RANKING_JOB
from garch_platform.orchestration.launch import Launcher
from garch_platform.orchestration.planner import KeyRange

__all__ = ["RefreshPlan", "failed_symbols", "refresh_plan"]

LAST_ASSET = {HISTORY_JOB: "feature_history", DAILY_JOB: "garch_models", RANKING_JOB: "scan_ledger"}


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
        end: last session; if None the last closed one, or ``trading_days.end``, or, where that is open,
            the last session of which the source has bars.
        again: also plan runs whose keys are all materialised.
    """
    planner = launcher.planner
    window, calendar = planner.settings.trading_days, planner.settings.calendar
    closed = calendar.last_closed(planner.now)
    history = planner.history()
    last = end or min(window.end or _last_session_with_bars(launcher) or closed, closed)
    first = start or (window.start if calendar.is_session(window.start) else calendar.next(window.start))
    if last < first:
        raise CalendarError(
            f"nothing to run: the last closed session with bars is {last}, before trading_days.start {first}; "
            f"set an earlier one in {planner.settings.workspace / 'settings.yaml'}, or bring newer bars"
        )
    daily = planner.daily(first, last)
    ranking = planner.ranking(first, last)
    planned = [*history, *daily, *ranking]
    if again:
        return RefreshPlan(planned, 0)
    done = _materialised(launcher.instance)
    left = {run: run.without(done[run.job]) for run in planned}
    days = {run.day for run in daily if left[run]}
    left |= {run: [run] for run in ranking if run.day in days}
    return RefreshPlan(list(chain.from_iterable(left.values())), sum(not parts for parts in left.values()))


def _last_session_with_bars(launcher: Launcher) -> date | None:
    workspace = launcher.workspace
    registered = workspace.registry.entries()["symbol"].to_list()
    found = workspace.source.symbols()
    ends = found.filter(pl.col("symbol").is_in(registered))["last_session"].drop_nulls().to_list()
    live = workspace.database.read("SELECT max(timestamp) AS last FROM market_data")["last"][0]
    if live is not None:
        moment = datetime.fromisoformat(live).replace(tzinfo=UTC) if isinstance(live, str) else live
        day = moment.astimezone(workspace.calendar.timezone).date()
        ends += [day] if workspace.calendar.is_session(day) else []
    return max(ends, default=None)


def _materialised(instance: dg.DagsterInstance) -> dict[str, set[str]]:
    return {job: instance.get_materialized_partitions(dg.AssetKey(name)) for job, name in LAST_ASSET.items()}


def failed_symbols(launcher: Launcher, day: date) -> list[str]:
    """Symbols whose ``day`` has no bars, no verdict, or no usable fit because it failed."""
    database = launcher.workspace.database
    fits = database.read_table("garch_models", fit_date=[day])
    fine = set(fits.filter(fits["status"] != "failed")["symbol"])
    planned = launcher.planner.daily(day, day)
    return [symbol for run in planned for symbol in run.names if symbol not in fine]
