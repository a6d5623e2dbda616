"""Settings: one typed tree, read from YAML files and the environment; secrets from the environment alone."""

from __future__ import annotations

from garch_platform.settings.live import Secrets, load_secrets
from garch_platform.settings.sections import ALL_SYMBOLS
from garch_platform.settings.tree import Settings, config_folder, load_settings

__all__ = ["ALL_SYMBOLS", "Secrets", "Settings", "config_folder", "load_secrets", "load_settings"]
