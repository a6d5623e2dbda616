"""SQL over the lake and the database at once."""

from __future__ import annotations

import re
import shutil
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import polars as pl
import pytest

from garch_platform.errors import StoreError
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.store.schema import METADATA
from garch_platform.store.sql import LAKE_VIEWS, query
from garch_platform_tests.store.rows import bars, features, register, verdicts

STABLE_FEATURES = """
SELECT f.* FROM market_data_features f
JOIN variance_stability_tracking v ON f.symbol = v.symbol AND f.feature_date = v.test_date
WHERE v.is_stable = true AND f.feature_date >= CURRENT_DATE - INTERVAL '30 days'
ORDER BY f.symbol, f.timestamp;
"""

STABILITY_TODAY = """
SELECT symbol, test_date, is_stable, filter_reason, arch_test_pvalue
FROM variance_stability_tracking
WHERE test_date = CURRENT_DATE
ORDER BY is_stable DESC, symbol;
"""

TODAY = date(2024, 3, 1)
DAYS = [TODAY - timedelta(days=number) for number in (45, 31, 30, 29, 1, 0)]
SYMBOLS = ["AAPL", "AMD", "MSFT"]


@pytest.fixture
def stores(lake: Lake, database: Database) -> tuple[Lake, Database]:
    """Bars, features and verdicts of three symbols around `TODAY`."""
    register(database, *SYMBOLS)
    for table, rows in (("bars", bars(SYMBOLS, DAYS)), ("features", features(SYMBOLS, DAYS))):
        lake.replace(table, rows, timeframe="1Min", symbols=SYMBOLS)
    database.replace("variance_stability_tracking", verdicts(SYMBOLS, DAYS), where={"symbol": SYMBOLS})
    return lake, database


@pytest.fixture
def nothing(lake: Lake, tmp_path: Path, sqlite_template: Path) -> tuple[Lake, Database]:
    """Stores that hold no rows."""
    shutil.copy(sqlite_template, tmp_path / "empty.db")
    return lake, Database(f"sqlite:///{tmp_path / 'empty.db'}")


def ask(stores: tuple[Lake, Database], sql: str, as_of: date | None = TODAY) -> pl.DataFrame:
    return query(sql, lake=stores[0], database=stores[1], as_of=as_of)


def test_stable_features_for_modelling(stores: tuple[Lake, Database]) -> None:
    found = ask(stores, STABLE_FEATURES)
    stable = verdicts(SYMBOLS, DAYS).filter("is_stable").select("symbol", feature_date="test_date")
    recent = pl.col("feature_date") >= TODAY - timedelta(days=30)
    wanted = features(SYMBOLS, DAYS).join(stable, on=["symbol", "feature_date"]).filter(recent)
    assert found.height == wanted.height > 0
    assert found.select(wanted.columns).equals(wanted.sort("symbol", "timestamp"))
    assert "period" not in found.columns


def test_stability_status_today(stores: tuple[Lake, Database]) -> None:
    found = ask(stores, STABILITY_TODAY)
    wanted = verdicts(SYMBOLS, DAYS).filter(pl.col("test_date") == TODAY).select(found.columns)
    assert found.height == 3
    assert found.equals(wanted.sort(pl.col("is_stable").not_(), "symbol"))
    assert ask(stores, STABILITY_TODAY, as_of=TODAY - timedelta(days=2)).height == 0


def test_without_as_of_the_clock_is_the_clock(nothing: tuple[Lake, Database]) -> None:
    before = datetime.now(UTC)
    now = ask(nothing, "SELECT now() AS now", as_of=None)["now"][0]
    assert before - timedelta(minutes=1) <= now <= datetime.now(UTC) + timedelta(minutes=1)


@pytest.mark.parametrize(
    "clock",
    ["CURRENT_DATE", "current_date", "Current_Date", "today()", "TODAY()", "NOW()::DATE", "current_date()"],
)
def test_as_of_stands_for_the_date(nothing: tuple[Lake, Database], clock: str) -> None:
    assert ask(nothing, f"SELECT {clock} AS day").item() == TODAY


@pytest.mark.parametrize(
    "clock", ["now()", "CURRENT_TIMESTAMP", "get_current_timestamp()", "transaction_timestamp()"]
)
def test_as_of_stands_for_the_end_of_its_day(nothing: tuple[Lake, Database], clock: str) -> None:
    end = datetime(2024, 3, 1, 23, 59, 59, 999_999, tzinfo=UTC)
    assert ask(nothing, f"SELECT {clock} AS now").item() == end
    assert ask(nothing, "SELECT localtimestamp AS now").item() == end.replace(tzinfo=None)


def test_as_of_leaves_texts_comments_and_quoted_names_alone(nothing: tuple[Lake, Database]) -> None:
    sql = """
    SELECT 'CURRENT_DATE' AS a, 'it''s now()' AS b, $$today()$$ AS c, -- CURRENT_DATE
           t."current_date" AS d /* now() */
    FROM (SELECT 1 AS "current_date") AS t
    """
    assert ask(nothing, sql).row(0) == ("CURRENT_DATE", "it's now()", "today()", 1)


def test_timestamps_are_utc(stores: tuple[Lake, Database]) -> None:
    found = ask(stores, "SELECT min(timestamp) AS first FROM market_data_historical")
    assert found.schema == {"first": pl.Datetime("us", "UTC")}
    assert found.item() == bars(SYMBOLS, DAYS)["timestamp"].min()


def test_numbers_come_back_to_the_bit(stores: tuple[Lake, Database]) -> None:
    found = ask(
        stores, "SELECT symbol, timestamp, close FROM market_data_historical ORDER BY symbol, timestamp"
    )
    assert found.equals(
        bars(SYMBOLS, DAYS).select("symbol", "timestamp", "close").sort("symbol", "timestamp")
    )


def test_only_the_files_of_the_period_are_read(stores: tuple[Lake, Database]) -> None:
    """The file of one session is removed; a query of another session does not notice."""
    (file,) = Path(stores[0].url, "bars", "timeframe=1Min", f"period={DAYS[0]}").glob("*.parquet")
    file.unlink()
    sql = "SELECT count(*) AS n FROM market_data_historical WHERE session_date = DATE '2024-03-01' AND symbol = 'AMD'"
    assert ask(stores, sql).item() == 3
    with pytest.raises(StoreError, match="refused"):
        ask(stores, "SELECT sum(close) AS n FROM market_data_historical")


def test_only_the_tables_named_are_read(
    stores: tuple[Lake, Database], monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real = Database.read_table

    def noted(self: Database, name: str, **filters: object) -> pl.DataFrame:
        read.append(name)
        return real(self, name, **filters)

    monkeypatch.setattr(Database, "read_table", noted)
    ask(stores, "SELECT * FROM Symbols JOIN main.garch_models USING (symbol)")
    assert sorted(read) == ["garch_models", "symbols"]


@pytest.mark.parametrize(
    "table", ["market_data_historical", "market_data_features", "variance_stability_tracking"]
)
@pytest.mark.parametrize(
    ("condition", "wanted"),
    [
        ("symbol = 'AMD'", pl.col("symbol") == "AMD"),
        ("symbol IN ('AMD', 'MSFT', 'IBM')", pl.col("symbol").is_in(["AMD", "MSFT"])),
        ("symbol <> 'AMD'", pl.col("symbol") != "AMD"),
        ("symbol LIKE 'A%'", pl.col("symbol").str.starts_with("A")),
        ("{day} BETWEEN '2024-01-31' AND '2024-02-29'", pl.col("day").is_between(DAYS[2], DAYS[4])),
        (
            "{day} IN (SELECT DISTINCT test_date FROM variance_stability_tracking WHERE is_stable)",
            pl.col("day").is_in(DAYS[::2]),
        ),
        ("symbol = 'AMD' AND {day} >= current_date", (pl.col("symbol") == "AMD") & (pl.col("day") == TODAY)),
    ],
)
def test_every_kind_of_filter_selects_the_right_rows(
    stores: tuple[Lake, Database], table: str, condition: str, wanted: pl.Expr
) -> None:
    day = {"market_data_historical": "session_date", "market_data_features": "feature_date"}.get(
        table, "test_date"
    )
    found = ask(stores, f"SELECT symbol, {day} AS day FROM {table} WHERE {condition.format(day=day)}")
    source = verdicts(SYMBOLS, DAYS).rename({"test_date": "day"})
    if table in LAKE_VIEWS:
        source = bars(SYMBOLS, DAYS).rename({"session_date": "day"})
    expected = source.filter(wanted).select("symbol", "day").sort("symbol", "day")
    assert found.sort("symbol", "day").equals(expected)


@pytest.mark.parametrize("name", [*METADATA.tables, *LAKE_VIEWS])
def test_every_table_can_be_asked_while_empty(nothing: tuple[Lake, Database], name: str) -> None:
    found = ask(nothing, f"SELECT * FROM {name}")
    if name in METADATA.tables:
        assert found.columns == METADATA.tables[name].columns.keys()
    else:
        needed = {"symbol", "timestamp", "data_source"}
        assert needed | ({"log_close", "feature_date"} if name.endswith("features") else {"close"}) <= set(
            found.columns
        )
    assert found.height == 0


def test_show_lists_both_stores(nothing: tuple[Lake, Database]) -> None:
    assert {*METADATA.tables, *LAKE_VIEWS} <= set(ask(nothing, "SHOW TABLES")["name"])
    described = ask(nothing, "DESCRIBE market_data_features")
    assert {"symbol", "timestamp", "log_close", "z_score", "feature_date"} <= set(described["column_name"])


@pytest.mark.parametrize(
    "sql",
    [
        "WITH s AS (SELECT symbol FROM symbols) SELECT count(*) FROM s",
        "VALUES (1), (2)",
        "EXPLAIN SELECT * FROM symbols",
        "EXPLAIN ANALYZE SELECT * FROM symbols",
        "SUMMARIZE symbols",
        "FROM symbols",
        "/* note */ -- more\n select 1;",
    ],
)
def test_statements_that_read_are_allowed(stores: tuple[Lake, Database], sql: str) -> None:
    assert ask(stores, sql).height >= 1


@pytest.mark.parametrize(
    "sql",
    [
        "CREATE TABLE x AS SELECT 1",
        "INSERT INTO symbols (symbol) VALUES ('X')",
        "DELETE FROM symbols",
        "UPDATE symbols SET name = 'x'",
        "DROP VIEW symbols",
        "COPY (SELECT 1) TO 'out.csv'",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'out.csv'",
        "ATTACH 'x.db' AS x",
        "SET threads = 1",
        "PRAGMA database_list",
        "INSTALL httpfs",
        "CALL pragma_version()",
        "EXPORT DATABASE 'x'",
        "/* SELECT */ CREATE TABLE x (a INT)",
    ],
)
def test_statements_that_write_are_refused(nothing: tuple[Lake, Database], sql: str) -> None:
    verb = re.sub(r"/\*.*?\*/", "", sql).split()[0]
    with pytest.raises(StoreError, match=f"{verb} is refused: garch sql only reads"):
        ask(nothing, sql)


@pytest.mark.parametrize(
    ("sql", "message"),
    [
        ("SELECT 1; SELECT 2", "holds 2 statements"),
        ("", "holds 0 statements"),
        ("-- nothing", "holds 0 statements"),
        ("SELEC 1", "cannot be parsed"),
        ("SELECT * FROM variance_stability", "did you mean variance_stability_tracking"),
        ("SELECT * FROM bars", r"did you mean market_data_historical\?"),
        ("SELECT * FROM features", r"did you mean market_data_features\?"),
        ("SELECT * FROM zzz", "there are market_data_historical, market_data_features, .*garch_models"),
        ("SELECT is_stabel FROM variance_stability_tracking", "is_stable"),
        ("SELECT 1 / 'a'", "the query was refused"),
    ],
)
def test_mistakes_are_explained(nothing: tuple[Lake, Database], sql: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        ask(nothing, sql)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM read_csv('{path}')",
        "SELECT * FROM '{path}'",
        "SELECT * FROM read_text('{path}')",
        "SELECT * FROM glob('{folder}/*')",
        "WITH w AS (SELECT * FROM secret) SELECT * FROM w",
    ],
)
def test_nothing_outside_the_stores_can_be_read(
    nothing: tuple[Lake, Database], tmp_path: object, sql: str
) -> None:
    path = Path(str(tmp_path)) / "secret.csv"
    path.write_text("a\n1\n")
    secret = pl.DataFrame({"a": [1]})
    with pytest.raises(StoreError):
        ask(nothing, sql.format(path=path, folder=path.parent))
    assert secret.height == 1


def test_a_database_that_is_not_migrated_is_said(
    lake: Lake, tmp_path_factory: pytest.TempPathFactory
) -> None:
    database = Database(f"sqlite:///{tmp_path_factory.mktemp('new')}/garch.db")
    with pytest.raises(StoreError, match="not migrated"):
        ask((lake, database), "SELECT * FROM symbols")
