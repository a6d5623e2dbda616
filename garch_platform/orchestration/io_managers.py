"""I/O managers that write and read *sets* of partition keys, each write an idempotent replace.

Dagster's stock I/O managers refuse sets of multi-partition keys. Table names come from the asset's
definition metadata (``table``).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import date
from typing import Any

import dagster as dg
import polars as pl

from garch_platform.errors import StoreError
from garch_platform.workspace import Workspace
from garch_platform.workspace.keys import KeySet

__all__ = ["DatabaseIOManager", "LakeIOManager"]

Slice = tuple[list[str], date | None, date]


def _upstream_metadata(context: dg.InputContext) -> Mapping[str, Any]:
    if context.upstream_output is None:
        raise StoreError(f"input {context.name} comes from no asset; only assets of this graph can be loaded")
    return context.upstream_output.definition_metadata


class LakeIOManager(dg.IOManager):
    """Rows of the lake: symbol x date keys, or symbol keys that own all before ``history_end``."""

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    def _slices(self, keys: KeySet) -> Iterator[Slice]:
        if not keys.dates:
            for symbols, last_day in self._workspace.history_groups(keys.names):
                yield symbols, None, last_day
        else:
            for start, end in keys.stretches(self._workspace.calendar):
                yield list(keys.names), start, end

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame) -> None:
        """Replace exactly the rows of the run's keys by ``obj``."""
        keys = KeySet.of(context.asset_partition_keys)
        table = context.definition_metadata["table"]
        version = None
        for symbols, start, end in self._slices(keys):
            inside = pl.col("symbol").is_in(symbols) & (pl.col("session_date") <= end)
            if start is not None:
                inside &= pl.col("session_date") >= start
            version = self._workspace.lake.replace(
                table,
                obj.filter(inside),
                timeframe=self._workspace.settings.timeframe.name,
                symbols=symbols,
                start=start,
                end=end,
            )
        context.add_output_metadata({"dagster/row_count": len(obj), "lake_version_written": version})

    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        """Read the rows of the upstream keys."""
        keys = KeySet.of(context.asset_partition_keys)
        table = _upstream_metadata(context)["table"]
        frames = [
            self._workspace.lake.scan(
                table,
                timeframe=self._workspace.settings.timeframe.name,
                symbols=symbols,
                start=start,
                end=end,
            ).collect()
            for symbols, start, end in self._slices(keys)
        ]
        return pl.concat(frames).sort("symbol", "timestamp")


class DatabaseIOManager(dg.IOManager):
    """Rows of a database table keyed by (symbol or sector, date).

    The asset's definition metadata names the two key columns (``name_column``, ``date_column``).
    """

    def __init__(self, workspace: Workspace) -> None:
        self._workspace = workspace

    @staticmethod
    def _where(metadata: Mapping[str, Any], keys: KeySet) -> dict[str, list[Any]]:
        return {metadata["name_column"]: list(keys.names), metadata["date_column"]: list(keys.dates)}

    def handle_output(self, context: dg.OutputContext, obj: pl.DataFrame) -> None:
        """Replace the rows of the run's keys by ``obj`` in one transaction."""
        metadata = context.definition_metadata
        keys = KeySet.of(context.asset_partition_keys)
        self._workspace.database.replace(metadata["table"], obj, where=self._where(metadata, keys))
        context.add_output_metadata({"dagster/row_count": len(obj)})

    def load_input(self, context: dg.InputContext) -> pl.DataFrame:
        """Read the rows of the upstream keys."""
        metadata = _upstream_metadata(context)
        keys = KeySet.of(context.asset_partition_keys)
        return self._workspace.database.read_table(metadata["table"], **self._where(metadata, keys))
