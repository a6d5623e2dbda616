"""Frames and numbers as text for the terminal."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import polars as pl
from rich import box
from rich.cells import cell_len
from rich.table import Table

__all__ = ["escaped", "fits", "frame_table", "number", "plain_table", "records_table", "shown"]

SHOWN_ROWS = 200


def number(value: float | None, digits: int = 3) -> str:
    """``value`` with ``digits`` decimals; with three or more, a value that they would hide as 1.2e-5."""
    if value is None:
        return ""
    if digits >= 3 and value and abs(value) < 2 * 10.0**-digits:
        return f"{value:.1e}".replace("e-0", "e-")
    return f"{value:,.{digits}f}"


def frame_table(frame: pl.DataFrame, *, title: str) -> Table:
    """A frame as a terminal table; numbers right-aligned, nulls empty, at most 200 rows."""
    table = plain_table(title)
    for name, dtype in frame.schema.items():
        table.add_column(name, justify="right" if dtype.is_numeric() else "left")
    for row in frame.head(SHOWN_ROWS).iter_rows():
        table.add_row(*(escaped(shown(value)) for value in row))
    if len(frame) > SHOWN_ROWS:
        table.caption = f"{len(frame) - SHOWN_ROWS:,} more rows; use --csv for all"
    return table


def records_table(frame: pl.DataFrame, *, title: str) -> Table:
    """A frame too wide for the terminal: every row as a block of ``column  value`` lines."""
    table = plain_table(title)
    table.add_column("column", no_wrap=True)
    table.add_column("value", overflow="fold")
    for row in frame.head(SHOWN_ROWS).iter_rows(named=True):
        for position, (name, value) in enumerate(row.items(), start=1):
            table.add_row(name, escaped(shown(value)), end_section=position == len(row))
    if len(frame) > SHOWN_ROWS:
        table.caption = f"{len(frame) - SHOWN_ROWS:,} more rows; use --csv for all"
    return table


def fits(frame: pl.DataFrame, width: int) -> bool:
    """Whether `frame_table` shows ``frame`` within ``width`` characters without breaking a word."""
    rows = frame.head(SHOWN_ROWS)
    widest = [
        max([cell_len(name), *(cell_len(shown(value)) for value in rows[name])]) for name in frame.columns
    ]
    return sum(widest) + 2 * len(widest) + 1 <= width


def plain_table(title: str) -> Table:
    """A table without frame, title and caption at the left."""
    return Table(
        title=title,
        title_justify="left",
        title_style="bold",
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        show_edge=False,
    )


def escaped(text: str) -> str:
    """Text whose brackets are no markup."""
    return text.replace("[", r"\[")


def shown(value: Any) -> str:
    """A value as text; empty where absent."""
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S}"
    return str(value)
