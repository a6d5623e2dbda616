"""A new workspace: its folder, a commented settings.yaml to edit, and the inbox for bars."""

from __future__ import annotations

import shutil
from pathlib import Path

from garch_platform.errors import StoreError
from garch_platform.settings import Settings, config_folder

__all__ = ["TEMPLATE", "create"]

TEMPLATE = "new-workspace.yaml"
"""Name of the settings template in the config folder."""


def create(settings: Settings) -> tuple[Path, bool]:
    """Create the folder, the inbox and ``settings.yaml`` where absent; doing it again changes nothing.

    Returns the settings file, and whether it was written now.

    Raises:
        StoreError: the folder cannot be written.
    """
    target = settings.workspace / "settings.yaml"
    written = not target.exists()
    try:
        settings.workspace.mkdir(parents=True, exist_ok=True)
        if settings.files.path is None:
            settings.files_path.mkdir(exist_ok=True)
        if written:
            shutil.copyfile(config_folder() / TEMPLATE, target)
    except OSError as error:
        raise StoreError(
            f"the workspace {settings.workspace} cannot be written ({error.strerror}); check the folder's "
            "owner, or choose another one (garch --workspace PATH)"
        ) from error
    return target, written
