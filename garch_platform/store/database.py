"""The database: verdicts, entities and events, on SQLite or PostgreSQL.

Rows are written in sets, one transaction a call, from Polars frames. Reading gives Polars frames whose
types do not depend on the dialect or on how many rows come back. On PostgreSQL the writers of one table
queue on an advisory lock, on SQLite on the file's lock: two replacements of the same rows follow one
another on both.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from sqlalchemy import Connection, Engine, Executable, Select, Table, TextClause, delete, select, text
from sqlalchemy.dialects import postgresql, sqlite

from garch_platform.errors import DataError, StoreError
from garch_platform.store.engine import READ_ONLY, ForeignKeyMissing, database_engine, translated
from garch_platform.store.records import COLUMN_TYPES, frame_of, require_inside, rows_of
from garch_platform.store.schema import METADATA, RECORDED_AT, unique_key

if TYPE_CHECKING:
    from alembic.config import Config

__all__ = ["Database"]

KEYS_PER_DELETE: Final = 1_000
ROWS_PER_INSERT: Final = 10_000
ROWCOUNT: Final = {"preserve_rowcount": True}


class Database:
    """The platform's own tables.

    Args:
        url: a SQLAlchemy URL, ``sqlite:///path`` or ``postgresql://user:password@host/name``.
        busy_timeout: seconds to wait for another writer before `StoreBusy`.
    """

    def __init__(self, url: str, *, busy_timeout: float = 20.0) -> None:
        self.url = url
        self.busy_timeout = busy_timeout

    @cached_property
    def engine(self) -> Engine:
        """The SQLAlchemy engine; on SQLite its transactions begin IMMEDIATE."""
        return database_engine(self.url, busy_timeout=self.busy_timeout)

    @property
    def dialect(self) -> str:
        """``sqlite`` or ``postgresql``."""
        return self.engine.dialect.name

    def dispose(self) -> None:
        """Close all connections; the next use opens new ones."""
        self.engine.dispose()

    def migration_config(self, connection: Connection | None = None) -> Config:
        """Alembic's configuration for the migrations that the package carries."""
        from alembic.config import Config

        from garch_platform.store import migrations

        config = Config()
        config.set_main_option("script_location", str(Path(migrations.__path__[0])).replace("%", "%%"))
        config.attributes["connection"] = connection
        return config

    def migrate(self, revision: str = "head") -> None:
        """Bring the tables up to ``revision``; safe to repeat, and from several processes at once."""
        from alembic import command

        with self._writing("alembic_version", "migrating") as connection:
            command.upgrade(self.migration_config(connection), revision)

    def downgrade(self, revision: str = "base") -> None:
        """Take the tables back to ``revision``; ``base`` drops them with all their rows."""
        from alembic import command

        with self._writing("alembic_version", "migrating") as connection:
            command.downgrade(self.migration_config(connection), revision)

    def current_revision(self) -> str | None:
        """The revision that the tables are at; None before the first migration."""
        from alembic.migration import MigrationContext

        with self._reading("reading the revision") as connection:
            return MigrationContext.configure(connection).get_current_revision()

    def is_current(self) -> bool:
        """Whether the tables are at the newest revision."""
        from alembic.script import ScriptDirectory

        return (
            self.current_revision() == ScriptDirectory.from_config(self.migration_config()).get_current_head()
        )

    def replace(self, table_name: str, frame: pl.DataFrame, *, where: Mapping[str, Sequence[Any]]) -> int:
        """Delete the rows that ``where`` selects and insert ``frame``, in one transaction.

        Args:
            table_name: a table of the schema.
            frame: columns named as in the table; those left out take their default. May be empty.
            where: for each key column the values that this write owns; the rows of all combinations go.

        Returns:
            The number of rows inserted.

        Raises:
            DataError: a row lies outside ``where`` or does not fit the table; nothing was changed.
            StoreError: the database refused; nothing was changed. `StoreBusy` and `StoreFull` as named.
        """
        table = self._table(table_name)
        if not where:
            raise DataError(f"a replacement in {table_name} needs key columns; give where={{column: values}}")
        require_inside(table, frame, where)
        rows = rows_of(table, frame)
        chunks = [_chunks(list(dict.fromkeys(values)), KEYS_PER_DELETE) for values in where.values()]
        with self._writing(table_name, f"replacing rows of {table_name}", frame) as connection:
            for combination in itertools.product(*chunks):
                keys = zip(where, combination, strict=True)
                connection.execute(delete(table).where(*(table.c[name].in_(values) for name, values in keys)))
            for chunk in _chunks(rows, ROWS_PER_INSERT):
                connection.execute(table.insert(), chunk)
        return len(rows)

    def upsert(self, table_name: str, frame: pl.DataFrame) -> int:
        """Insert ``frame``; where the unique key exists, update the columns that the frame has.

        Returns:
            The number of rows written. Errors as in `replace`.
        """
        return self._merge(table_name, frame, update=True)

    def insert_missing(self, table_name: str, frame: pl.DataFrame) -> int:
        """Insert the rows whose unique key is not there yet and leave the others alone.

        Returns:
            The number of rows that were new. Errors as in `replace`.
        """
        return self._merge(table_name, frame, update=False)

    def _merge(self, table_name: str, frame: pl.DataFrame, *, update: bool) -> int:
        table = self._table(table_name)
        key = unique_key(table)
        missing = [name for name in key if name not in frame.columns]
        if not key or missing:
            raise DataError(
                f"rows of {table_name} lack their key ({', '.join(missing)})"
                if missing
                else f"table {table_name} has no unique key; use replace"
            )
        rows = rows_of(table, frame)
        dialect = postgresql if self.dialect == "postgresql" else sqlite
        statement = dialect.insert(table)
        others = [name for name in frame.columns if name not in key]
        if update and others:
            values = {name: statement.excluded[name] for name in others}
            statement = statement.on_conflict_do_update(index_elements=key, set_=values)
        else:
            statement = statement.on_conflict_do_nothing(index_elements=key)
        written = 0
        with self._writing(table_name, f"writing rows of {table_name}", frame) as connection:
            for chunk in _chunks(rows, ROWS_PER_INSERT):
                written += connection.execute(statement, chunk, execution_options=ROWCOUNT).rowcount
        return len(rows) if update else written

    def read(self, statement: Select[Any] | TextClause | str, **parameters: Any) -> pl.DataFrame:
        """Rows of a SQLAlchemy select, or of SQL text with ``:name`` parameters.

        A column of a select, and in SQL text one that keeps its name, has the type that the schema gives
        it, with or without rows.
        """
        typed: Executable
        if isinstance(statement, Select):
            types = {column.key or "": column.type for column in statement.selected_columns}
            typed = statement
        else:
            types = dict(COLUMN_TYPES)
            typed = (text(statement) if isinstance(statement, str) else statement).columns(**types)
        with self._reading("reading") as connection:
            return frame_of(connection.execute(typed, parameters), types)

    def read_table(self, table_name: str, **filters: Any) -> pl.DataFrame:
        """All columns of a table, in the order of its key.

        Args:
            table_name: a table of the schema.
            **filters: column=value, or column=[values]; all must hold. None selects nulls.
        """
        table = self._table(table_name)
        unknown = [name for name in filters if name not in table.columns]
        if unknown:
            raise DataError(f"table {table_name} has no columns {', '.join(unknown)}")
        statement = select(table).order_by(*(table.c[name] for name in unique_key(table) or ("id",)))
        chunked: list[tuple[str, list[list[Any]]]] = []
        for name, value in filters.items():
            if isinstance(value, Sequence | set | frozenset | pl.Series) and not isinstance(value, str):
                chunked.append((name, _chunks(list(value), KEYS_PER_DELETE) or [[]]))
            else:
                statement = statement.where(
                    table.c[name].is_(None) if value is None else table.c[name] == value
                )
        frames = [
            self.read(
                statement.where(
                    *(table.c[name].in_(part) for (name, _), part in zip(chunked, parts, strict=True))
                )
            )
            for parts in itertools.product(*(parts for _, parts in chunked))
        ]
        return frames[0] if len(frames) == 1 else pl.concat(frames).sort(unique_key(table) or ("id",))

    def content(self, table_name: str, **filters: Any) -> pl.DataFrame:
        """What a table states: `read_table` without row numbers and times of writing, rows in order.

        Two tables hold the same when their contents are equal.
        """
        frame = self.read_table(table_name, **filters).drop("id", *RECORDED_AT, strict=False)
        return frame.sort(frame.columns, nulls_last=True)

    def _table(self, name: str) -> Table:
        try:
            return METADATA.tables[name]
        except KeyError:
            raise StoreError(
                f"the database has no table {name}; it has {', '.join(METADATA.tables)}"
            ) from None

    @contextmanager
    def _reading(self, doing: str) -> Iterator[Connection]:
        with translated(self.url, doing), self.engine.connect() as connection:
            connection = connection.execution_options(**READ_ONLY)
            with connection.begin():
                yield connection

    @contextmanager
    def _writing(
        self, table_name: str, doing: str, frame: pl.DataFrame | None = None
    ) -> Iterator[Connection]:
        try:
            with translated(self.url, doing), self.engine.begin() as connection:
                if self.dialect == "postgresql":
                    connection.execute(
                        text("SELECT pg_advisory_xact_lock(hashtext('garch_platform'), hashtext(:name))"),
                        {"name": table_name},
                    )
                yield connection
        except ForeignKeyMissing as error:
            raise self._unknown_symbols(table_name, frame) or error from error

    def _unknown_symbols(self, table_name: str, frame: pl.DataFrame | None) -> StoreError | None:
        if frame is None:
            return None
        references = [
            c.name for c in self._table(table_name).columns if c.foreign_keys and c.name in frame.columns
        ]
        named = {symbol for name in references for symbol in frame[name].to_list()}
        unknown = sorted(named - set(self.read_table("symbols")["symbol"]))
        if not unknown:
            return None
        return StoreError(
            f"table {table_name}: symbols not registered: {', '.join(unknown[:10])}"
            f"{' …' if len(unknown) > 10 else ''}; add them first (garch symbols add {unknown[0]})"
        )


def _chunks(values: list[Any], size: int) -> list[list[Any]]:
    return [values[start : start + size] for start in range(0, len(values), size)]
