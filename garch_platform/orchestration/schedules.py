"""The daily schedule: before the open of each trading day, the previous session."""

from collections.abc import Iterator

import dagster as dg

from garch_platform.errors import CalendarError, SymbolError
from garch_platform.orchestration.jobs import DAILY_JOB
from garch_platform.orchestration.partitions import Partitions
from garch_platform.orchestration.planner import RequestPlanner
from garch_platform.orchestration.workspace import Workspace

__all__ = ["build_schedules"]


def build_schedules(workspace: Workspace, partitions: Partitions) -> list[dg.ScheduleDefinition]:
    """06:00 on weekdays in the exchange's time zone; holidays and days outside the window are skipped."""

    @dg.schedule(
        name="daily_schedule",
        job_name=DAILY_JOB,
        cron_schedule="0 6 * * 1-5",
        execution_timezone=str(workspace.calendar.timezone),
        description="At 06:00 exchange time of a trading day: run the previous session for all symbols.",
    )
    def daily_schedule(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
        moment = context.scheduled_execution_time
        today = moment.astimezone(workspace.calendar.timezone).date()
        if not workspace.calendar.is_session(today):
            yield dg.SkipReason(f"{today} is not a session of {workspace.calendar.name}")
            return
        previous = workspace.calendar.previous(today)
        planner = RequestPlanner(
            workspace.settings, partitions, context.instance, moment, workspace.retired()
        )
        try:
            planned = planner.daily(previous, previous)
        except (CalendarError, SymbolError) as reason:
            yield dg.SkipReason(str(reason))
            return
        for run in planned:
            yield run.run_request(f"daily:{run.first}:{run.last}")

    return [daily_schedule]
