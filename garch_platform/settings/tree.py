"""Settings: one typed tree, read from YAML files and the environment.

Later sources win: ``config/base.yaml``, ``config/<GARCH_ENV>.yaml``, ``settings.yaml`` of the
workspace, ``.env``, environment variables (``GARCH_`` and ``__`` between levels). Defaults stand in
``config/base.yaml`` only. Secrets are read from the environment and never from YAML.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import yaml
from dotenv import dotenv_values
from pydantic import ValidationError, model_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    SettingsError,
    YamlConfigSettingsSource,
)

from garch_platform.bars import Timeframe
from garch_platform.errors import ConfigurationError
from garch_platform.sessions import TradingCalendar, trading_calendar
from garch_platform.settings.live import Alpaca, Websocket, Yahoo
from garch_platform.settings.sections import (
    Features,
    Files,
    Formation,
    Garch,
    Pairs,
    Quality,
    Simulated,
    Stability,
    Storage,
    TradingDays,
    Universe,
)

__all__ = ["Settings", "config_folder", "load_settings"]

ENV_FILE = ".env"
ENVIRONMENTS = ("dev", "test", "prod")


SafeLoader: Final = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
"""libyaml's parser where PyYAML was built with it: ten times as fast."""


class Settings(BaseSettings):
    """All settings of one workspace; immutable."""

    model_config = SettingsConfigDict(
        env_prefix="GARCH_", env_nested_delimiter="__", env_file=ENV_FILE, extra="ignore", frozen=True
    )

    workspace: Path
    demo: bool
    universe: Universe
    trading_days: TradingDays
    features: Features
    formation: Formation
    stability: Stability
    garch: Garch
    pairs: Pairs
    quality: Quality
    storage: Storage
    files: Files
    simulated: Simulated
    alpaca: Alpaca
    yahoo: Yahoo
    websocket: Websocket

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        chosen = getattr(init_settings, "init_kwargs", {}).get("workspace")
        files = _YamlFiles(settings_cls, yaml_file=_setting_files(chosen), deep_merge=True)
        return init_settings, env_settings, dotenv_settings, files

    @model_validator(mode="after")
    def _consistent(self) -> Settings:
        if self.formation_timeframe.duration < self.timeframe.duration:
            raise ValueError(
                f"formation.timeframe {self.formation_timeframe} is shorter than "
                f"universe.timeframe {self.timeframe}; bars can only be resampled to longer ones"
            )
        if self.universe.source in ("sample", "simulated") and not self.demo:
            raise ValueError(
                f"universe.source {self.universe.source!r} is for demo workspaces only; "
                "set demo: true in the workspace's settings.yaml, or use your own bars (source: files)"
            )
        return self

    @property
    def timeframe(self) -> Timeframe:
        """Length of the stored bars."""
        return Timeframe.parse(self.universe.timeframe)

    @property
    def formation_timeframe(self) -> Timeframe:
        """Length of the bars on which models are estimated."""
        return Timeframe.parse(self.formation.timeframe or self.universe.timeframe)

    @property
    def calendar(self) -> TradingCalendar:
        """Sessions of the exchange."""
        return trading_calendar(self.universe.calendar)

    @property
    def lake_url(self) -> str:
        """Folder or object-store URL of the lake; a demo's is always its own folder."""
        return (not self.demo and self.storage.lake_url) or str(self.workspace / "lake")

    @property
    def database_url(self) -> str:
        """SQLAlchemy URL of the platform's own tables; a demo's is always SQLite in its own folder."""
        return (not self.demo and self.storage.database_url) or f"sqlite:///{self.workspace / 'garch.db'}"

    @property
    def files_path(self) -> Path:
        """Where the `files` source looks."""
        return self.files.path or self.workspace / "inbox"

    @property
    def dagster_home(self) -> Path:
        """Dagster's own folder."""
        return self.workspace / "dagster"

    @property
    def registry_path(self) -> Path:
        """The symbol registry (YAML)."""
        return self.workspace / "symbols.yaml"


class _YamlFiles(YamlConfigSettingsSource):
    def _read_file(self, file_path: Any) -> dict[str, Any]:
        return _read_yaml(file_path)


def config_folder() -> Path:
    """The folder that holds base.yaml: ``GARCH_CONFIG`` or ``config`` beside the package."""
    folder = Path(os.environ.get("GARCH_CONFIG") or Path(__file__).resolve().parents[2] / "config")
    if not (folder / "base.yaml").is_file():
        raise ConfigurationError(f"no base.yaml in {folder}; point GARCH_CONFIG at the config folder")
    return folder


def _variables() -> dict[str, str | None]:
    return {**dotenv_values(ENV_FILE), **os.environ}


def _setting_files(workspace: str | Path | None = None) -> list[Path]:
    """The YAML files that exist, later ones winning; ``workspace`` wins over every setting of it."""
    variables = _variables()
    environment = variables.get("GARCH_ENV") or "dev"
    if environment not in ENVIRONMENTS:
        raise ConfigurationError(
            f"GARCH_ENV={environment!r} is not known; use one of {', '.join(ENVIRONMENTS)}"
        )
    files = [config_folder() / "base.yaml", config_folder() / f"{environment}.yaml"]
    values = {key: value for file in files if file.is_file() for key, value in _read_yaml(file).items()}
    if home := workspace or variables.get("GARCH_WORKSPACE") or values.get("workspace"):
        files.append(Path(home).expanduser() / "settings.yaml")
    present = [file for file in files if file.is_file()]
    for file in present:
        _read_yaml(file)
    return present


def _read_yaml(file: Path) -> dict[str, Any]:
    try:
        values = yaml.load(file.read_text("utf-8"), Loader=SafeLoader) or {}  # noqa: S506 - safe, in C
    except yaml.YAMLError as error:
        raise ConfigurationError(f"{file} is not valid YAML: {error}") from None
    if not isinstance(values, dict):
        raise ConfigurationError(f"{file} holds a {type(values).__name__}; write sections of settings")
    unknown = sorted(set(values) - set(Settings.model_fields))
    if unknown:
        raise ConfigurationError(
            f"{file} has unknown settings {', '.join(map(str, unknown))}; "
            f"the sections are {', '.join(Settings.model_fields)}"
        )
    return values


def _require_known_variables() -> None:
    for name in _variables():
        section, nested, _ = name.upper().removeprefix("GARCH_").partition("__")
        if name.upper().startswith("GARCH_") and nested and section.lower() not in Settings.model_fields:
            raise ConfigurationError(
                f"the variable {name} names no section of settings; "
                f"the sections are {', '.join(Settings.model_fields)}"
            )


def load_settings(workspace: Path | None = None, **overrides: Any) -> Settings:
    """Read the settings of ``workspace`` (of ``GARCH_WORKSPACE`` or the configured one if None).

    ``overrides`` win over every file and variable.

    Raises:
        ConfigurationError: a value is missing, unknown or out of range; the message names the setting.
    """
    _require_known_variables()
    if workspace is not None:
        overrides["workspace"] = workspace
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        lines = [
            f"{'.'.join(str(part) for part in problem['loc']) or 'settings'}: {problem['msg']}"
            f" (got {problem['input']!r})"
            if problem["loc"]
            else problem["msg"]
            for problem in error.errors()
        ]
        raise ConfigurationError("the settings are not valid:\n  " + "\n  ".join(lines)) from None
    except SettingsError as error:
        raise ConfigurationError(
            f"a variable cannot be read ({error}): {error.__cause__}; write lists and mappings as JSON"
        ) from None
    return settings.model_copy(update={"workspace": settings.workspace.expanduser().absolute()})
