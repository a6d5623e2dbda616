"""SQL over both stores at once, read-only, with DuckDB.

The lake's tables appear as ``market_data_historical`` (bars) and ``market_data_features`` (features),
handed over as lazy frames, so that only the files and columns that a query needs are read: DuckDB pushes
its filters into Polars. (Arrow datasets would do as well, but pyarrow cannot compare the string views that
DuckDB 2 pushes into them: https://github.com/duckdb/duckdb-python/issues/187.) The database's tables
appear under their own names and are read only when the query names them.
"""

from __future__ import annotations

import difflib
import re
from datetime import date
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from sqlalchemy import select

from garch_platform.errors import StoreError
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.store.schema import METADATA

if TYPE_CHECKING:
    import duckdb

__all__ = ["LAKE_VIEWS", "query"]

LAKE_VIEWS: Final = {"market_data_historical": "bars", "market_data_features": "features"}

EXPLAIN: Final = re.compile(r"explain(\s+analyze)?\s*(\([^)]*\))?", re.IGNORECASE)


def query(sql: str, *, lake: Lake, database: Database, as_of: date | None = None) -> pl.DataFrame:
    """Run one reading statement and return its rows.

    Args:
        sql: SELECT, WITH, VALUES, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN, in DuckDB's dialect
            (https://duckdb.org/docs/sql/introduction).
        lake: holds the bars and features.
        database: holds the other tables.
        as_of: the day that CURRENT_DATE, today() and now() stand for (now() is its last microsecond in
            UTC); None is the clock's.

    Returns:
        The rows; timestamps in UTC.

    Raises:
        StoreError: the statement writes, is more than one, or DuckDB refuses it; names that come near
            an unknown table or column are given.
    """
    import duckdb

    with duckdb.connect(config={"autoinstall_known_extensions": "false"}) as connection:
        connection.execute("SET TimeZone = 'UTC'")
        statement = _only_statement(connection, sql)
        try:
            _register(connection, statement.query, lake, database)
            if as_of is not None:
                _set_clock(connection, as_of)
            connection.execute("SET python_enable_replacements = false")
            connection.execute("SET enable_external_access = false")
            connection.execute("SET lock_configuration = true")
            result = connection.sql(statement).pl()
        except duckdb.Error as error:
            raise StoreError(_explained(str(error))) from None
    return result


def _only_statement(connection: duckdb.DuckDBPyConnection, sql: str) -> Any:
    import duckdb

    try:
        statements = connection.extract_statements(sql)
    except duckdb.Error as error:
        raise StoreError(f"the SQL cannot be parsed: {error}") from None
    if len(statements) != 1:
        raise StoreError(f"the SQL holds {len(statements)} statements; give exactly one SELECT")
    statement = statements[0]
    kind = statement.type
    if kind == duckdb.StatementType.EXPLAIN:
        explained = connection.extract_statements(
            EXPLAIN.sub("", _without_comments(statement.query), count=1)
        )
        kind = explained[0].type
    if kind != duckdb.StatementType.SELECT:
        first = next(iter(re.findall(r"\w+", _without_comments(statement.query))), "")
        raise StoreError(
            f"{first.upper()} is refused: garch sql only reads; "
            "give one SELECT, WITH, VALUES, DESCRIBE, SHOW, SUMMARIZE or EXPLAIN of one"
        )
    return statement


def _without_comments(sql: str) -> str:
    return re.sub(r"\A(\s+|/\*.*?\*/|--[^\n]*)+", "", sql, flags=re.DOTALL)


def _register(connection: duckdb.DuckDBPyConnection, sql: str, lake: Lake, database: Database) -> None:
    """Register what ``sql`` names; for SHOW and DESCRIBE also the other tables, without rows."""
    words = {word.lower() for word in re.findall(r"\w+", sql)}
    everything = bool(re.match(r"(show|describe|desc)\b", _without_comments(sql), re.IGNORECASE))
    for view, table in LAKE_VIEWS.items():
        if everything or view in words:
            frame = lake.scan(table)
            columns = _lake_columns(frame.collect_schema().names())
            connection.register(f"lake_{table}", frame)
            connection.execute(f"CREATE VIEW {view} AS SELECT {columns} FROM lake_{table}")  # noqa: S608
    for name, stored in METADATA.tables.items():
        if name in words:
            connection.register(name, database.read_table(name).lazy())
        elif everything:
            connection.register(name, database.read(select(stored).limit(0)).lazy())


def _lake_columns(names: list[str]) -> str:
    columns = [f'"{name}"' for name in names]
    if "feature_date" not in names and "log_close" in names:
        columns.append("session_date AS feature_date")
    return ", ".join(columns)


def _set_clock(connection: duckdb.DuckDBPyConnection, as_of: date) -> None:
    """Let the clock's functions stand for ``as_of``; macros shadow them, whatever their spelling."""
    last = f"TIMESTAMP '{as_of} 23:59:59.999999'"
    clock = {
        **dict.fromkeys(("current_date", "today"), f"DATE '{as_of}'"),
        **dict.fromkeys(
            ("now", "get_current_timestamp", "current_timestamp", "transaction_timestamp"),
            f"{last}::TIMESTAMPTZ",
        ),
        **dict.fromkeys(("localtimestamp", "current_localtimestamp"), last),
    }
    for name, value in clock.items():
        connection.execute(f"CREATE MACRO {name}() AS {value}")


def _explained(message: str) -> str:
    known = [*LAKE_VIEWS, *METADATA.tables]
    unknown = re.search(r'Table with name "?([\w.]+)"? does not exist', message)
    if unknown is None:
        return f"the query was refused: {message}"
    name = unknown.group(1)
    lake_names = {table: view for view, table in LAKE_VIEWS.items()}
    near = [lake_names[name]] if name in lake_names else difflib.get_close_matches(name.lower(), known, n=3)
    hint = f"did you mean {' or '.join(near)}?" if near else f"there are {', '.join(known)}"
    return f"the query names the table {name}, which does not exist; {hint}"
