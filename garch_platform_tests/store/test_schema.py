"""The migrated tables are the tables of the schema, and hold what a PostgreSQL user expects."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone
from pathlib import Path

import polars as pl
import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import CheckConstraint, insert, inspect

from garch_platform.errors import DataError
from garch_platform.store.database import Database
from garch_platform.store.records import COLUMN_TYPES
from garch_platform.store.schema import METADATA, UtcDateTime, polars_type, unique_key
from garch_platform_tests.store import writers
from garch_platform_tests.store.conftest import Together
from garch_platform_tests.store.rows import JANUARY, register, verdicts


@pytest.fixture(params=["sqlite", "postgres"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables."""
    url = f"sqlite:///{tmp_path / 'new' / 'empty.db'}"
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_empty")
    database = Database(url)
    yield database
    database.dispose()


def test_migrated_tables_equal_the_schema(database: Database) -> None:
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), METADATA) == []


def test_comparison_sees_a_difference(database: Database) -> None:
    with database.engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE garch_models DROP COLUMN scale")
    with database.engine.connect() as connection:
        found = compare_metadata(MigrationContext.configure(connection), METADATA)
    assert [(kind, table, column.name) for kind, _, table, column in found] == [
        ("add_column", "garch_models", "scale")
    ]


def test_migrated_check_constraints_equal_the_schema(database: Database) -> None:
    found = inspect(database.engine)
    for table in METADATA.sorted_tables:
        wanted = {str(rule.name) for rule in table.constraints if isinstance(rule, CheckConstraint)}
        assert {rule["name"] for rule in found.get_check_constraints(table.name)} == wanted


def test_up_down_up(empty: Database) -> None:
    assert empty.current_revision() is None
    assert not empty.is_current()
    empty.migrate()
    assert empty.is_current()
    empty.migrate()
    register(empty, "AAPL")
    empty.downgrade()
    assert empty.current_revision() is None
    assert set(inspect(empty.engine).get_table_names()) <= {"alembic_version"}
    empty.migrate()
    assert empty.current_revision() == "0003"
    assert empty.read_table("symbols").is_empty()


def test_several_processes_migrate_at_once(empty: Database, together: Together) -> None:
    together.run(writers.migrate, [(empty.url,)] * 4)
    assert empty.is_current()


@pytest.mark.parametrize(
    ("table", "key"),
    [
        ("symbols", ("symbol",)),
        ("market_data", ("symbol", "timeframe", "timestamp", "feed", "data_source")),
        ("variance_stability_tracking", ("symbol", "test_date")),
        ("garch_models", ("symbol", "fit_date", "model", "distribution")),
        ("pair_rankings", ("sector", "ranking_date", "symbol_1", "symbol_2")),
        ("rejections", ()),
        ("revisions", ("symbol", "timeframe", "session_date", "new_hash", "old_hash", "occurrence")),
    ],
)
def test_natural_keys(table: str, key: tuple[str, ...]) -> None:
    assert unique_key(METADATA.tables[table]) == key


def test_a_column_name_has_one_type_in_all_tables() -> None:
    for table in METADATA.sorted_tables:
        for column in table.columns:
            assert polars_type(column.type) == polars_type(COLUMN_TYPES[column.name]), (
                table.name,
                column.name,
            )


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("arch_test_pvalue", 1.0000001),
        ("arch_test_pvalue", -0.1),
        ("ljung_box_pvalue", 2.0),
        ("rolling_std_cv", -1e-9),
        ("record_count", -1),
        ("test_window", 1),
        ("arch_lags", 0),
        ("gate", "lenient"),
    ],
)
def test_values_out_of_range_are_refused(database: Database, column: str, value: object) -> None:
    register(database, "AAPL")
    row = verdicts(["AAPL"], JANUARY[:1]).with_columns(pl.lit(value).alias(column))
    with pytest.raises(DataError, match=column):
        database.upsert("variance_stability_tracking", row)
    assert database.read_table("variance_stability_tracking").is_empty()


def test_pairs_are_ordered_by_code_point_on_every_dialect(database: Database) -> None:
    """``BF.B`` is before ``BFA`` in Python; a linguistic collation would have it the other way round."""
    register(database, "BF.B", "BFA")
    pair = {"sector": "x", "ranking_date": date(2024, 1, 2), "symbol_1": "BF.B", "symbol_2": "BFA"}
    assert database.upsert("pair_rankings", pl.DataFrame([pair])) == 1
    for turned in ({"symbol_1": "BFA", "symbol_2": "BF.B"}, {"symbol_1": "BFA", "symbol_2": "BFA"}):
        with pytest.raises(DataError, match="ck_pair_rankings_ordered"):
            database.upsert("pair_rankings", pl.DataFrame([pair | turned]))


def test_status_of_a_fit_is_one_of_four(database: Database) -> None:
    register(database, "AAPL")
    fit = {"symbol": "AAPL", "fit_date": JANUARY[0], "model": "garch", "distribution": "t", "status": "good"}
    with pytest.raises(DataError, match="ck_garch_models_status"):
        database.upsert("garch_models", pl.DataFrame([fit]))


def test_instants_are_utc_and_aware(database: Database) -> None:
    new_york = datetime(2024, 1, 2, 9, 30, tzinfo=timezone(timedelta(hours=-5)))
    symbols = METADATA.tables["symbols"]
    with database.engine.begin() as connection:
        connection.execute(insert(symbols), [{"symbol": "AAPL", "added_at": new_york}])
        stored = connection.execute(symbols.select()).one()
    assert stored.added_at == datetime(2024, 1, 2, 14, 30, tzinfo=UTC)
    assert stored.added_at.tzinfo == UTC
    assert stored.retired_at is None


@pytest.mark.parametrize("dialect", ["sqlite", "postgresql"])
def test_naive_datetimes_are_refused(dialect: str) -> None:
    from sqlalchemy.dialects import postgresql, sqlite

    chosen = sqlite.dialect() if dialect == "sqlite" else postgresql.dialect()
    with pytest.raises(DataError, match="no time zone"):
        UtcDateTime().process_bind_param(datetime(2024, 1, 2, 9, 30), chosen)  # noqa: DTZ001
