"""The gates and costs that the settings ask for, as the statistics take them."""

from __future__ import annotations

from garch_platform.bars import Timeframe
from garch_platform.quant.pairs.rules import ClassicGates, HonestGates, SelectionRules
from garch_platform.settings import Settings

__all__ = ["selection_rules"]


def selection_rules(settings: Settings, timeframe: Timeframe | None = None) -> SelectionRules:
    """Rules for bars of ``timeframe`` (of the formation timeframe if None).

    The correlation horizon is ``pairs.correlation_minutes`` in bars, one bar for daily bars.
    """
    pairs, bar = settings.pairs, timeframe or settings.formation_timeframe
    horizon = 1 if bar.is_daily else max(1, round(pairs.correlation_minutes / bar.minutes))
    return SelectionRules(
        honest=HonestGates(**pairs.honest.model_dump()),
        classic=ClassicGates(**pairs.classic.model_dump()),
        correlation_horizon=horizon,
        **pairs.model_dump(
            exclude={"honest", "classic", "correlation_minutes", "floor_draws", "formation_share"}
        ),
    )
