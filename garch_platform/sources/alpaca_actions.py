"""Splits and cash dividends as Alpaca announces them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import polars as pl

from garch_platform.rest.alpaca import AlpacaAccess
from garch_platform.sources.corporate_actions import merge_actions

__all__ = ["read_actions"]

SPLITS: Final = ("forward_splits", "reverse_splits")
DIVIDENDS: Final = "cash_dividends"


def read_actions(
    access: AlpacaAccess, client: Any, symbols: Sequence[str], start: date, end: date
) -> pl.DataFrame:
    """Splits and cash dividends with ex-dates from ``start`` to ``end``, both included.

    Alpaca gives no promise of when an action is listed: its absence says nothing.

    Args:
        access: makes the attempts.
        client: a `CorporateActionsClient` of ``access``; follows the pages itself.
        symbols: as many as one URL takes.
        start: first ex-date.
        end: last ex-date.

    Returns:
        `corporate_actions.ACTIONS_SCHEMA`, one row a symbol, ex-date and action, in that order.
    """
    from alpaca.data.enums import CorporateActionsType
    from alpaca.data.requests import CorporateActionsRequest

    request = CorporateActionsRequest(
        symbols=list(symbols),
        types=[
            CorporateActionsType.FORWARD_SPLIT,
            CorporateActionsType.REVERSE_SPLIT,
            CorporateActionsType.CASH_DIVIDEND,
        ],
        start=start,
        end=end,
        limit=None,  # of all pages together, not of one
    )
    answer = access.ask(lambda: client.get_corporate_actions(request))
    rows = [
        (row["symbol"], row["ex_date"], "split", float(row["new_rate"]) / float(row["old_rate"]))
        for kind in SPLITS
        for row in answer.get(kind) or ()
    ]
    rows += [
        (row["symbol"], row["ex_date"], "dividend", float(row["rate"])) for row in answer.get(DIVIDENDS) or ()
    ]
    listed = pl.DataFrame(
        rows,
        schema={"symbol": pl.String, "ex_date": pl.String, "action": pl.String, "value": pl.Float64},
        orient="row",
    )
    wanted = listed.filter(pl.col("symbol").is_in(list(symbols)))
    return merge_actions(wanted.with_columns(pl.col("ex_date").str.to_date("%Y-%m-%d")), "alpaca")
