"""Symbol maintenance: what the broker's list of assets means for the registry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING

import polars as pl

from garch_platform.orchestration.workspace import Workspace

if TYPE_CHECKING:
    from garch_platform.store.assets import AssetChanges


__all__ = ["Maintained", "maintain_symbols"]


@dataclass(frozen=True)
class Maintained:
    """What one look at the list of assets found, and what it did to the registry."""

    changes: AssetChanges
    retired: list[str]
    renamed: dict[str, str]
    """Registered symbols by the name that they have now."""
    untradable: list[str]
    """Active symbols of the registry that may not be traded now."""


def maintain_symbols(workspace: Workspace, assets: pl.DataFrame, today: date) -> Maintained:
    """Record ``assets`` (the complete list) and bring the registry in line; twice is the same as once.

    A registered symbol that was delisted is retired as of ``today``. One that was renamed is retired, and
    its new name registered with the same sector and asset class. Symbols that the broker never listed
    stay as they are.

    Raises:
        DataError: the list is empty or implausibly short; nothing was changed.
    """
    from garch_platform.store.assets import record_assets

    changes = record_assets(workspace.database, assets, today)
    entries = workspace.registry.entries()
    active = entries.filter(pl.col("retired").is_null())
    followed = {row["symbol"]: row for row in active.iter_rows(named=True)}
    renamed = {old: new for old, new in changes.renamed if old in followed}
    retired = [symbol for symbol in changes.delisted if symbol in followed and symbol not in renamed]
    for symbol in (*retired, *renamed):
        workspace.registry.retire(symbol, today)
    for old, new in renamed.items():
        if new not in followed:
            row = followed[old]
            workspace.registry.add(
                new, name=row["name"], sector=row["sector"], asset_class=row["asset_class"] or "equity"
            )
    barred = set(assets.filter(~pl.col("is_tradable"))["symbol"])
    return Maintained(changes, retired, renamed, sorted(barred & (set(followed) - {*retired, *renamed})))
