"""What is done in one workspace, whoever asks for it: the shell, a run of Dagster's, a test.

Nothing here knows Dagster: `orchestration` calls it from assets, sensors and schedules.
"""

from garch_platform.workspace.workspace import Workspace

__all__ = ["Workspace"]
