"""From the registry to the table `symbols`."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from typing import NamedTuple

import polars as pl

from garch_platform.errors import DataError
from garch_platform.store.database import Database
from garch_platform.store.registry import SymbolRegistry
from garch_platform.store.schema import METADATA, polars_type

__all__ = ["SymbolChanges", "sync_symbols"]


class SymbolChanges(NamedTuple):
    """What `sync_symbols` changed: symbols that became active and symbols that ceased to be."""

    added: list[str]
    retired: list[str]


def sync_symbols(
    registry: SymbolRegistry, database: Database, now: datetime, history_end: date | None
) -> SymbolChanges:
    """Bring the table `symbols` in line with the registry; doing it again changes nothing.

    Rows are never deleted: a symbol that was retired or taken out of the registry becomes inactive, and
    one that returns becomes active again.

    Args:
        registry: the symbols that should be.
        database: its table `symbols` is written.
        now: timezone-aware; a retirement counts from its date on.
        history_end: for symbols that are new: their bulk past ends before this session.

    Returns:
        Symbols added (or active again) in the registry's order, and symbols retired in alphabetical order.
    """
    if now.tzinfo is None:
        raise DataError(f"the time {now} has no time zone; give it in UTC (tzinfo=datetime.UTC)")
    today = now.astimezone(UTC).date()
    entries = registry.entries()
    stored = database.read_table("symbols")
    before = {row["symbol"]: row for row in stored.to_dicts()}
    rows = []
    for entry in entries.to_dicts():
        retired = entry.pop("retired")
        old = before.get(entry["symbol"], {"history_end": history_end, "added_at": now})
        active = retired is None or retired > today
        retired_at = None if active else datetime.combine(retired, time(), UTC)
        kept = {name: old[name] for name in ("history_end", "added_at")}
        rows.append({**entry, **kept, "is_active": active, "retired_at": retired_at})
    listed = set(entries["symbol"])
    for symbol, old in before.items():
        if symbol not in listed and old["is_active"]:
            rows.append({name: old[name] for name in COLUMNS} | {"is_active": False, "retired_at": now})
    changed = [
        row for row in rows if any(before.get(row["symbol"], {}).get(key, ...) != row[key] for key in row)
    ]
    if changed:
        database.upsert("symbols", pl.DataFrame(changed, schema=_schema(), orient="row"))
    was_active = {symbol for symbol, row in before.items() if row["is_active"]}
    return SymbolChanges(
        [row["symbol"] for row in rows if row["is_active"] and row["symbol"] not in was_active],
        sorted(row["symbol"] for row in rows if not row["is_active"] and row["symbol"] in was_active),
    )


COLUMNS = ("symbol", "name", "sector", "asset_class", "is_active", "history_end", "added_at", "retired_at")


def _schema() -> dict[str, pl.DataType | type[pl.DataType] | None]:
    return {name: polars_type(METADATA.tables["symbols"].columns[name].type) for name in COLUMNS}
