"""What becomes of rows in the database: new, replaced, there already; and in which order they go in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from garch_platform.settings import Secrets
from garch_platform.store.database import Database
from garch_platform.stream.counts import Counts
from garch_platform.stream.endpoint import endpoint_of
from garch_platform.stream.rows import BarRow, Proxied, rows_frame
from garch_platform.stream.sink import Sink
from garch_platform.stream.spool import Spool
from garch_platform_tests.store.rows import register
from garch_platform_tests.stream.edge import edge_settings
from garch_platform_tests.stream.test_rows import RUN, row

SECRETS = {"apca_api_key_id": "PK", "apca_api_secret_key": "secret"}


class Edge:
    """A sink of one mode over a database."""

    def __init__(self, folder: Path, database: Any, mode: str) -> None:
        self.counts = Counts()
        self.endpoint = endpoint_of(edge_settings(folder, mode=mode), Secrets(**SECRETS))
        spool = Spool(folder / "spool", megabytes=1)
        self.sink = Sink(database, spool, self.endpoint, self.counts, lambda error: None)

    def write(self, *rows: BarRow, proxied: tuple[str, ...] = ()) -> Counts:
        spans = {symbol: [(0, 2**62)] for symbol in proxied}
        self.sink.write("market_data", rows_frame(rows, self.endpoint, Proxied(RUN, spans)))
        return self.counts


def stored(database: Database) -> list[tuple[Any, ...]]:
    rows = database.read_table("market_data").sort("symbol", "timestamp")
    return rows.select("symbol", "close", "is_proxy", "channel").rows()


def test_a_replayed_bar_replaces_another_and_leaves_an_equal_one(tmp_path: Path, database: Database) -> None:
    register(database, "A", "B")
    edge = Edge(tmp_path, database, "recycler")
    first = [row("bar", symbol, minute, 1.0) for symbol in "AB" for minute in range(3)]
    edge.write(*first, proxied=("B",))
    before = database.read_table("market_data")
    counts = edge.write(*first, proxied=("B",))
    assert (counts.written, counts.duplicates) == (6, 6)
    assert database.read_table("market_data").equals(before)
    edge.write(*first)
    assert (counts.written, counts.duplicates) == (9, 9)
    assert not database.read_table("market_data")["is_proxy"].any()
    edge.write(row("rest", "A", 1, 7.0), row("bar", "A", 2, 8.0), row("bar", "A", 2, 9.0))
    assert [close for symbol, close, *_ in stored(database) if symbol == "A"] == [1.0, 7.0, 9.0]
    assert (counts.written, counts.filled) == (11, 1)


def test_a_sparse_batch_is_compared_with_its_own_rows(
    tmp_path: Path, sqlite: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    register(sqlite, *"ABCDEF")
    edge = Edge(tmp_path, sqlite, "recycler")
    rows = [row("bar", "A", minute) for minute in range(40)] + [row("bar", name, 50) for name in "BCDEF"]
    edge.write(*rows)
    asked = []
    read = sqlite.read_table

    def reading(table: str, **filters: Any) -> pl.DataFrame:
        asked.append(len(filters["symbol"]) * len(filters["timestamp"]))
        return read(table, **filters)

    monkeypatch.setattr(sqlite, "read_table", reading)
    counts = edge.write(*rows)
    assert (counts.written, counts.duplicates) == (45, 45)
    assert sum(asked) == 45


def test_a_bar_of_alpaca_stays_until_it_is_corrected(tmp_path: Path, sqlite: Database) -> None:
    register(sqlite, "A")
    edge = Edge(tmp_path, sqlite, "alpaca")
    edge.write(row("bar", "A", 0, 1.0))
    edge.write(row("bar", "A", 0, 2.0), row("rest", "A", 0, 3.0))
    assert stored(sqlite) == [("A", 1.0, False, "bar")]
    edge.write(row("updated_bar", "A", 0, 4.0))
    assert stored(sqlite) == [("A", 4.0, False, "updated_bar")]


@pytest.mark.parametrize("mode", ["alpaca", "recycler"])
def test_bars_that_fill_a_gap_go_in_before_later_ones(tmp_path: Path, mode: str) -> None:
    """A kill between the two must not leave later bars behind which nobody looks."""

    class Order:
        def __init__(self) -> None:
            self.channels: list[str] = []

        def insert_missing(self, table: str, frame: pl.DataFrame) -> int:
            self.channels += frame["channel"].to_list()
            return frame.height

    order = Order()
    Edge(tmp_path, order, mode).write(row("bar", "A", 5), row("rest", "A", 3), row("rest", "A", 4))
    assert order.channels == ["rest", "rest", "bar"]
