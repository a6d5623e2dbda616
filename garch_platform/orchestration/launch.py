"""Runs without a daemon: the CLI and the demo launch the same jobs in this process, in order.

Runs are stored in the workspace's DAGSTER_HOME, so the UI shows them beside scheduled ones.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cached_property

import dagster as dg
from filelock import FileLock, Timeout

from garch_platform import errors
from garch_platform.errors import GarchPlatformError
from garch_platform.orchestration.code_location import CodeLocation
from garch_platform.orchestration.instance import POSTGRES_URL_VARIABLE, prepare_dagster_home
from garch_platform.orchestration.partitions import SYMBOLS_NAME
from garch_platform.orchestration.planner import KeyRange, RequestPlanner
from garch_platform.workspace import Workspace
from garch_platform.workspace.revisions import stale_dates, stale_results

__all__ = ["Launcher", "RunOutcome", "failure"]


QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}

LAUNCHED_IN = "garch/launched_in"
"""Tag of runs that live in the process which launched them: the workspace whose lock that process holds."""

UNFINISHED = (
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
)


@dataclass(frozen=True)
class RunOutcome:
    """How one run ended; ``run_id`` is empty for a run that was left out, ``message`` says
    why it failed, or what it warns of."""

    planned: KeyRange
    run_id: str
    success: bool
    message: str


class Launcher:
    """Launches jobs of one workspace and waits for them.

    Args:
        workspace: where to run.
        now: the moment of launch (timezone-aware; the clock if None): later sessions are refused.
    """

    def __init__(self, workspace: Workspace, *, now: datetime | None = None) -> None:
        self.workspace = workspace
        self._now = now

    @cached_property
    def location(self) -> CodeLocation:
        """The definitions of the workspace."""
        return CodeLocation(self.workspace)

    @cached_property
    def instance(self) -> dg.DagsterInstance:
        """The Dagster instance in the workspace's DAGSTER_HOME."""
        home = prepare_dagster_home(
            self.workspace.settings.dagster_home,
            postgres_url=None if self.workspace.settings.demo else os.environ.get(POSTGRES_URL_VARIABLE),
        )
        os.environ["DAGSTER_HOME"] = str(home)
        return dg.DagsterInstance.from_config(str(home))

    @property
    def planner(self) -> RequestPlanner:
        """Plans requests as of now."""
        now = self._now or datetime.now(UTC)
        return RequestPlanner(
            self.workspace.settings, self.location.partitions, self.instance, now, self.workspace.retired()
        )

    def prepare(self) -> tuple[list[str], list[str]]:
        """Migrate the database, write DAGSTER_HOME, bring symbols and keys in line with the registry.

        A run whose process was killed is marked as failed: it would hold the daemon's queue.
        Returns the symbols that were added and retired.
        """
        self.workspace.prepare()
        changes = self.workspace.sync_symbols(self._now)
        self.workspace.require_start()
        wanted = self.workspace.registry.entries()["symbol"].to_list()
        present = self.instance.get_dynamic_partitions(SYMBOLS_NAME)
        added = [symbol for symbol in wanted if symbol not in present]
        if added:
            self.instance.add_dynamic_partitions(SYMBOLS_NAME, added)
        for symbol in set(present) - set(wanted):
            self.instance.delete_dynamic_partition(SYMBOLS_NAME, symbol)
        for run in self.interrupted():
            self.instance.report_run_failed(
                run, "its process ended before the run did; launch its keys again"
            )
        return changes

    def interrupted(self) -> list[dg.DagsterRun]:
        """Runs of this launcher whose process is gone: unfinished, though nobody holds the launch lock."""
        place = {LAUNCHED_IN: str(self.workspace.settings.workspace)}
        unfinished = dg.RunsFilter(statuses=list(UNFINISHED), tags=place)
        if not self.instance.get_runs(unfinished):
            return []
        try:
            with self._lock():
                return list(self.instance.get_runs(unfinished))
        except Timeout:
            return []

    def _lock(self) -> FileLock:
        return FileLock(self.workspace.settings.workspace / "launch.lock", timeout=0)

    def run(self, planned: Sequence[KeyRange]) -> Iterator[RunOutcome]:
        """Run one after the other; a run that builds on one that has failed is left out.

        Sessions of a symbol build on its bulk past, a ranking on its session. A later session does not
        wait for an earlier one: what arrives late is a revision.

        Raises:
            GarchPlatformError: another process is launching runs in this workspace.
        """
        lock = self._lock()
        try:
            lock.acquire()
        except Timeout:
            raise GarchPlatformError(
                f"another process is running jobs in {self.workspace.settings.workspace}; "
                "wait for it to end, or see its runs in the UI (`garch ui`)"
            ) from None
        failed: list[KeyRange] = []
        try:
            for one in planned:
                cause = next((other for other in failed if one.builds_on(other)), None)
                outcome = self._run(one) if cause is None else _left_out(one, cause)
                if not outcome.success:
                    failed.append(one)
                yield outcome
        finally:
            lock.release()

    def _run(self, planned: KeyRange) -> RunOutcome:
        job = self.location.definitions.resolve_job_def(planned.job)
        place = {LAUNCHED_IN: str(self.workspace.settings.workspace)}
        options = {
            name: {"config": dict(planned.options)} for name in job.graph.node_names() if planned.options
        }
        result = job.execute_in_process(
            instance=self.instance,
            tags=planned.tags | place,
            run_config={**QUIET, "ops": options},
            raise_on_error=False,
        )
        message = _warnings(result) if result.success else failure(result)
        return RunOutcome(planned, result.run_id, result.success, message)

    def stale_plan(self) -> list[KeyRange]:
        """Runs that bring every stale result up to date: bulk past, then days and rankings, oldest first.

        Results of symbols that are no longer followed stay as they are.
        """
        followed = [*self.planner.symbol_keys(), *self.workspace.settings.universe.sectors.active]
        found = stale_results(self.workspace)
        stale = found.filter(found["name"].is_in(followed))
        bulk = stale.filter(stale["asset"] == "feature_history")
        of_symbols = stale.filter(stale["asset"] != "pair_rankings")
        dates = stale_dates(self.workspace, of_symbols.rename({"name": "symbol", "date": "session_date"}))
        ranked = stale.filter(stale["asset"] == "pair_rankings")["date"]
        history = self.planner.history(sorted(set(bulk["name"]))) if len(bulk) else []
        daily = [run for day, symbols in dates for run in self.planner.daily(day, day, symbols)]
        days: list[date] = sorted({*ranked, *(day for day, _ in dates)})
        return history + daily + [run for day in days for run in self.planner.ranking(day, day)]


def _left_out(planned: KeyRange, cause: KeyRange) -> RunOutcome:
    return RunOutcome(planned, "", False, f"left out, because {cause.job} {cause.label} failed")


def _warnings(result: dg.ExecuteInProcessResult) -> str:
    """What the checks of a successful run ask a person to look at: unreadable files, bars that were kept."""
    return "\n".join(
        f"{one.asset_key.to_user_string()}: {one.description}"
        for one in result.get_asset_check_evaluations()
        if not one.passed and one.description
    )


def failure(result: dg.ExecuteInProcessResult) -> str:
    """Why a run failed: what its checks say, the platform's own error, or else the whole traceback."""
    checks = [
        f"{one.asset_key.to_user_string()}: {one.check_name}: {one.description or 'failed'}"
        for one in result.get_asset_check_evaluations()
        if not one.passed and one.severity is dg.AssetCheckSeverity.ERROR
    ]
    if checks:
        return "\n".join(checks)
    for event in result.get_step_failure_events():
        error = event.step_failure_data.error
        cause = error
        while cause is not None:
            if cause.cls_name in errors.__all__:
                return f"{cause.cls_name}: {cause.message.partition(': ')[2].strip()}"
            cause = cause.cause
        if error is not None:
            return error.to_string()
    return "the run failed outside its steps; see the runs page of `garch ui`"
