"""Symbol maintenance: what the broker's list of assets means for the registry."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

import polars as pl

from garch_platform.errors import DataError
from garch_platform.store.assets import AssetChanges, record_assets
from garch_platform.workspace import Workspace

__all__ = ["Maintained", "maintain_symbols", "recorded_renames"]

FEW, SHARE = 3, 0.1
"""Registered symbols, and the share of them, that may be delisted between two looks and be believed."""


@dataclass(frozen=True)
class Maintained:
    """What one look at the list of assets found, and what it did to the registry.

    Attributes:
        changes: against the list before.
        retired: registered symbols that were delisted.
        renamed: registered symbols by the name that they have now.
        passed_on: those of them whose old name another asset bears now. It is retired: what is stored under
            it is not that asset's.
        returned: symbols that were retired so and are listed again.
        untradable: symbols that stay registered and may not be traded at present.
    """

    changes: AssetChanges
    retired: list[str]
    renamed: dict[str, str]
    passed_on: list[str]
    returned: list[str]
    untradable: list[str]


def maintain_symbols(workspace: Workspace, assets: pl.DataFrame, today: date) -> Maintained:
    """Record ``assets`` (the complete list) and bring the registry in line; twice is the same as once.

    A registered symbol that was delisted is retired as of the day on which that was seen, and returns when
    the broker lists it again. One that was renamed is retired, and its new name registered with the same
    sector and asset class, also where another asset has taken the old name over. Symbols that the broker
    never listed stay as they are. What to do follows from what is recorded, so that a run which was
    interrupted is completed by the next.

    Raises:
        DataError: the list is empty or implausibly short, or would retire more registered symbols at once
            than is believable; the registry was not changed.
    """
    changes = record_assets(workspace.database, assets, today)
    recorded = workspace.database.read_table("broker_assets")
    active = set(recorded.filter(pl.col("status") == "active")["symbol"])
    entries = workspace.registry.entries()
    registered = set(entries["symbol"])
    current = entries.filter(pl.col("retired").is_null())
    followed = {row["symbol"]: row for row in current.iter_rows(named=True)}
    left = set(followed) - active
    delisted = dict(recorded.drop_nulls("delisted_on").select("symbol", "delisted_on").iter_rows())
    recorded_names = recorded_renames(workspace)
    renames = {old: new for old, new in recorded_names.items() if old in followed and new in active}
    passed_on = sorted(old for old, new in renames.items() if old in active and new not in registered)
    renamed = {old: new for old, new in renames.items() if old in left or old in passed_on}
    retired = sorted((left & set(delisted)) - set(renamed))
    if len(retired) > max(FEW, SHARE * len(followed)):
        raise DataError(
            f"the list of assets would retire {len(retired)} of {len(followed)} registered symbols at once "
            f"(such as {retired[0]}): none was; if it is right, run `garch symbols retire SYMBOL --on DATE` for them"
        )
    returned = _returned(workspace, active)
    for symbol in returned:
        workspace.registry.add(symbol)
    for symbol in retired:
        workspace.registry.retire(symbol, delisted[symbol])
    for old, new in renamed.items():
        if new not in registered or recorded_names.get(new) == old:
            workspace.registry.rename(old, new, today)
        else:
            workspace.registry.retire(old, today)
    barred = set(assets.filter(~pl.col("is_tradable"), pl.col("status") == "active")["symbol"])
    return Maintained(changes, retired, renamed, passed_on, returned, sorted(barred & set(followed)))


def _returned(workspace: Workspace, active: set[str]) -> list[str]:
    """Symbols that were retired for a recorded delisting and are listed again."""
    events = workspace.database.read_table("symbol_events", event=["delisted"])
    delisted = set(events.select("symbol", "event_date").iter_rows())
    entries = workspace.registry.entries().drop_nulls("retired").select("symbol", "retired")
    return [symbol for symbol, on in entries.iter_rows() if symbol in active and (symbol, on) in delisted]


def recorded_renames(workspace: Workspace) -> dict[str, str]:
    """Every recorded rename: old symbol and new, the latest of each."""
    events = workspace.database.read_table("symbol_events", event=["renamed"]).sort("event_date")
    return {row["symbol"]: row["detail"].rpartition(" ")[2] for row in events.iter_rows(named=True)}
