"""All definitions of one workspace: partitions, assets, checks, jobs, schedules, sensors, resources."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property, partial

import dagster as dg

from garch_platform.orchestration.assets import build_assets
from garch_platform.orchestration.checks import build_checks
from garch_platform.orchestration.io_managers import DatabaseIOManager, LakeIOManager
from garch_platform.orchestration.jobs import STREAM_JOB, build_jobs
from garch_platform.orchestration.partitions import Partitions
from garch_platform.orchestration.schedules import build_schedules
from garch_platform.orchestration.sensors import build_sensors
from garch_platform.orchestration.supervision import build_supervisor
from garch_platform.workspace import Workspace

__all__ = ["CodeLocation"]

for _announced in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=_announced)


class CodeLocation:
    """The definitions that Dagster loads for ``workspace``.

    Args:
        workspace: what the assets and sensors work on.
        clock: what the sensors take for the present moment (the system's clock if None).
    """

    def __init__(self, workspace: Workspace, *, clock: Callable[[], datetime] | None = None) -> None:
        self.workspace = workspace
        self._clock = clock or partial(datetime.now, UTC)
        self.partitions = Partitions.of(workspace.settings)

    @cached_property
    def definitions(self) -> dg.Definitions:
        """The one Definitions object; runs are in process, because a lake table has one writer."""
        jobs = {job.name: job for job in build_jobs(self.workspace.settings.timeframe)}
        return dg.Definitions(
            assets=build_assets(self.partitions),
            asset_checks=build_checks(self.partitions),
            jobs=list(jobs.values()),
            schedules=build_schedules(self.workspace, self.partitions),
            sensors=[
                *build_sensors(self.workspace, self.partitions, jobs, self._clock),
                build_supervisor(self.workspace, jobs[STREAM_JOB], self._clock),
            ],
            resources={
                "workspace": self.workspace,
                "lake_io": LakeIOManager(self.workspace),
                "database_io": DatabaseIOManager(self.workspace),
            },
            executor=dg.in_process_executor,
        )
