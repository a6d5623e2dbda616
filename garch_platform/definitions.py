"""The Definitions object that ``workspace.yaml`` and ``dagster`` commands load.

The workspace is the one that the settings name (``GARCH_WORKSPACE``).
"""

from garch_platform.orchestration.code_location import CodeLocation
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace

__all__ = ["defs"]

defs = CodeLocation(Workspace(load_settings())).definitions
