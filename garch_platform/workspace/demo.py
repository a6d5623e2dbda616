"""The demo's two workspaces, and what was found in the simulated market against what was planted."""

from __future__ import annotations

import shutil
from pathlib import Path

import polars as pl

from garch_platform.errors import ConfigurationError
from garch_platform.quant.pairs.rules import PROFILES
from garch_platform.settings import config_folder, load_settings
from garch_platform.sources import SimulatedSource
from garch_platform.workspace import Workspace

__all__ = ["DEMOS", "found_against_planted", "open_demo"]

DEMOS = {
    "demo-real": "real daily closes of US stocks, 1990 to 2022, shipped with skfolio",
    "demo-simulated": "a simulated 1-minute market whose cointegrated pairs are known",
}
"""The demo's workspaces and what each holds."""


def open_demo(name: str, root: Path) -> Workspace:
    """Create (once) and open the demo workspace ``root/name``."""
    folder = root / name
    folder.mkdir(parents=True, exist_ok=True)
    settings_file = folder / "settings.yaml"
    template = config_folder() / f"{name}.yaml"
    if not settings_file.is_file() or settings_file.read_bytes() != template.read_bytes():
        shutil.copyfile(template, settings_file)
    workspace = Workspace(load_settings(folder))
    workspace.prepare()
    if not workspace.registry.path.is_file():
        ended = pl.col("last_session") < workspace.settings.trading_days.start
        stopped = pl.when(ended).then(pl.col("last_session") + pl.duration(days=1))
        workspace.registry.write_new(workspace.source.symbols().with_columns(retired=stopped))
    return workspace


def found_against_planted(workspace: Workspace) -> pl.DataFrame:
    """One row a planted pair: its truth, and the evidence and verdict of the last ranking."""
    source = workspace.source
    if not isinstance(source, SimulatedSource):
        raise ConfigurationError(f"only a simulated market has a known truth; this source is {source.name!r}")
    rankings = workspace.database.read_table(
        "pair_rankings", ranking_date=[workspace.settings.trading_days.end]
    )
    bar_minutes = workspace.settings.formation_timeframe.minutes / workspace.settings.timeframe.minutes
    found = rankings.select(
        "symbol_1",
        "symbol_2",
        "coint_pvalue",
        "confirmation_qvalue",
        *(f"{profile}_{name}" for profile in PROFILES for name in ("rank", "reason")),
        half_life_found=pl.col("half_life") * bar_minutes,
    )
    return source.truth().join(found, on=["symbol_1", "symbol_2"], how="left").sort("half_life_bars")
