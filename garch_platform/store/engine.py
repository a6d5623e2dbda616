"""Connections to SQLite and PostgreSQL, and what their failures mean.

SQLite runs in WAL mode with foreign keys on and takes its write lock at the start of a transaction
(BEGIN IMMEDIATE), because a deferred transaction that turns into a writer cannot wait for another one
(https://www.sqlite.org/lang_transaction.html).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from sqlalchemy import Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import StatementError

from garch_platform.errors import DataError, GarchPlatformError, StoreBusy, StoreError, StoreFull

__all__ = ["READ_ONLY", "ForeignKeyMissing", "database_engine", "normalise_url", "translated"]

READ_ONLY: Final = {"garch_read_only": True}
"""Execution options of a connection that only reads: it takes no write lock on SQLite."""

SQLITE_STATES: Final = {
    sqlite3.SQLITE_BUSY: "busy",
    sqlite3.SQLITE_LOCKED: "busy",
    sqlite3.SQLITE_FULL: "full",
    sqlite3.SQLITE_CONSTRAINT_FOREIGNKEY: "foreign key",
    sqlite3.SQLITE_CONSTRAINT_UNIQUE: "constraint",
    sqlite3.SQLITE_CONSTRAINT_PRIMARYKEY: "constraint",
    sqlite3.SQLITE_CONSTRAINT_NOTNULL: "constraint",
    sqlite3.SQLITE_CONSTRAINT_CHECK: "constraint",
}

POSTGRESQL_STATES: Final = {
    "55P03": "busy",
    "40P01": "busy",
    "40001": "busy",
    "53100": "full",
    "23503": "foreign key",
    "23505": "constraint",
    "23502": "constraint",
    "23514": "constraint",
    "42P01": "no table",
}
"""SQLSTATE codes (https://www.postgresql.org/docs/current/errcodes-appendix.html)."""


POSTGRESQL_PATIENCE: Final = {
    "connect_timeout": 10,
    "tcp_user_timeout": 30_000,
    "keepalives_idle": 15,
    "keepalives_interval": 5,
    "keepalives_count": 3,
}
"""Seconds (``tcp_user_timeout``: ms) after which a server that is silent counts as away, which libpq would
wait for by hours; the URL may say otherwise
(https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-PARAMKEYWORDS)."""


class ForeignKeyMissing(StoreError):
    """A row refers to a symbol that the table `symbols` does not hold."""


def normalise_url(url: str) -> str:
    """Name the driver in ``url``: psycopg 3 for PostgreSQL, whichever way the URL was written."""
    for prefix in ("postgres://", "postgresql://", "postgresql+psycopg2://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url.removeprefix(prefix)
    return url


def database_engine(url: str, *, busy_timeout: float) -> Engine:
    """Make an engine for ``url``; writers wait ``busy_timeout`` seconds for one another.

    Raises:
        StoreError: the URL is neither SQLite's nor PostgreSQL's.
    """
    parsed = make_url(normalise_url(url))
    backend = parsed.get_backend_name()
    if backend == "sqlite":
        if parsed.database and parsed.database != ":memory:":
            Path(parsed.database).parent.mkdir(parents=True, exist_ok=True)
        engine = create_engine(parsed, connect_args={"timeout": busy_timeout})
        event.listen(engine, "connect", _prepare_sqlite)
        event.listen(engine, "begin", _begin_sqlite)
        return engine
    if backend == "postgresql":
        patience = {name: value for name, value in POSTGRESQL_PATIENCE.items() if name not in parsed.query}
        engine = create_engine(parsed, pool_pre_ping=True, connect_args=patience)
        event.listen(engine, "connect", _prepare_postgresql(busy_timeout))
        return engine
    raise StoreError(
        f"database {parsed.render_as_string()} is neither sqlite nor postgresql; "
        "set storage.database_url to a URL of one of them"
    )


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    cursor = connection.cursor()
    if cursor.execute("PRAGMA journal_mode").fetchone()[0] not in ("wal", "memory"):
        cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA foreign_keys=ON")
    cursor.close()


def _begin_sqlite(connection: Connection) -> None:
    read_only = connection.get_execution_options().get("garch_read_only", False)
    connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")


def _prepare_postgresql(busy_timeout: float) -> Callable[[Any, Any], None]:
    def prepare(connection: Any, _record: Any) -> None:
        with connection.cursor() as cursor:
            cursor.execute(f"SET lock_timeout = {int(busy_timeout * 1000)}")
            cursor.execute("SET TIME ZONE 'UTC'")
        connection.commit()

    return prepare


def _state(error: BaseException) -> str | None:
    if isinstance(error, sqlite3.Error):
        code = getattr(error, "sqlite_errorcode", None) or 0
        if "no such table" in str(error):
            return "no table"
        return SQLITE_STATES.get(code) or SQLITE_STATES.get(code & 0xFF)
    return POSTGRESQL_STATES.get(getattr(error, "sqlstate", None) or "")


@contextmanager
def translated(url: str, doing: str) -> Iterator[None]:
    """Turn the driver's errors into the platform's; ``doing`` names the place in the message.

    Raises:
        StoreBusy: the database stayed locked.
        StoreFull: its volume is full.
        DataError: a row breaks a constraint.
        ForeignKeyMissing: a row names a symbol that is not registered.
        StoreError: anything else that the database refused.
    """
    try:
        yield
    except (StatementError, sqlite3.Error) as error:
        cause = error.orig if isinstance(error, StatementError) and error.orig else error
        raise _translate(cause, make_url(normalise_url(url)).render_as_string(), doing) from error


def _translate(cause: BaseException, place: str, doing: str) -> GarchPlatformError:
    if isinstance(cause, GarchPlatformError):
        return cause
    first_line = next(iter(str(cause).strip().splitlines()), type(cause).__name__)
    match _state(cause):
        case "busy":
            return StoreBusy(
                f"{doing}: {place} stayed locked ({first_line}); "
                "another run is writing, try again when it ends"
            )
        case "full":
            return StoreFull(
                f"{doing}: no space left for {place} ({first_line}); nothing was written, free some"
            )
        case "foreign key":
            return ForeignKeyMissing(f"{doing}: {first_line}")
        case "constraint":
            return DataError(f"{doing}: a row breaks a rule of the table ({first_line}); nothing was written")
        case "no table":
            return StoreError(
                f"{doing}: {place} is not migrated ({first_line}); garch doctor says what to run"
            )
        case _:
            return StoreError(f"{doing}: {place} refused ({first_line})")
