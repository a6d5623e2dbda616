"""Where rows live: the lake (Delta tables), the database (SQLAlchemy) and the symbol registry (YAML)."""

from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.store.registry import SymbolRegistry
from garch_platform.store.symbols import sync_symbols

__all__ = ["Database", "Lake", "SymbolRegistry", "sync_symbols"]
