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

from garch_platform.errors import GarchPlatformError
from garch_platform.orchestration.code_location import CodeLocation
from garch_platform.orchestration.instance import POSTGRES_URL_VARIABLE, prepare_dagster_home
from garch_platform.orchestration.partitions import SYMBOLS_NAME
from garch_platform.orchestration.planner import KeyRange, RequestPlanner
from garch_platform.orchestration.revisions import stale_dates, stale_results
from garch_platform.orchestration.workspace import Workspace

__all__ = ["Launcher", "RunOutcome"]


QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass(frozen=True)
class RunOutcome:
    """How one run ended."""

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
            self.workspace.settings.dagster_home, postgres_url=os.environ.get(POSTGRES_URL_VARIABLE)
        )
        os.environ["DAGSTER_HOME"] = str(home)
        return dg.DagsterInstance.from_config(str(home))

    @property
    def planner(self) -> RequestPlanner:
        """Plans requests as of now."""
        now = self._now or datetime.now(UTC)
        return RequestPlanner(self.workspace.settings, self.location.partitions, self.instance, now)

    def prepare(self) -> tuple[list[str], list[str]]:
        """Migrate the database, write DAGSTER_HOME, bring symbols and keys in line with the registry.

        Returns the symbols that were added and retired.
        """
        self.workspace.prepare()
        changes = self.workspace.sync_symbols(self._now)
        wanted = self.workspace.registry.entries()["symbol"].to_list()
        present = self.instance.get_dynamic_partitions(SYMBOLS_NAME)
        added = [symbol for symbol in wanted if symbol not in present]
        if added:
            self.instance.add_dynamic_partitions(SYMBOLS_NAME, added)
        for symbol in set(present) - set(wanted):
            self.instance.delete_dynamic_partition(SYMBOLS_NAME, symbol)
        return changes

    def run(self, planned: Sequence[KeyRange]) -> Iterator[RunOutcome]:
        """Run one after the other; stop the day's later steps after a failure is the caller's choice.

        Raises:
            GarchPlatformError: another process is launching runs in this workspace.
        """
        lock = FileLock(self.workspace.settings.workspace / "launch.lock", timeout=0)
        try:
            lock.acquire()
        except Timeout:
            raise GarchPlatformError(
                f"another process is running jobs in {self.workspace.settings.workspace}; "
                "wait for it to end, or see its runs in the UI (`garch ui`)"
            ) from None
        with lock:
            for one in planned:
                yield self._run(one)

    def _run(self, planned: KeyRange) -> RunOutcome:
        job = self.location.definitions.resolve_job_def(planned.job)
        result = job.execute_in_process(
            instance=self.instance, tags=planned.tags, run_config=QUIET, raise_on_error=False
        )
        failures = [
            event.step_failure_data.error.to_string() if event.step_failure_data.error else "step failed"
            for event in result.get_step_failure_events()
            if event.step_failure_data
        ]
        return RunOutcome(planned, result.run_id, result.success, failures[0] if failures else "")

    def stale_plan(self) -> list[KeyRange]:
        """Runs that bring every stale result up to date: bulk past, then days and rankings, oldest first."""
        stale = stale_results(self.workspace)
        bulk = stale.filter(stale["asset"] == "feature_history")
        of_symbols = stale.filter(stale["asset"] != "pair_rankings")
        dates = stale_dates(self.workspace, of_symbols.rename({"name": "symbol", "date": "session_date"}))
        ranked = stale.filter(stale["asset"] == "pair_rankings")["date"]
        history = self.planner.history(sorted(set(bulk["name"]))) if len(bulk) else []
        daily = [run for day, symbols in dates for run in self.planner.daily(day, day, symbols)]
        days: list[date] = sorted({*ranked, *(day for day, _ in dates)})
        return history + daily + [run for day in days for run in self.planner.ranking(day, day)]
