"""The daily schedule: before the open of each trading day, the previous session."""

from collections.abc import Iterator

import dagster as dg

from garch_platform.orchestration.jobs import DAILY_JOB
from garch_platform.orchestration.partitions import Partitions
from garch_platform.orchestration.planner import RequestPlanner
from garch_platform.orchestration.workspace import Workspace

__all__ = ["build_schedules"]


def build_schedules(workspace: Workspace, partitions: Partitions) -> list[dg.ScheduleDefinition]:
    """06:00 on weekdays in the exchange's time zone; holidays are skipped with a reason."""

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
        planner = RequestPlanner(workspace.settings, partitions, context.instance, moment)
        for planned in planner.daily(previous, previous):
            yield planned.run_request(f"daily:{planned.first}:{planned.last}")

    return [daily_schedule]
