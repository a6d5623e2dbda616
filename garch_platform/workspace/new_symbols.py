"""Registering symbols: what the directory of US symbols knows of them, and what must be said."""

from __future__ import annotations

from collections.abc import Sequence

import polars as pl

from garch_platform.bars import validate_symbol
from garch_platform.errors import SymbolError
from garch_platform.settings import ALL_SYMBOLS
from garch_platform.sources.directory import SECTORS
from garch_platform.workspace import Workspace

__all__ = ["register", "unranked"]


def register(
    workspace: Workspace, symbols: Sequence[str], *, sector: str | None = None, name: str | None = None
) -> dict[str, str | None]:
    """Add ``symbols`` to the registry, all of them or none; return each one's sector.

    Name, sector and asset class that are not given are looked up in the directory of US symbols.

    Raises:
        SymbolError: a symbol is malformed, doubled or already registered; the sector is unknown, or the
            directory does not have the symbol and only single sectors are ranked.
    """
    _require_new(workspace, symbols)
    _require_known_sector(workspace, sector)
    known = workspace.describe(symbols)
    strangers = [symbol for symbol in symbols if symbol not in known]
    if strangers and sector is None and ALL_SYMBOLS not in workspace.settings.universe.sectors.active:
        raise SymbolError(
            f"the directory of US symbols does not have {', '.join(strangers)}; say the sector: "
            f"garch symbols add {' '.join(strangers)} --sector {workspace.settings.universe.sectors.active[0]}"
        )
    sectors = {}
    for symbol in symbols:
        entry = known.get(symbol, {})
        sectors[symbol] = sector or entry.get("sector")
        workspace.registry.add(
            symbol,
            name=name or entry.get("name"),
            sector=sectors[symbol],
            asset_class=entry.get("asset_class") or "equity",
        )
    return sectors


def unranked(workspace: Workspace, sectors: dict[str, str | None]) -> list[str]:
    """A sentence for each sector of ``sectors`` (by symbol) whose pairs are not ranked as things stand."""
    active = workspace.settings.universe.sectors.active
    if ALL_SYMBOLS in active:
        return []
    notes = []
    for sector in sorted(set(sectors.values()) - set(active), key=str):
        names = ", ".join(symbol for symbol, own in sectors.items() if own == sector)
        what = f"{sector} is not active" if sector else "no sector"
        notes.append(
            f"{names}: {what}, so kept but not ranked; universe.sectors.active is {', '.join(active)} "
            f"('{ALL_SYMBOLS}' ranks every symbol)"
        )
    return notes


def _require_new(workspace: Workspace, symbols: Sequence[str]) -> None:
    entries = workspace.registry.entries().filter(pl.col("retired").is_null())
    present = set(entries["symbol"])
    for position, symbol in enumerate(symbols):
        if validate_symbol(symbol) in present:
            raise SymbolError(
                f"symbol {symbol} is already registered in {workspace.registry.path}; edit its entry there"
            )
        if symbol in symbols[:position]:
            raise SymbolError(f"symbol {symbol} is given twice; name it once")


def _require_known_sector(workspace: Workspace, sector: str | None) -> None:
    known = dict.fromkeys([*workspace.settings.universe.sectors.available, *SECTORS])
    if sector is not None and sector not in known:
        raise SymbolError(
            f"sector {sector!r} is not known; use one of {', '.join(known)}, "
            "or add yours to universe.sectors.available in the workspace's settings.yaml"
        )
