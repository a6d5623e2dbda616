"""What the stream client needs of the database."""

from __future__ import annotations

from typing import Any, Protocol

import polars as pl

__all__ = ["LiveDatabase"]


class LiveDatabase(Protocol):
    """Some methods of `garch_platform.store.database.Database`."""

    def insert_missing(self, table_name: str, frame: pl.DataFrame) -> int:
        """Insert rows whose key is not there; return how many were new."""
        ...

    def upsert(self, table_name: str, frame: pl.DataFrame) -> int:
        """Insert rows, or replace those with the same key."""
        ...

    def read_table(self, table_name: str, **filters: Any) -> pl.DataFrame:
        """Rows of a table."""
        ...

    def read(self, statement: str, **parameters: Any) -> pl.DataFrame:
        """Rows of a query."""
        ...
