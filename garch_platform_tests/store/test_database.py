"""Sets of rows in and out, on SQLite and on PostgreSQL."""

from __future__ import annotations

import math
import multiprocessing
import signal
import socket
import sqlite3
from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event, func, select, text
from sqlalchemy.exc import OperationalError

from garch_platform.errors import DataError, StoreBusy, StoreError, StoreFull
from garch_platform.store.database import Database
from garch_platform.store.engine import normalise_url
from garch_platform.store.schema import METADATA, polars_type
from garch_platform_tests.store import writers
from garch_platform_tests.store.conftest import Together
from garch_platform_tests.store.rows import JANUARY, instant, register, verdicts

VERDICTS = "variance_stability_tracking"
SYMBOLS = ["AAPL", "AMD", "MSFT"]


def stored_verdicts(database: Database) -> pl.DataFrame:
    return database.content(VERDICTS).drop(
        "test_window",
        "arch_lags",
        "ljung_box_lags",
        "window_start",
        "window_end",
        "lake_version",
        "input_hash",
    )


@pytest.fixture
def filled(database: Database) -> Database:
    """Verdicts of three symbols on four days."""
    register(database, *SYMBOLS)
    rows = verdicts(SYMBOLS, JANUARY)
    assert database.replace(VERDICTS, rows, where={"symbol": SYMBOLS, "test_date": JANUARY}) == 12
    return database


def test_rows_come_back_to_the_bit(filled: Database) -> None:
    sent = verdicts(SYMBOLS, JANUARY)
    stored = stored_verdicts(filled).select(sent.columns)
    assert stored.schema == sent.schema
    assert stored.equals(sent.sort("symbol", "test_date"))


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(
        st.floats(allow_nan=True, allow_infinity=True, allow_subnormal=True, width=64), min_size=1, max_size=6
    )
)
def test_any_double_comes_back_and_what_is_not_finite_is_null(
    database: Database, values: list[float]
) -> None:
    register(database, "AAPL")
    days = [JANUARY[0] + timedelta(days=number) for number in range(len(values))]
    fits = pl.DataFrame(
        {
            "symbol": "AAPL",
            "fit_date": days,
            "model": "garch",
            "distribution": "t",
            "status": "ok",
            "mu": values,
        }
    )
    database.replace("garch_models", fits, where={"symbol": ["AAPL"]})
    wanted = [value + 0.0 if math.isfinite(value) else None for value in values]
    assert database.read_table("garch_models")["mu"].to_list() == wanted


def test_replacing_twice_leaves_the_same_rows(filled: Database) -> None:
    before = filled.content(VERDICTS)
    rows = verdicts(SYMBOLS, JANUARY)
    filled.replace(VERDICTS, rows, where={"symbol": SYMBOLS, "test_date": JANUARY})
    assert filled.content(VERDICTS).equals(before)


def test_replacing_touches_the_named_keys_only(filled: Database) -> None:
    before = stored_verdicts(filled)
    new = verdicts(["AMD"], JANUARY[1:2], seed=9)
    filled.replace(VERDICTS, new, where={"symbol": ["AMD", "MSFT"], "test_date": JANUARY[1:3]})
    owned = pl.col("symbol").is_in(["AMD", "MSFT"]) & pl.col("test_date").is_in(JANUARY[1:3])
    after = stored_verdicts(filled)
    assert after.filter(~owned).equals(before.filter(~owned))
    assert after.filter(owned).select(new.columns).equals(new)


def test_an_empty_frame_deletes(filled: Database) -> None:
    filled.replace(VERDICTS, pl.DataFrame(), where={"symbol": ["AMD"], "test_date": JANUARY})
    assert stored_verdicts(filled)["symbol"].unique().sort().to_list() == ["AAPL", "MSFT"]


def test_long_key_lists_are_one_transaction(database: Database) -> None:
    symbols = [f"S{number:04d}" for number in range(2_300)]
    register(database, *symbols)
    rows = verdicts(symbols, JANUARY[:1])
    where = {"symbol": symbols, "test_date": JANUARY[:1]}
    assert database.replace(VERDICTS, rows, where=where) == 2_300
    commits: list[int] = []
    event.listen(database.engine, "commit", lambda _: commits.append(1))
    database.replace(VERDICTS, verdicts(symbols, JANUARY[:1], seed=2), where=where)
    assert commits == [1]
    assert database.read_table(VERDICTS, symbol=symbols).height == 2_300


@pytest.mark.parametrize(
    ("rows", "where", "message"),
    [
        (verdicts(["IBM"], JANUARY[:1]), {"symbol": ["AAPL"]}, "does not own, such as 'IBM'"),
        (verdicts(["AAPL"], JANUARY[:1]), {}, "needs key columns"),
        (verdicts(["AAPL"], JANUARY[:1]), {"ticker": ["AAPL"]}, "no column ticker"),
        (verdicts(["AAPL"], JANUARY[:1]).with_columns(extra=1), {"symbol": ["AAPL"]}, "no columns extra"),
        (verdicts(["AAPL"], JANUARY[:1]).drop("symbol"), {"symbol": ["AAPL"]}, "lack the column symbol"),
        (
            verdicts(["AAPL"], JANUARY[:1]).with_columns(is_stable=pl.lit("yes")),
            {"symbol": ["AAPL"]},
            "is_stable holds Boolean, not String",
        ),
        (
            verdicts(["AAPL"], JANUARY[:1]).with_columns(created_at=datetime(2024, 1, 2)),  # noqa: DTZ001
            {"symbol": ["AAPL"]},
            "no time zone",
        ),
        (verdicts(["AAPL"] * 2, JANUARY[:1]), {"symbol": ["AAPL"]}, "breaks a rule"),
        (
            verdicts(["AAPL"], JANUARY[:1]).with_columns(test_date=pl.lit(None, pl.Date)),
            {"symbol": ["AAPL"]},
            "test_date is null in 1 rows",
        ),
        (
            verdicts(["AAPL"], JANUARY[:1]).with_columns(gate=pl.lit("g" * 17)),
            {"symbol": ["AAPL"]},
            "longer than 16 characters",
        ),
    ],
)
def test_rows_that_do_not_fit_are_refused_and_nothing_changes(
    filled: Database, rows: pl.DataFrame, where: dict[str, list[str]], message: str
) -> None:
    before = filled.read_table(VERDICTS)
    with pytest.raises(DataError, match=message):
        filled.replace(VERDICTS, rows, where=where)
    assert filled.read_table(VERDICTS).equals(before)


def test_unknown_symbols_are_named_with_the_remedy(filled: Database) -> None:
    before = filled.read_table(VERDICTS)
    rows = verdicts(["AAPL", "IBM", "ORCL"], JANUARY)
    with pytest.raises(StoreError, match=r"IBM, ORCL; add them first \(garch symbols add IBM\)"):
        filled.replace(VERDICTS, rows, where={"symbol": ["AAPL", "IBM", "ORCL"]})
    assert filled.read_table(VERDICTS).equals(before)


def test_unknown_table() -> None:
    with pytest.raises(StoreError, match=r"no table quotes; it has .*symbols"):
        Database("sqlite://").read_table("quotes")


def test_upsert_updates_the_columns_given(database: Database) -> None:
    register(database, "AAPL", "AMD")
    added = database.read_table("symbols")["added_at"]
    assert (
        database.upsert("symbols", pl.DataFrame({"symbol": ["AMD", "MSFT"], "name": ["Advanced", "Soft"]}))
        == 2
    )
    rows = database.read_table("symbols")
    assert rows.select("symbol", "name", "sector").rows() == [
        ("AAPL", None, "technology"),
        ("AMD", "Advanced", "technology"),
        ("MSFT", "Soft", None),
    ]
    assert rows["added_at"][:2].equals(added)
    assert rows["is_active"].to_list() == [True, True, True]


def test_insert_missing_leaves_what_is_there(filled: Database) -> None:
    before = filled.read_table(VERDICTS)
    register(filled, "IBM")
    rows = pl.concat([verdicts(SYMBOLS, JANUARY, seed=5), verdicts(["IBM"], JANUARY)])
    assert filled.insert_missing(VERDICTS, rows) == 4
    after = filled.read_table(VERDICTS)
    assert after.filter(pl.col("symbol") != "IBM").equals(before)
    assert filled.insert_missing(VERDICTS, rows) == 0


def test_rejections_of_unknown_symbols_are_replaced_by_their_partition(database: Database) -> None:
    rows = pl.DataFrame(
        {
            "symbol": ["NOT A SYMBOL, BUT WHAT A FILE SAID", "AAPL"],
            "timestamp": [None, instant(JANUARY[0])],
            "session_date": [None, JANUARY[0]],
            "reason": ["unknown_symbol", "negative_price"],
            "detail": ["", "close -1"],
            "asset": "raw_bars",
            "partition_key": "2024-01-02",
        }
    )
    where = {"asset": ["raw_bars"], "partition_key": ["2024-01-02"], "symbol": rows["symbol"].to_list()}
    for _ in range(2):
        assert database.replace("rejections", rows, where=where) == 2
    assert database.content("rejections").select(rows.columns).equals(rows.sort("symbol"))
    with pytest.raises(DataError, match="has no unique key; use replace"):
        database.upsert("rejections", rows)


def test_times_of_writing_are_filled_in_utc(filled: Database) -> None:
    written = filled.read_table(VERDICTS)["created_at"]
    assert written.dtype == pl.Datetime("us", "UTC")
    age = datetime.now(UTC) - written.max()  # type: ignore[operator]
    assert timedelta(0) <= age < timedelta(minutes=5)
    assert "created_at" not in filled.content(VERDICTS).columns


@pytest.mark.parametrize("table", sorted(METADATA.tables))
def test_empty_tables_are_typed(database: Database, table: str) -> None:
    frame = database.read_table(table)
    assert frame.height == 0
    assert frame.schema == {
        column.name: polars_type(column.type) for column in METADATA.tables[table].columns
    }


@pytest.mark.parametrize("symbol", ["AAPL", "NONE"])
def test_text_queries_have_the_same_types_with_and_without_rows(filled: Database, symbol: str) -> None:
    sql = f"SELECT symbol, test_date, is_stable, created_at, rolling_std_cv FROM {VERDICTS} WHERE symbol = :symbol"
    expected = {
        "symbol": pl.String,
        "test_date": pl.Date,
        "is_stable": pl.Boolean,
        "created_at": pl.Datetime("us", "UTC"),
        "rolling_std_cv": pl.Float64,
    }
    for statement in (sql, text(sql)):
        frame = filled.read(statement, symbol=symbol)
        assert frame.schema == expected
        assert frame.height == (4 if symbol == "AAPL" else 0)


def test_reading_a_select(filled: Database) -> None:
    table = METADATA.tables[VERDICTS]
    last = select(table.c.symbol, func.max(table.c.test_date).label("last"), func.count().label("rows"))
    frame = filled.read(last.group_by(table.c.symbol).order_by(table.c.symbol))
    assert frame.rows() == [(symbol, JANUARY[-1], 4) for symbol in SYMBOLS]
    assert frame.schema == {"symbol": pl.String, "last": pl.Date, "rows": pl.Int64}


def test_filters_of_read_table(filled: Database) -> None:
    assert filled.read_table(VERDICTS, symbol="AMD", test_date=JANUARY[:2]).height == 2
    assert filled.read_table(VERDICTS, symbol=[]).height == 0
    unstable = filled.read_table(VERDICTS, is_stable=False)
    assert filled.read_table(VERDICTS, filter_reason="rolling_std_cv").equals(unstable)
    assert filled.read_table(VERDICTS, filter_reason=None)["is_stable"].all()
    with pytest.raises(DataError, match="no columns ticker"):
        filled.read_table(VERDICTS, ticker="AMD")


def test_not_migrated(tmp_path_factory: pytest.TempPathFactory, postgres_empty: str) -> None:
    for url in (f"sqlite:///{tmp_path_factory.mktemp('new')}/new.db", postgres_empty):
        database = Database(url)
        with pytest.raises(StoreError, match="not migrated"):
            database.read_table("symbols")
        database.dispose()


def test_unreachable_server_is_named_without_its_password() -> None:
    with pytest.raises(StoreError, match=r"someone:\*\*\*@127.0.0.1:1/") as caught:
        Database("postgresql://someone:sesame@127.0.0.1:1/garch").read_table("symbols")
    assert "sesame" not in str(caught.value)


def test_server_that_never_answers_is_away_and_not_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://someone@127.0.0.1:{silent.getsockname()[1]}/garch"
        with pytest.raises(StoreError, match="timeout expired"):
            Database(f"{url}?connect_timeout=2").read_table("symbols")


def test_other_dialects_are_refused() -> None:
    with pytest.raises(StoreError, match="neither sqlite nor postgresql"):
        Database("mysql://localhost/garch").read_table("symbols")


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg2", "postgresql+psycopg"])
def test_every_postgresql_url_uses_psycopg_3(scheme: str) -> None:
    assert normalise_url(f"{scheme}://host/name") == "postgresql+psycopg://host/name"


def test_locked_database_is_reported_quickly(
    filled: Database, open_database: Callable[..., Database]
) -> None:
    impatient = open_database(busy_timeout=0.1)
    rows = verdicts(["AMD"], JANUARY, seed=3)
    with filled.engine.begin() as connection:
        if filled.dialect == "postgresql":
            connection.exec_driver_sql(f"LOCK TABLE {VERDICTS} IN ACCESS EXCLUSIVE MODE")
        with pytest.raises(StoreBusy, match=rf"replacing rows of {VERDICTS}.*stayed locked"):
            impatient.replace(VERDICTS, rows, where={"symbol": ["AMD"]})
    assert impatient.replace(VERDICTS, rows, where={"symbol": ["AMD"]}) == 4


def test_readers_do_not_wait_for_a_writer(filled: Database, open_database: Callable[..., Database]) -> None:
    reader = open_database(busy_timeout=0.1)
    before = filled.read_table(VERDICTS)
    with filled.engine.begin() as connection:
        connection.exec_driver_sql(f"DELETE FROM {VERDICTS}")
        assert reader.read_table(VERDICTS).equals(before)
        connection.rollback()


def test_full_disk_leaves_the_old_rows(filled: Database) -> None:
    before = filled.read_table(VERDICTS)
    rows = verdicts(SYMBOLS, JANUARY, seed=2)

    def full(_conn: object, _cursor: object, statement: str, *_: object) -> None:
        if not statement.startswith(f"INSERT INTO {VERDICTS}"):
            return
        if filled.dialect == "postgresql":
            import psycopg

            cause: Exception = psycopg.errors.DiskFull("could not extend file: No space left on device")
        else:
            cause = sqlite3.OperationalError("database or disk is full")
            cause.sqlite_errorcode = sqlite3.SQLITE_FULL  # type: ignore[attr-defined]
        raise OperationalError(statement, {}, cause)

    event.listen(filled.engine, "before_cursor_execute", full)
    with pytest.raises(StoreFull, match="no space left"):
        filled.replace(VERDICTS, rows, where={"symbol": SYMBOLS})
    event.remove(filled.engine, "before_cursor_execute", full)
    assert filled.read_table(VERDICTS).equals(before)
    assert filled.replace(VERDICTS, rows, where={"symbol": SYMBOLS}) == 12


def test_sqlite_file_that_may_not_grow(
    sqlite_template: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """SQLite itself says that it is full: the file is limited to the pages that it has."""
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('full')}/garch.db")
    database.migrate()
    event.listen(database.engine, "connect", lambda raw, _: raw.execute("PRAGMA max_page_count = 1"))
    database.dispose()
    symbols = pl.DataFrame({"symbol": [f"S{number:05d}" for number in range(20_000)]})
    with pytest.raises(StoreFull, match="database or disk is full"):
        database.upsert("symbols", symbols)
    assert database.read_table("symbols").is_empty()
    database.dispose()


def test_killed_between_delete_and_insert(filled: Database) -> None:
    before = filled.read_table(VERDICTS)
    filled.dispose()
    spawn = multiprocessing.get_context("spawn")
    victim = spawn.Process(target=writers.die_between_delete_and_insert, args=(filled.url, SYMBOLS, JANUARY))
    victim.start()
    victim.join(60)
    assert victim.exitcode == -signal.SIGKILL
    assert filled.read_table(VERDICTS).equals(before)
    rows = verdicts(SYMBOLS, JANUARY, seed=2)
    filled.replace(VERDICTS, rows, where={"symbol": SYMBOLS, "test_date": JANUARY})
    assert stored_verdicts(filled).select(rows.columns).equals(rows.sort("symbol", "test_date"))


@pytest.mark.parametrize("shared", [False, True], ids=["own symbols", "same symbols"])
def test_four_writers_lose_nothing(database: Database, together: Together, shared: bool) -> None:
    names = [[f"{letter}{number}" for number in range(5)] for letter in "ABCD"]
    if shared:
        names = [names[0]] * 4
    register(database, *{name for group in names for name in group})
    together.run(writers.replace_verdicts, [(database.url, group, JANUARY, 6) for group in names])
    groups = {tuple(group) for group in names}
    wanted = pl.concat([verdicts(list(group), JANUARY, seed=6) for group in groups])
    stored = stored_verdicts(database).select(wanted.columns)
    assert stored.equals(wanted.sort("symbol", "test_date"))


def test_every_number_of_a_fit_has_a_column(database: Database) -> None:
    register(database, "AAPL")
    numbers = [c.name for c in METADATA.tables["garch_models"].columns if polars_type(c.type) == pl.Float64]
    random = np.random.default_rng(3)
    fit = {
        "symbol": "AAPL", "fit_date": date(2024, 1, 2), "model": "garch(1,1)", "distribution": "t", "status": "ok",
        "converged": True, "at_boundary": False, **{name: random.uniform() for name in numbers},
    }  # fmt: skip
    database.upsert("garch_models", pl.DataFrame([fit]))
    stored = database.read_table("garch_models").row(0, named=True)
    assert {name: stored[name] for name in fit} == fit
