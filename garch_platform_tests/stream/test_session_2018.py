"""A whole session of a real market through server and client: every bar once, to the last digit."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform_tests.recycler.market import store
from garch_platform_tests.sources.market_files import shared_data, source
from garch_platform_tests.stream.edge import edge_settings, follow, source_bars, written

DAY = date(2018, 3, 1)
SYMBOLS = 50


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """A lake of that one session."""
    files = source(shared_data("minute_bars_2018.parquet"))
    bars = files.fetch(files.symbols()["symbol"].to_list(), DAY, DAY)
    chosen = sorted(set(bars["symbol"]))[:SYMBOLS]
    rows = bars.filter(pl.col("symbol").is_in(chosen))
    return store(Lake(tmp_path_factory.mktemp("session") / "lake"), rows)


def test_a_whole_session_of_fifty_symbols(tmp_path: Path, session: Lake, database: Database) -> None:
    sent = source_bars(session)
    symbols = sorted(set(sent["symbol"]))
    assert len(symbols) == SYMBOLS
    assert sent.height > 19_000
    counts = follow(session, edge_settings(tmp_path), database, symbols).counts
    assert_frame_equal(written(database), sent, check_exact=True)
    assert (counts.reconnects, counts.lost, counts.malformed, counts.set_aside) == (0, 0, 0, 0)
    rows = database.read_table("market_data")
    days = rows.filter(pl.col("timeframe") == "1Day")
    expected = sent.group_by("symbol").agg(pl.col("volume").sum(), pl.col("high").max(), pl.col("low").min())
    assert_frame_equal(days.select(expected.columns), expected.sort("symbol"), check_exact=True)
