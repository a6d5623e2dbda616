"""What an asset shows beside its rows: table schemas, small plots, per-key status."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from typing import Any

import dagster as dg
import polars as pl
from sqlalchemy import Table

from garch_platform.orchestration.partitions import KeySet

__all__ = ["database_schema", "frame_schema", "plot", "report_keys"]

STATUS_COLUMN = "status"


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


def report_keys(
    context: dg.AssetExecutionContext, keys: KeySet, rows: pl.DataFrame, *, date_column: str | None = None
) -> None:
    """Attach each row's values to its own partition key.

    ``rows`` has ``symbol``, ``date_column`` (if the asset is dated) and the values to show; a key
    without a row is marked ``status=failed``, so that downstream and ``garch retry`` can see it.
    """
    names = ["symbol", date_column] if date_column else ["symbol"]
    values = {tuple(row[name] for name in names): row for row in rows.iter_rows(named=True)}
    for day in keys.dates or (None,):
        for symbol in keys.names:
            row = values.get(
                (symbol, day) if date_column else (symbol,), {STATUS_COLUMN: "failed", "reason": "no rows"}
            )
            shown = {name: value for name, value in row.items() if name not in names and value is not None}
            context.add_asset_metadata(shown, partition_key=keys.key(symbol, day))
