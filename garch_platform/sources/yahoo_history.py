"""What yfinance gives as a price history, turned back into raw prices with their factors.

Yahoo's prices, volumes and dividends are adjusted for all splits up to now, without any choice in the
matter (yfinance issues 2611 and 2929; pandas-datareader issue 651 for dividends; quantmod issue 218 for
open, high and low). Stored as they come, a bar of yesterday and one of the day after a split would stand
on different footings. So the splits after each bar are taken out again: prices and dividends are
multiplied by them, volumes divided.

Prices come in single precision, hence they are rounded to seven significant digits, which restores a price
in cents up to 99,999.99.
"""

from __future__ import annotations

from typing import Any, Final

import polars as pl

from garch_platform.bars import UTC_TIMESTAMP
from garch_platform.sources.corporate_actions import ACTIONS_SCHEMA, merge_actions
from garch_platform.sources.yahoo_access import YAHOO

__all__ = ["empty_history", "raw_history"]

PRICES: Final = ("open", "high", "low", "close")
DIGITS: Final = 7
HISTORY_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "symbol": pl.String,
    "timestamp": UTC_TIMESTAMP,
    "day": pl.Date,
    **dict.fromkeys((*PRICES, "volume"), pl.Float64),
}


def empty_history() -> tuple[pl.DataFrame, pl.DataFrame]:
    """The history of a symbol that Yahoo does not have."""
    return pl.DataFrame(schema=HISTORY_SCHEMA), pl.DataFrame(schema=ACTIONS_SCHEMA)


def raw_history(symbol: str, history: Any) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Raw bars and their actions.

    Args:
        symbol: under which they are given.
        history: what ``Ticker.history(auto_adjust=False, actions=True, keepna=True)`` returned, from the
            first day wanted up to now, because it is the splits since then that are taken out.

    Returns:
        Bars with ``symbol``, ``timestamp``, ``day`` (at the exchange), prices and volume, and their
        actions (`corporate_actions.ACTIONS_SCHEMA`). A row without any price is no bar; a price that is
        NaN is null.
    """
    if history.empty:
        return empty_history()
    columns = {
        name: pl.Series(history[name.capitalize()].to_numpy("float64"), dtype=pl.Float64).fill_nan(None)
        for name in (*PRICES, "volume")
    }
    rows = pl.DataFrame(
        {
            "timestamp": pl.Series(history.index.tz_convert("UTC").tz_localize(None).to_numpy()),
            "day": pl.Series(list(history.index.date), dtype=pl.Date),
            **columns,
            "split": pl.Series(history["Stock Splits"].to_numpy("float64")).fill_nan(None),
            "dividend": pl.Series(history["Dividends"].to_numpy("float64")).fill_nan(None),
        }
    ).with_columns(pl.lit(symbol).alias("symbol"), pl.col("timestamp").dt.replace_time_zone("UTC"))
    later = _later_splits(rows)
    whole = rows.with_columns(
        *((pl.col(name) * later).round_sig_figs(DIGITS) for name in PRICES),
        (pl.col("volume") / later).round(),
        (pl.col("dividend") * later).round_sig_figs(DIGITS),
    )
    actions = whole.unpivot(
        ["split", "dividend"], index=["symbol", "day"], variable_name="action", value_name="value"
    ).rename({"day": "ex_date"})
    bars = whole.filter(pl.any_horizontal(pl.col(name).is_not_null() for name in PRICES))
    return (
        bars.select(pl.col(name).cast(dtype) for name, dtype in HISTORY_SCHEMA.items()),
        merge_actions(actions, YAHOO),
    )


def _later_splits(rows: pl.DataFrame) -> pl.Expr:
    """Product of the splits on days after the row's."""
    factor = pl.lit(1.0)
    for day, ratio in rows.filter(pl.col("split") > 0).select("day", "split").iter_rows():
        factor = factor * pl.when(pl.col("day") < day).then(ratio).otherwise(1.0)
    return factor
