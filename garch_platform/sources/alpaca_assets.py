"""Alpaca's list of assets: what may be traded, shorted and borrowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import polars as pl

from garch_platform.errors import SourceError
from garch_platform.rest.alpaca import AlpacaAccess

__all__ = ["ASSETS_SCHEMA", "AlpacaAssets"]

ASSETS_SCHEMA: Final[dict[str, pl.DataType | type[pl.DataType]]] = {
    "asset_id": pl.String,
    "symbol": pl.String,
    "name": pl.String,
    "exchange": pl.String,
    "asset_class": pl.String,
    "status": pl.String,
    "is_tradable": pl.Boolean,
    "is_shortable": pl.Boolean,
    "is_easy_to_borrow": pl.Boolean,
    "is_fractionable": pl.Boolean,
}
"""One row an asset. Several may bear one symbol, of which at most one is ``active``."""

VENDOR_NAMES: Final = {
    "asset_id": "id",
    "asset_class": "class",
    "is_tradable": "tradable",
    "is_shortable": "shortable",
    "is_easy_to_borrow": "easy_to_borrow",
    "is_fractionable": "fractionable",
}


class AlpacaAssets:
    """The trading server's list of US equities, active and inactive.

    Args:
        access: to the trading server.
        paper: the credentials are those of a paper account.
    """

    def __init__(self, access: AlpacaAccess, *, paper: bool = True) -> None:
        self._access = access
        self.paper = paper

    def listed(self) -> pl.DataFrame:
        """The complete list as of now, in the order of symbols and ids.

        Returns:
            `ASSETS_SCHEMA`; ``status`` is ``active`` or ``inactive``, a flag that Alpaca leaves out is null.

        Raises:
            SourceError: it could not be read as a whole. There is no partial list, so that an asset which
                is not on it is not on Alpaca's.
        """
        from alpaca.trading.client import TradingClient
        from alpaca.trading.enums import AssetClass
        from alpaca.trading.requests import GetAssetsRequest

        client = self._access.open(TradingClient, paper=self.paper)
        request = GetAssetsRequest(asset_class=AssetClass.US_EQUITY)
        return self._access.ask(lambda: _assets(client.get_all_assets(request)))


def _assets(answer: Any) -> pl.DataFrame:
    if not isinstance(answer, list) or not all(isinstance(row, dict) for row in answer):
        raise ValueError("no list of assets")
    listed = pl.DataFrame([_asset(row) for row in answer], schema=ASSETS_SCHEMA, orient="row")
    unknown = listed.filter(~pl.col("status").is_in(["active", "inactive"]))
    nameless = listed.filter(
        pl.any_horizontal(pl.col(name).fill_null("") == "" for name in ("asset_id", "symbol"))
    )
    if len(unknown) or len(nameless):
        row = (unknown if len(unknown) else nameless).row(0, named=True)
        raise SourceError(
            f"Alpaca's list of assets holds an asset with id {row['asset_id']!r}, symbol {row['symbol']!r} and status "
            f"{row['status']!r}, which is not understood; nothing of the list was taken"
        )
    return listed.unique("asset_id", keep="last").sort("symbol", "asset_id")


def _asset(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row.get(VENDOR_NAMES.get(name, name)) for name in ASSETS_SCHEMA)
