"""The lake: idempotent replacement, reading by period, versions, and what happens when things break."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
from datetime import date, timedelta
from itertools import count
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from deltalake import DeltaTable
from deltalake.exceptions import CommitFailedError
from filelock import FileLock
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from garch_platform.bars import BAR_KEY, BAR_SCHEMA
from garch_platform.errors import (
    ConfigurationError,
    DataError,
    LakeConflict,
    StoreBusy,
    StoreError,
    StoreFull,
)
from garch_platform.store import lake as lake_module
from garch_platform.store.lake import FEATURE_SCHEMA, Lake
from garch_platform_tests.store import writers
from garch_platform_tests.store.conftest import Together
from garch_platform_tests.store.rows import JANUARY, bars, features

SYMBOLS = ["AAPL", "AMD", "MSFT"]


def write(lake: Lake, frame: pl.DataFrame, *, table: str = "bars", **owned: Any) -> int:
    """Replace what ``frame`` covers."""
    whole: dict[str, Any] = {
        "timeframe": frame["timeframe"][0] if frame.height else "1Min",
        "symbols": SYMBOLS,
    }
    return lake.replace(table, frame, **(whole | {"start": JANUARY[0], "end": JANUARY[-1]} | owned))


def stored(lake: Lake, table: str = "bars", **filters: Any) -> pl.DataFrame:
    return lake.scan(table, **filters).collect().sort(*(name for name in BAR_KEY if name != "feed"))


def in_order(frame: pl.DataFrame) -> pl.DataFrame:
    return frame.sort(*(name for name in BAR_KEY if name != "feed"))


@pytest.fixture
def filled(lake: Lake) -> Lake:
    """One-minute bars of three symbols in four sessions."""
    write(lake, bars(SYMBOLS, JANUARY))
    return lake


def test_bars_come_back_to_the_bit(lake: Lake) -> None:
    rows = bars(SYMBOLS, JANUARY)
    write(lake, rows.sample(fraction=1, shuffle=True, seed=1))
    assert stored(lake).schema == pl.Schema(BAR_SCHEMA)
    assert stored(lake).equals(in_order(rows))


@pytest.mark.parametrize("table", ["bars", "features"])
def test_a_table_that_is_not_there_reads_as_empty_and_typed(lake: Lake, table: str) -> None:
    schema = pl.Schema(BAR_SCHEMA if table == "bars" else FEATURE_SCHEMA)
    assert lake.version(table) is None
    assert lake.scan(table).collect().equals(pl.DataFrame(schema=schema))
    assert lake.scan(table, columns=["symbol", "session_date"]).collect().schema == {
        "symbol": pl.String,
        "session_date": pl.Date,
    }
    assert lake.coverage(table, "1Day").schema == {
        "symbol": pl.String,
        "first_session": pl.Date,
        "last_session": pl.Date,
        "rows": pl.Int64,
    }
    assert lake.dataset(table).count_rows() == 0


def test_writing_the_same_rows_again_makes_no_new_version(filled: Lake) -> None:
    version = filled.version("bars")
    rows = bars(SYMBOLS, JANUARY).sample(fraction=1, shuffle=True, seed=2)
    assert write(filled, rows) == version
    assert filled.version("bars") == version
    assert write(filled, bars(SYMBOLS, JANUARY, seed=2)) == version + 1  # type: ignore[operator]


def test_replacement_touches_only_its_symbols_and_sessions(filled: Lake) -> None:
    before = stored(filled)
    new = bars(["AMD"], JANUARY[1:2], price=7.0)
    write(filled, new, symbols=["AMD", "MSFT"], start=JANUARY[1], end=JANUARY[2])
    owned = pl.col("symbol").is_in(["AMD", "MSFT"]) & pl.col("session_date").is_between(
        JANUARY[1], JANUARY[2]
    )
    after = stored(filled)
    assert after.filter(~owned).equals(before.filter(~owned))
    assert after.filter(owned).equals(in_order(new))


def test_timeframes_do_not_touch_one_another(filled: Lake) -> None:
    minutes = stored(filled)
    days = bars(SYMBOLS, JANUARY, per_session=1, timeframe="1Day")
    write(filled, days)
    assert stored(filled, timeframe="1Min").equals(minutes)
    assert stored(filled, timeframe="1Day").equals(in_order(days))
    write(filled, days.clear(), timeframe="1Day")
    assert stored(filled).equals(minutes)


def test_an_empty_frame_deletes(filled: Lake) -> None:
    before = stored(filled)
    for empty in (pl.DataFrame(), bars([], [])):
        filled.replace("bars", empty, timeframe="1Min", symbols=["AMD"], start=None, end=JANUARY[1])
    gone = (pl.col("symbol") == "AMD") & (pl.col("session_date") <= JANUARY[1])
    assert stored(filled).equals(before.filter(~gone))


def test_open_ends_own_everything(filled: Lake) -> None:
    new = bars(["AMD"], [date(1999, 12, 31), date(2030, 1, 2)])
    filled.replace("bars", new, timeframe="1Min", symbols=["AMD"])
    assert stored(filled, symbols=["AMD"]).equals(in_order(new))


def test_the_bulk_past_and_the_daily_window_meet_without_loss(lake: Lake) -> None:
    """History owns all before 2024-01-04 (in the middle of a month), days own the rest; in any order."""
    sessions = [date(2023, 11, 30), date(2023, 12, 29), *JANUARY]
    rows = bars(["AMD"], sessions, per_session=1, timeframe="1Day")
    past, recent = (
        rows.filter(edge)
        for edge in (pl.col("session_date") < JANUARY[2], pl.col("session_date") >= JANUARY[2])
    )

    def history() -> None:
        write(lake, past, symbols=["AMD"], start=None, end=JANUARY[1])

    def days() -> None:
        write(lake, recent, symbols=["AMD"], start=JANUARY[2], end=JANUARY[3])

    for step in (history, days, history, days, days, history):
        step()
    assert stored(lake).equals(in_order(rows))


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    steps=st.lists(
        st.tuples(
            st.sets(st.sampled_from(SYMBOLS), min_size=1),
            st.integers(0, 3),
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        min_size=1,
        max_size=4,
    )
)
def test_any_sequence_of_replacements_equals_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, steps: list[tuple[set[str], int, int, int]]
) -> None:
    lake = Lake(tmp_path_factory.mktemp("lake"))
    expected: dict[tuple[str, date], pl.DataFrame] = {}
    for number, (symbols, one, other, kept) in enumerate(steps):
        days = JANUARY[min(one, other) : max(one, other) + 1]
        rows = bars(sorted(symbols), days[:kept], seed=number)
        lake.replace("bars", rows, timeframe="1Min", symbols=sorted(symbols), start=days[0], end=days[-1])
        expected = {
            key: frame for key, frame in expected.items() if key[0] not in symbols or key[1] not in days
        }
        expected |= dict(rows.group_by("symbol", "session_date"))  # type: ignore[arg-type]
    wanted = pl.concat([pl.DataFrame(schema=BAR_SCHEMA), *expected.values()])
    assert stored(lake).equals(in_order(wanted))


def test_many_symbols_in_one_write(lake: Lake) -> None:
    symbols = [f"S{number:04d}" for number in range(2_000)]
    rows = bars(symbols, JANUARY[:1], per_session=1)
    lake.replace("bars", rows, timeframe="1Min", symbols=symbols, start=JANUARY[0], end=JANUARY[0])
    changed = rows.with_columns(close=pl.lit(1.0))
    lake.replace("bars", changed, timeframe="1Min", symbols=symbols, start=JANUARY[0], end=JANUARY[0])
    assert stored(lake).equals(in_order(changed))


def test_quotes_in_a_symbol_do_not_escape_the_predicate(filled: Lake) -> None:
    before = stored(filled)
    for hostile in ("A' OR symbol <> '", "A') OR 1=1 --"):
        filled.replace("bars", pl.DataFrame(), timeframe="1Min", symbols=[hostile])
    assert stored(filled).equals(before)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"symbol": pl.lit("IBM")}, "lie outside what this write owns .* such as IBM"),
        ({"timeframe": pl.lit("1Day")}, "lie outside"),
        ({"session_date": pl.lit(date(2024, 2, 1))}, "lie outside .* 2024-02-01"),
        ({"session_date": pl.lit(None, pl.Date)}, "have no session_date"),
        ({"symbol": pl.lit(None, pl.String)}, "have no symbol"),
        ({"is_proxy": pl.lit(True)}, "36 proxy rows, such as AAPL"),
        ({"data_source": pl.lit("recycled")}, "36 recycled rows"),
        ({"timestamp": pl.col("timestamp").first()}, "share their key, such as symbol=AAPL"),
        ({"timestamp": pl.col("timestamp").dt.replace_time_zone(None)}, "timestamp is Datetime"),
        ({"close": pl.col("close").cast(pl.Float32)}, "close is Float32"),
        ({"trade_price": pl.lit(1.0)}, "unknown trade_price"),
        ({"period": pl.col("session_date")}, "the lake's own"),
    ],
)
def test_rows_that_break_the_contract_are_refused(
    filled: Lake, change: dict[str, pl.Expr], message: str
) -> None:
    before, version = stored(filled), filled.version("bars")
    with pytest.raises(DataError, match=message):
        filled.replace(
            "bars",
            bars(SYMBOLS, JANUARY, seed=2).with_columns(**change),
            timeframe="1Min",
            symbols=SYMBOLS,
            start=JANUARY[0],
            end=JANUARY[-1],
        )
    assert filled.version("bars") == version
    assert stored(filled).equals(before)


def test_other_refusals(filled: Lake) -> None:
    with pytest.raises(DataError, match="missing vwap"):
        write(filled, bars(SYMBOLS, JANUARY).drop("vwap"))
    with pytest.raises(DataError, match="2024-01-05 to 2024-01-02 is reversed"):
        write(filled, pl.DataFrame(), start=JANUARY[-1], end=JANUARY[0])
    with pytest.raises(ConfigurationError, match="'2Min' is not known"):
        write(filled, pl.DataFrame(), timeframe="2Min")
    with pytest.raises(StoreError, match="no table 'quotes'; it has bars, features"):
        filled.scan("quotes")
    with pytest.raises(DataError, match="no columns price; it has symbol"):
        filled.scan("bars", columns=["price"])


def test_what_is_not_finite_is_null(lake: Lake) -> None:
    rows = bars(["AMD"], JANUARY[:1]).with_columns(close=pl.Series([float("nan"), float("inf"), 1.5]))
    write(lake, rows, symbols=["AMD"])
    assert stored(lake)["close"].to_list() == [None, None, 1.5]


def test_reading_opens_only_the_files_of_the_period(filled: Lake) -> None:
    plan = filled.scan("bars", timeframe="1Min", start=JANUARY[1], end=JANUARY[1]).explain()
    assert plan.count(".parquet") == 1
    assert f"period={JANUARY[1]}" in plan


def test_daily_bars_are_partitioned_by_month(lake: Lake) -> None:
    days = [date(2023, 12, 29), *JANUARY]
    write(lake, bars(["AMD"], days, timeframe="1Day", per_session=1), symbols=["AMD"], start=days[0])
    periods = {partition["period"] for partition in DeltaTable(f"{lake.url}/bars").partitions()}
    assert {str(period) for period in periods} == {"2023-12-01", "2024-01-01"}
    assert lake.scan("bars", start=JANUARY[2], end=JANUARY[2]).collect()["session_date"].to_list() == [
        JANUARY[2]
    ]


def test_filters_of_scan(filled: Lake) -> None:
    found = filled.scan(
        "bars", symbols=["AMD", "NONE"], start=JANUARY[2], columns=["session_date", "close"]
    ).collect()
    assert found.columns == ["session_date", "close"]
    wanted = bars(SYMBOLS, JANUARY).filter(pl.col("symbol") == "AMD", pl.col("session_date") >= JANUARY[2])
    assert found.sort("session_date", "close").equals(
        wanted.select(found.columns).sort("session_date", "close")
    )
    assert filled.scan("bars", symbols=[]).collect().height == 0


def test_coverage(filled: Lake) -> None:
    write(filled, pl.DataFrame(), timeframe="1Min", symbols=["AMD"], start=JANUARY[0], end=JANUARY[0])
    assert filled.coverage("bars", "1Min").rows() == [
        ("AAPL", JANUARY[0], JANUARY[3], 12),
        ("AMD", JANUARY[1], JANUARY[3], 9),
        ("MSFT", JANUARY[0], JANUARY[3], 12),
    ]


def test_features_gain_columns(lake: Lake) -> None:
    first = features(SYMBOLS, JANUARY[:1])
    write(lake, first, table="features", end=JANUARY[0])
    assert stored(lake, "features").select(first.columns).equals(in_order(first))
    second = features(SYMBOLS, JANUARY[1:]).with_columns(skewness=pl.lit(0.25))
    write(lake, second, table="features", start=JANUARY[1])
    rows = stored(lake, "features")
    assert rows.columns == [*FEATURE_SCHEMA, "skewness"]
    assert rows["skewness"].is_null().to_list() == (rows["session_date"] == JANUARY[0]).to_list()
    with pytest.raises(DataError, match="skewness is String, in the lake it is Float64"):
        write(lake, second.with_columns(skewness=pl.lit("high")), table="features")


def test_earlier_versions_stay_readable(filled: Lake) -> None:
    before, version = stored(filled), filled.version("bars")
    write(filled, bars(SYMBOLS, JANUARY, seed=3))
    assert stored(filled, version=version).equals(before)
    assert not stored(filled).equals(before)
    with pytest.raises(StoreError, match="has no version 99; its newest is 2"):
        filled.scan("bars", version=99)


def test_maintenance_compacts_closed_periods_and_keeps_the_rows(lake: Lake) -> None:
    for number, symbol in enumerate(SYMBOLS):
        write(lake, bars([symbol], JANUARY, seed=number), symbols=[symbol])
    rows, version = stored(lake), lake.version("bars")
    (done,) = lake.maintain(JANUARY[-1])
    assert (done.table, done.files_compacted, done.files_written, done.files_vacuumed) == ("bars", 9, 3, 0)
    assert stored(lake).equals(rows)
    assert stored(lake, version=version).equals(rows)
    (again,) = lake.maintain(JANUARY[-1])
    assert (again.files_compacted, again.files_written, again.version) == (0, 0, done.version)


def test_the_month_that_is_open_is_not_compacted(lake: Lake) -> None:
    for symbol in SYMBOLS:
        days = [date(2023, 12, 29), *JANUARY]
        write(lake, bars([symbol], days, timeframe="1Day", per_session=1), symbols=[symbol], start=days[0])
    assert lake.maintain(JANUARY[-1])[0].files_compacted == 3
    assert lake.maintain(date(2024, 2, 1))[0].files_compacted == 3


def test_retention_is_a_property_of_the_table(filled: Lake) -> None:
    def retention() -> set[str]:
        return set(DeltaTable(f"{filled.url}/bars").metadata().configuration.values())

    assert retention() == {"interval 400 days"}
    Lake(filled.url, reproducibility_days=500).maintain(JANUARY[0])
    assert retention() == {"interval 500 days"}


def test_a_vacuumed_version_is_not_reproducible(filled: Lake) -> None:
    version = filled.version("bars")
    write(filled, bars(["AMD"], JANUARY[:1], seed=3), symbols=["AMD"], end=JANUARY[0])
    table = DeltaTable(f"{filled.url}/bars")
    removed = table.vacuum(retention_hours=0, enforce_retention_duration=False, dry_run=False)
    assert len(removed) == 1
    with pytest.raises(StoreError, match=rf"version {version} of table bars .* not reproducible"):
        filled.scan("bars", version=version)
    untouched = stored(filled, version=version, timeframe="1Min", start=JANUARY[1])
    assert untouched.equals(stored(filled, start=JANUARY[1]))


def test_maintenance_removes_what_outlived_its_days(filled: Lake) -> None:
    version = filled.version("bars")
    write(filled, bars(SYMBOLS, JANUARY, seed=3))
    after = stored(filled)
    assert Lake(filled.url, reproducibility_days=0).maintain(JANUARY[0])[0].files_vacuumed == 4
    assert stored(filled).equals(after)
    with pytest.raises(StoreError, match="not reproducible"):
        filled.scan("bars", version=version)


def test_the_age_of_a_file_counts_from_its_replacement(filled: Lake) -> None:
    """Old bars that were replaced today stay readable for their days; what a killed write left goes."""
    rows, version = stored(filled), filled.version("bars")
    orphan = Path(filled.url) / "bars" / "timeframe=1Min" / f"period={JANUARY[0]}" / "part-orphan.parquet"
    orphan.write_bytes(b"half a file")
    for file in Path(filled.url).rglob("*.parquet"):
        os.utime(file, (0, 0))
    write(filled, bars(SYMBOLS, JANUARY, seed=3))
    assert filled.maintain(JANUARY[0])[0].files_vacuumed == 1
    assert not orphan.exists()
    assert stored(filled, version=version).equals(rows)


def test_full_disk_leaves_the_old_rows(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    before = stored(filled)
    real = lake_module.write_deltalake

    def full(table: Any, frame: pl.DataFrame, **options: Any) -> None:
        folder = Path(filled.url) / "bars" / "timeframe=1Min" / f"period={JANUARY[0]}"
        (folder / "part-00000-cut-off.parquet").write_bytes(b"PAR1 half a file")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(lake_module, "write_deltalake", full)
    with pytest.raises(StoreFull, match="the rows are as before"):
        write(filled, bars(SYMBOLS, JANUARY, seed=3))
    assert stored(filled).equals(before)
    monkeypatch.setattr(lake_module, "write_deltalake", real)
    write(filled, bars(SYMBOLS, JANUARY, seed=3))
    assert stored(filled).equals(in_order(bars(SYMBOLS, JANUARY, seed=3)))


def test_a_lost_commit_is_tried_again(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = Lake(filled.url, retry_wait=0)
    real, tries = lake_module.write_deltalake, count(1)

    def contested(*args: Any, **options: Any) -> None:
        if next(tries) < 10:
            raise CommitFailedError("a concurrent transaction changed the partition")
        real(*args, **options)

    monkeypatch.setattr(lake_module, "write_deltalake", contested)
    write(lake, bars(SYMBOLS, JANUARY, seed=3))
    assert next(tries) == 11
    assert stored(lake).equals(in_order(bars(SYMBOLS, JANUARY, seed=3)))


def test_ten_lost_commits_are_a_conflict(filled: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    lake, before, tries = Lake(filled.url, retry_wait=0), stored(filled), count(1)

    def contested(*_: Any, **__: Any) -> None:
        next(tries)
        raise CommitFailedError("a concurrent transaction changed the partition")

    monkeypatch.setattr(lake_module, "write_deltalake", contested)
    with pytest.raises(LakeConflict, match="won the commit 10 times"):
        write(lake, bars(SYMBOLS, JANUARY, seed=3))
    assert next(tries) == 11
    assert stored(lake).equals(before)


def test_a_table_that_stays_locked_is_reported(filled: Lake) -> None:
    lake = Lake(filled.url, lock_timeout=0.05)
    with (
        FileLock(Path(filled.url) / ".bars.lock"),
        pytest.raises(StoreBusy, match=r"stayed locked for 0\.05 s"),
    ):
        write(lake, bars(SYMBOLS, JANUARY, seed=3))
    write(lake, bars(SYMBOLS, JANUARY, seed=3))


@pytest.mark.parametrize("writer", [writers.replace_bars, writers.replace_bars_unlocked])
def test_four_writers_of_one_session_lose_nothing(lake: Lake, together: Together, writer: Any) -> None:
    names = [[f"{letter}{number}" for number in range(3)] for letter in "ABCD"]
    everyone = [name for group in names for name in group]
    write(lake, bars(everyone, JANUARY[:1], price=0.5), symbols=everyone, end=JANUARY[0])
    together.run(writer, [(lake.url, group, JANUARY[0], 4) for group in names])
    assert stored(lake).equals(in_order(bars(everyone, JANUARY[:1], price=4.0)))


def test_killed_before_the_commit(filled: Lake) -> None:
    before = stored(filled)
    spawn = multiprocessing.get_context("spawn")
    victim = spawn.Process(target=writers.die_before_commit_of_bars, args=(filled.url, SYMBOLS, JANUARY[0]))
    victim.start()
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL
    assert list(Path(filled.url).rglob("*orphan.parquet")) != []
    assert stored(filled).equals(before)
    again = bars(SYMBOLS, JANUARY[:1], price=2.0)
    write(filled, again, end=JANUARY[0])
    assert stored(filled, end=JANUARY[0]).equals(in_order(again))
    assert stored(filled, start=JANUARY[1]).equals(before.filter(pl.col("session_date") > JANUARY[0]))


def test_killed_at_any_moment(lake: Lake) -> None:
    """SIGKILL in the middle of the work: the table holds one whole replacement, and the next one works."""
    spawn = multiprocessing.get_context("spawn")
    for pause in (0.002, 0.005):
        version = lake.version("bars") or 0
        arguments = (lake.url, SYMBOLS, JANUARY[0])
        victim = spawn.Process(target=writers.replace_bars_until_killed, args=arguments)
        victim.start()
        while victim.is_alive() and (lake.version("bars") or 0) < version + 3:
            victim.join(pause)
        victim.kill()
        victim.join(60)
        assert victim.exitcode == -signal.SIGKILL
        rows = stored(lake)
        assert rows.height == 3 * 390
        assert rows["close"].n_unique() == 1
    final = bars(SYMBOLS, JANUARY[:1], per_session=390, price=0.5)
    write(lake, final, end=JANUARY[0])
    assert stored(lake).equals(in_order(final))


def test_a_corrupt_log_is_a_store_error(filled: Lake) -> None:
    for log in (Path(filled.url) / "bars" / "_delta_log").glob("*.json"):
        log.write_text("not a log")
    with pytest.raises(StoreError, match=r"opening bars in .* was refused"):
        filled.scan("bars")


@pytest.mark.parametrize("folder", ["with blank", "fünf", "100%", "x#y?z"])
def test_any_folder_name_will_do(tmp_path: Path, folder: str) -> None:
    lake = Lake(tmp_path / folder / "lake")
    frame = bars(SYMBOLS, JANUARY)
    write(lake, frame)
    write(lake, frame.filter(pl.col("symbol") == "AMD"), symbols=["AMD"])
    assert stored(lake).equals(in_order(frame))
    assert stored(lake, version=lake.version("bars")).equals(in_order(frame))
    assert lake.dataset("bars").count_rows() == len(frame)


def test_a_session_later_than_the_window_is_not_seen(filled: Lake) -> None:
    assert stored(filled, end=JANUARY[0] - timedelta(days=1)).height == 0
    assert stored(filled, start=JANUARY[3] + timedelta(days=1)).height == 0
