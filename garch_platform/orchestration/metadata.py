"""What an asset shows beside its rows: table schemas, small plots, per-key status."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import polars as pl
from sqlalchemy import Table

from garch_platform.workspace.keys import KeySet

__all__ = ["database_schema", "frame_schema", "mark_failed", "plot", "without_rows"]


def frame_schema(columns: Mapping[str, Any]) -> dg.TableSchema:
    """The table schema of a lake table, from its column -> Polars type mapping."""
    return dg.TableSchema([dg.TableColumn(name, str(dtype)) for name, dtype in columns.items()])


def database_schema(table: Table) -> dg.TableSchema:
    """The table schema of a database table: types, nullability and comments."""
    return dg.TableSchema(
        [
            dg.TableColumn(
                column.name,
                str(column.type),
                description=column.comment,
                constraints=dg.TableColumnConstraints(nullable=bool(column.nullable)),
            )
            for column in table.columns
        ]
    )


def plot(draw: Callable[[Any], None], *, title: str) -> dg.MarkdownMetadataValue:
    """Render ``draw(axes)`` as a small PNG inside Markdown."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.2, 2.6), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title, fontsize=9)
    axes.tick_params(labelsize=7)
    draw(axes)
    buffer = io.BytesIO()
    FigureCanvasAgg(figure).print_png(buffer)
    return dg.MetadataValue.md(
        f"![{title}](data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()})"
    )


def mark_failed(context: dg.AssetExecutionContext, reasons: Mapping[str, str]) -> None:
    """Give each partition key in ``reasons`` the metadata ``status=failed`` and its reason.

    Keys that went well get none: Dagster looks a key up before it takes metadata for it, 16 ms each on
    SQLite, and their values are in the stores.
    """
    for key, reason in reasons.items():
        context.add_asset_metadata({"status": "failed", "reason": reason}, partition_key=key)


def without_rows(keys: KeySet, rows: pl.DataFrame, *, date_column: str | None = None) -> dict[str, str]:
    """The partition keys of ``keys`` for which ``rows`` (symbol, ``date_column``) has no row."""
    columns = ["symbol", date_column] if date_column else ["symbol"]
    present = {keys.key(*row) for row in rows.select(columns).unique().iter_rows()}
    wanted = [keys.key(name, day) for day in keys.dates or (None,) for name in keys.names]
    return {key: "no rows" for key in wanted if key not in present}
