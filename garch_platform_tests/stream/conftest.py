"""A database that needs no server, and a lake that is only read."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform_tests.stream.edge import small_market


@pytest.fixture
def sqlite(tmp_path: Path, sqlite_template: Path) -> Iterator[Database]:
    """A fresh, migrated SQLite database in the workspace's own place."""
    shutil.copy(sqlite_template, tmp_path / "garch.db")
    database = Database(f"sqlite:///{tmp_path / 'garch.db'}")
    yield database
    database.dispose()


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Two sessions of three symbols; never written to."""
    return small_market(tmp_path_factory.mktemp("market"))
