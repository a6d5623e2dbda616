"""Where a stream is taken up again: the last bar of each symbol that is stored, in the database or the spool."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import polars as pl

from garch_platform.stream.endpoint import Endpoint
from garch_platform.stream.live_database import LiveDatabase
from garch_platform.stream.rows import CHANNELS, MARKET_DATA, microseconds
from garch_platform.stream.spool import Spool

__all__ = ["StoredBars"]

LAST_STORED: Final = """
    SELECT
        (SELECT timestamp FROM market_data
         WHERE symbol = :symbol AND timeframe = :timeframe AND feed = :feed AND data_source = :data_source
         ORDER BY timestamp DESC LIMIT 1) AS timestamp,
        (SELECT MAX(gap_end) FROM stream_gaps
         WHERE symbol = :symbol AND timeframe = :timeframe AND feed = :feed AND data_source = :data_source
        ) AS gap_end
"""
"""The unique keys of both tables answer it; spans that were asked for are not asked for again."""


class StoredBars:
    """The last stored bar of each symbol, read once, before this process writes its first.

    In the historical clock nothing is: a replay may be of sessions before those that are stored.

    Args:
        database: may be away; then it is read when it is back.
        endpoint: names feed, source and timeframe.
        symbols: that are followed.
        step: microseconds between two bars.
    """

    def __init__(self, database: LiveDatabase, endpoint: Endpoint, symbols: Sequence[str], step: int) -> None:
        self.symbols = list(symbols)
        self.is_known = False
        """Whether `read` has answered."""
        self._database = database
        self._endpoint = endpoint
        self._step = step
        self._spooled: dict[str, int] = {}

    def read(self) -> dict[str, int]:
        """Symbol → microseconds of its last stored bar; symbols without one are absent.

        Raises:
            StoreError: the database is away.
        """
        found: dict[str, int] = {}
        for symbol in [] if self._endpoint.is_historical else self.symbols:
            row = self._database.read(
                LAST_STORED,
                symbol=symbol,
                timeframe=self._endpoint.timeframe.name,
                feed=self._endpoint.feed,
                data_source=self._endpoint.data_source,
            ).row(0)
            last, asked = (microseconds(value) if value else None for value in row)
            known = [last, None if asked is None else asked - self._step, self._spooled.get(symbol)]
            times = [moment for moment in known if moment is not None]
            if times:
                found[symbol] = max(times)
        self.is_known = True
        return found

    def look_at(self, spool: Spool) -> None:
        """Count the batches of an earlier process in ``spool`` as stored."""
        last = self._spooled
        for batch in spool.batches():
            if batch.table != MARKET_DATA:
                continue
            rows = batch.rows.filter(
                pl.col("channel") != CHANNELS["d"],
                pl.col("timeframe") == self._endpoint.timeframe.name,
                pl.col("feed") == self._endpoint.feed,
                pl.col("data_source") == self._endpoint.data_source,
            )
            times = rows.group_by("symbol").agg(pl.col("timestamp").max().dt.timestamp("us"))
            for symbol, moment in times.iter_rows():
                last[symbol] = max(last.get(symbol, moment), moment)
