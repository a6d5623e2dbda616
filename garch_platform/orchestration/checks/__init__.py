"""Asset checks: every one returns the rows at fault; only faults of a whole batch block."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import dagster as dg

from garch_platform.orchestration.checks import bars, models
from garch_platform.orchestration.partitions import Partitions

__all__ = ["build_checks"]


def build_checks(partitions: Partitions) -> list[dg.AssetChecksDefinition]:
    """Bind the checks to their assets and to the partitions of one workspace."""
    by_day, by_sector = partitions.symbol_days, partitions.sector_days
    table: list[tuple[str, Callable[..., dg.AssetCheckResult], bool, Any]] = [
        ("bar_history", bars.history_quality, True, partitions.symbols),
        ("raw_bars", bars.batch_quality, True, by_day),
        ("raw_bars", bars.bar_contract, True, by_day),
        ("raw_bars", bars.duplicates, True, by_day),
        ("raw_bars", bars.gaps, False, by_day),
        ("raw_bars", bars.outliers, False, by_day),
        ("features", models.feature_keys, True, by_day),
        ("features", models.no_look_ahead, False, by_day),
        ("garch_models", models.fit_health, False, by_day),
        ("pair_rankings", models.no_self_pairs, True, by_sector),
        ("pair_rankings", models.inputs_current, False, None),
    ]
    return [
        dg.asset_check(
            asset=asset, name=body.__name__, description=body.__doc__, blocking=blocking, partitions_def=keys
        )(body)
        for asset, body, blocking, keys in table
    ]
