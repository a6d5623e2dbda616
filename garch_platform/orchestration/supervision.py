"""The stream client in market hours: started before the open, started again when it died, ended after the close."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any

import dagster as dg

from garch_platform.orchestration.jobs import STREAM_JOB
from garch_platform.stream.status import read_status
from garch_platform.workspace import Workspace

__all__ = ["STREAM_LEAD", "STREAM_TAIL", "build_supervisor"]

STREAM_LEAD = timedelta(minutes=5)
"""Before the open: the client is connected when the first bar comes."""

STREAM_TAIL = timedelta(minutes=5)
"""After the close: late updated bars still come."""

RESTART_AFTER = timedelta(minutes=1)
LONGEST_PAUSE = timedelta(minutes=30)
"""Between two starts of a client that fails again and again: wrong credentials fail all day."""
MOST_FAILURES = 20

UNDER_WAY = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def build_supervisor(workspace: Workspace, job: Any, clock: Callable[[], datetime]) -> dg.SensorDefinition:
    """The sensor that keeps one stream client running while the exchange is open."""

    @dg.sensor(
        name="stream_supervisor",
        job=job,
        minimum_interval_seconds=30,
        description="Mode alpaca: keep the stream client running from 5 minutes before the open until after the close.",
    )
    def stream_supervisor(context: dg.SensorEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        now = clock()
        if why := _not_now(workspace, context.instance, now):
            return dg.SkipReason(why)
        return dg.RunRequest(run_key=f"stream:{now:%Y-%m-%dT%H:%M:%S}")

    return stream_supervisor


def _not_now(workspace: Workspace, instance: dg.DagsterInstance, now: datetime) -> str | None:
    """Why no client is to be started at ``now``; None if one is."""
    if workspace.settings.websocket.mode != "alpaca":
        return "websocket.mode is recycler: there is no market to follow"
    calendar = workspace.calendar
    today = now.astimezone(calendar.timezone).date()
    if not calendar.is_session(today):
        return f"{today} is not a session of {calendar.name}"
    open_at, close_at = calendar.bounds(today)
    if not open_at - STREAM_LEAD <= now < close_at + STREAM_TAIL:
        return f"the session {today} lasts from {open_at:%H:%M} to {close_at:%H:%M} UTC"
    if instance.get_runs_count(dg.RunsFilter(job_name=STREAM_JOB, statuses=list(UNDER_WAY))):
        return "the stream client is running"
    status = read_status(workspace.settings.workspace)
    if status is not None and status.is_running:
        return f"`garch stream` is running as process {status.pid}"
    return _too_soon(instance, now, open_at - STREAM_LEAD)


def _too_soon(instance: dg.DagsterInstance, now: datetime, since: datetime) -> str | None:
    """Whether the client is to be left alone for a while: a minute, and twice as long after each failure."""
    ended = instance.get_run_records(
        dg.RunsFilter(job_name=STREAM_JOB, updated_after=since.astimezone(UTC)), limit=MOST_FAILURES
    )
    if not ended:
        return None
    failures = list(takewhile(lambda one: one.dagster_run.status == dg.DagsterRunStatus.FAILURE, ended))
    pause = min(RESTART_AFTER * 2 ** max(0, len(failures) - 1), LONGEST_PAUSE)
    if ended[0].update_timestamp.replace(tzinfo=UTC) <= now - pause:
        return None
    how = f"failed {len(failures)} times in a row, last" if len(failures) > 1 else "ended"
    return f"the client {how} less than {pause} ago"
