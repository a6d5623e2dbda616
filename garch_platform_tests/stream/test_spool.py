"""Batches on disk: in order, whole or absent, bounded, and never in the way when one is damaged."""

from __future__ import annotations

import errno
import logging
import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from garch_platform.bars import UTC_TIMESTAMP
from garch_platform.errors import StoreError, StoreFull
from garch_platform.stream.gaps import Span
from garch_platform.stream.journal import GapJournal
from garch_platform.stream.rows import MARKET_DATA, microseconds
from garch_platform.stream.spool import Spool, write_durably

START = datetime(2024, 3, 7, 14, 30, tzinfo=UTC)


def batch(number: int, rows: int = 3) -> pl.DataFrame:
    return pl.DataFrame(
        {
            "symbol": ["AAPL"] * rows,
            "timestamp": [START + timedelta(minutes=number * rows + row) for row in range(rows)],
            "close": [0.1 + number * row for row in range(rows)],
            "vwap": [None] * rows,
        },
        schema_overrides={"timestamp": UTC_TIMESTAMP, "vwap": pl.Float64},
    )


def test_batches_come_back_in_order_after_a_restart(tmp_path: Path) -> None:
    for number in range(4):
        Spool(tmp_path, megabytes=1).put(MARKET_DATA, batch(number))
    spool = Spool(tmp_path, megabytes=1)
    for number, found in enumerate(spool.batches()):
        assert found.table == MARKET_DATA
        assert_frame_equal(found.rows, batch(number))
        spool.remove(found)
    assert spool.files == []
    assert spool.bytes == 0


def test_the_bound_holds(tmp_path: Path) -> None:
    spool = Spool(tmp_path, megabytes=0.02)
    with pytest.raises(StoreFull, match=r"20,971 bytes.*raise websocket.spool_megabytes"):
        list(map(spool.put, [MARKET_DATA] * 100, map(batch, range(100))))
    assert 0 < spool.bytes <= 0.02 * 2**20
    assert_frame_equal(next(spool.batches()).rows, batch(0))


def test_a_full_disk_is_said_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spool = Spool(tmp_path / "spool", megabytes=1)

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(StoreFull, match="no space left"):
            spool.put(MARKET_DATA, batch(0))
    assert list((tmp_path / "spool").iterdir()) == []


def test_a_folder_that_is_none_is_said(tmp_path: Path) -> None:
    (tmp_path / "spool").write_text("a file")
    with pytest.raises(StoreError, match="cannot be written"):
        Spool(tmp_path / "spool", megabytes=1).put(MARKET_DATA, batch(0))


def test_a_damaged_batch_is_quarantined_and_its_time_is_known(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, megabytes=1)
    damaged = spool.put(MARKET_DATA, batch(0))
    spool.put(MARKET_DATA, batch(1))
    damaged.write_bytes(damaged.read_bytes()[:100])
    with caplog.at_level(logging.WARNING):
        (found,) = spool.batches()
    assert_frame_equal(found.rows, batch(1))
    assert damaged.name in caplog.text
    assert [path.name for path in tmp_path.glob("*.corrupt")] == [damaged.name + ".corrupt"]
    assert spool.lost == [(microseconds(START), microseconds(START + timedelta(minutes=2)))]
    assert [each.rows.height for each in Spool(tmp_path, megabytes=1).batches()] == [3]


def test_an_interrupted_write_is_no_batch(tmp_path: Path) -> None:
    spool = Spool(tmp_path, megabytes=1)
    spool.put(MARKET_DATA, batch(0))
    (tmp_path / "00000000000000000009.market_data.0-0.arrow.partial").write_bytes(b"half")
    assert len(list(spool.batches())) == 1
    spool.recall()
    assert len(list(tmp_path.iterdir())) == 1


def test_what_was_set_aside_comes_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path, megabytes=1)
    spool.set_aside(MARKET_DATA, batch(0))
    assert spool.files == []
    assert spool.bytes > 0
    assert Spool(tmp_path, megabytes=1).recall() == 1
    assert_frame_equal(next(spool.batches()).rows, batch(0))


def test_the_journal_keeps_the_spans_of_each_stream(tmp_path: Path) -> None:
    path = tmp_path / "gaps.json"
    spans = [Span("AAPL", 1, 5, "hole"), Span("BRK.B", None, 7, "start")]
    GapJournal(path, "recycled/iex/1Min").save(spans)
    GapJournal(path, "alpaca/iex/1Min").save(spans[:1])
    assert GapJournal(path, "recycled/iex/1Min").load() == spans
    GapJournal(path, "recycled/iex/1Min").save([])
    assert GapJournal(path, "recycled/iex/1Min").load() == []
    assert GapJournal(path, "alpaca/iex/1Min").load() == spans[:1]


def test_a_damaged_journal_stops_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "gaps.json"
    for content in ("{", "[]", '{"s": [["A"]]}'):
        path.write_text(content)
        assert GapJournal(path, "s").load() == []
    assert "gaps of an earlier run are not known" in caplog.text
    GapJournal(path, "s").save([Span("A", 0, 1, "hole")])
    assert GapJournal(path, "s").load() == [Span("A", 0, 1, "hole")]


def test_a_durable_write_replaces_in_one_step(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    write_durably(path, b"one")
    write_durably(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(path.parent.iterdir()) == [path]
