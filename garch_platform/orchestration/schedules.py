"""Schedules: before the open the previous session, after the close its live bars, and the vendors' data."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

import dagster as dg

from garch_platform.errors import CalendarError, SymbolError
from garch_platform.orchestration.arrivals import SETTLED_AFTER, has_live_bars, requested_since
from garch_platform.orchestration.jobs import DAILY_JOB, HOURLY_JOB, MAINTENANCE_JOB, YAHOO_JOB
from garch_platform.orchestration.partitions import Partitions
from garch_platform.orchestration.planner import RequestPlanner
from garch_platform.sessions import TradingCalendar
from garch_platform.workspace import Workspace

__all__ = ["build_schedules", "promotion_crons"]

Requests = Iterator[dg.RunRequest | dg.SkipReason]
Body = Callable[[dg.ScheduleEvaluationContext], Requests]


@dataclass(frozen=True)
class _Bodies:
    """What each schedule requests; a day without a session raises `CalendarError`."""

    workspace: Workspace
    partitions: Partitions

    def pre_market(self, context: dg.ScheduleEvaluationContext) -> Requests:
        previous = self.workspace.calendar.previous(self._session(context))
        yield from self._daily(context, previous, "daily")

    def promotion(self, context: dg.ScheduleEvaluationContext) -> Requests:
        today = self._session(context)
        close = self.workspace.calendar.bounds(today)[1]
        if context.scheduled_execution_time != close + SETTLED_AFTER:
            local = close.astimezone(self.workspace.calendar.timezone)
            yield dg.SkipReason(f"{today} closes at {local:%H:%M}")
        elif not has_live_bars(self.workspace, today):
            yield dg.SkipReason(f"market_data has no bars of Alpaca for {today}")
        elif requested_since(context.instance, today, close + SETTLED_AFTER):
            yield dg.SkipReason(f"new_bars_sensor has asked for {today} already")
        else:
            yield from self._daily(context, today, "promotion")

    def maintenance(self, context: dg.ScheduleEvaluationContext) -> Requests:
        yield dg.RunRequest(run_key=f"maintenance:{self._session(context)}")

    def hourly_history(self, context: dg.ScheduleEvaluationContext) -> Requests:
        if self.workspace.settings.timeframe.minutes == 60:
            yield dg.SkipReason("the workspace's own bars are hourly: bar_history and raw_bars load them")
        else:
            yield from self._of_symbols(context, HOURLY_JOB)

    def yahoo(self, context: dg.ScheduleEvaluationContext) -> Requests:
        yield from self._of_symbols(context, YAHOO_JOB)

    def _session(self, context: dg.ScheduleEvaluationContext) -> date:
        today = context.scheduled_execution_time.astimezone(self.workspace.calendar.timezone).date()
        if not self.workspace.calendar.is_session(today):
            raise CalendarError(f"{today} is not a session of {self.workspace.calendar.name}")
        return today

    def _planner(self, context: dg.ScheduleEvaluationContext) -> RequestPlanner:
        moment = context.scheduled_execution_time
        return RequestPlanner(
            self.workspace.settings, self.partitions, context.instance, moment, self.workspace.retired()
        )

    def _daily(self, context: dg.ScheduleEvaluationContext, day: date, name: str) -> Requests:
        for run in self._planner(context).daily(day, day):
            yield run.run_request(f"{name}:{run.first}:{run.last}")

    def _of_symbols(self, context: dg.ScheduleEvaluationContext, job: str) -> Requests:
        stamp = context.scheduled_execution_time.date()
        for run in self._planner(context).of_symbols(job):
            yield run.run_request(f"{job}:{stamp}:{run.first}")


def build_schedules(workspace: Workspace, partitions: Partitions) -> list[dg.ScheduleDefinition]:
    """All schedules, in the exchange's time zone; days without a session are skipped with their reason."""
    bodies = _Bodies(workspace, partitions)
    promoted_at = promotion_crons(workspace.calendar, workspace.settings.trading_days.start)
    table: list[tuple[str, str, str | list[str], Body, str]] = [
        (
            "daily_schedule",
            DAILY_JOB,
            "0 6 * * 1-5",
            bodies.pre_market,
            "At 06:00 exchange time of a trading day: load and run the previous session for all symbols.",
        ),
        (
            "promotion_schedule",
            DAILY_JOB,
            promoted_at,
            bodies.promotion,
            "15 minutes after the close: Alpaca's live bars of the session become raw_bars, and it is run.",
        ),
        (
            "symbol_maintenance_schedule",
            MAINTENANCE_JOB,
            "0 5 * * 1-5",
            bodies.maintenance,
            "At 05:00 of a trading day: what is tradable, delistings, renames, splits and dividends.",
        ),
        (
            "hourly_history_schedule",
            HOURLY_JOB,
            "0 19 * * 1-5",
            bodies.hourly_history,
            "At 19:00 of a weekday: Alpaca's hourly bars since the last stored one.",
        ),
        (
            "yahoo_schedule",
            YAHOO_JOB,
            "0 8 * * 6",
            bodies.yahoo,
            "Saturdays at 08:00: Yahoo's company information, and daily bars beside those of another length.",
        ),
    ]
    return [
        dg.schedule(
            name=name,
            job_name=job,
            cron_schedule=cron,
            execution_timezone=str(workspace.calendar.timezone),
            description=text,
        )(_skipping(body))
        for name, job, cron, body, text in table
    ]


def promotion_crons(calendar: TradingCalendar, start: date) -> list[str]:
    """One cron line for each time of day at which a session since ``start`` is settled.

    >>> from garch_platform.sessions import trading_calendar
    >>> promotion_crons(trading_calendar("XNYS"), date(2024, 1, 2))
    ['15 13 * * 1-5', '15 16 * * 1-5']
    """
    schedule = calendar.schedule
    closes = schedule.filter(schedule["session_date"] >= start)["close_at"]
    local = closes.dt.convert_time_zone(str(calendar.timezone))
    times = sorted({(close + SETTLED_AFTER).time() for close in local})
    return [f"{moment.minute} {moment.hour} * * 1-5" for moment in times]


def _skipping(body: Body) -> Body:
    """``body`` whose refusals (no session, no symbol) are reasons to skip."""

    def evaluate(context: dg.ScheduleEvaluationContext) -> Requests:
        try:
            yield from body(context)
        except (CalendarError, SymbolError) as reason:
            yield dg.SkipReason(str(reason))

    return evaluate
