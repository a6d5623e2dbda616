"""How a check shows the rows at fault."""

from __future__ import annotations

from typing import Any

import dagster as dg
import polars as pl

from garch_platform.workspace.keys import KeySet

__all__ = ["evidence", "flag_keys"]

SHOWN_ROWS = 20


def evidence(rows: pl.DataFrame) -> dict[str, Any]:
    """Metadata with the number of bad rows and the first of them as a table."""
    shown = rows.head(SHOWN_ROWS).with_columns(pl.selectors.temporal().cast(pl.String))
    records = [dg.TableRecord(row) for row in shown.iter_rows(named=True)]
    table = {"bad_rows": dg.MetadataValue.table(records)} if records else {}
    return {"bad_row_count": len(rows), **table}


def flag_keys(
    context: dg.AssetCheckExecutionContext, keys: KeySet, rows: pl.DataFrame, date_column: str
) -> None:
    """Log a failing WARN evaluation for each key named in ``rows`` (symbol, ``date_column``, detail).

    A range run evaluates a check once; this adds the verdict to the single keys at fault.
    """
    (check_key,) = context.selected_asset_check_keys
    for symbol, day, detail in rows.select("symbol", date_column, "detail").iter_rows():
        evaluation = dg.AssetCheckEvaluation(
            asset_key=check_key.asset_key,
            check_name=check_key.name,
            passed=False,
            severity=dg.AssetCheckSeverity.WARN,
            metadata={"detail": detail},
            partition=keys.key(symbol, day),
        )
        context.op_execution_context.log_event(evaluation)  # type: ignore[arg-type]  # it takes them: see its body
