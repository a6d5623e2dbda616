"""Stores for tests: a lake in a temporary folder, the database on SQLite and on a real PostgreSQL, the demo."""

from __future__ import annotations

import compileall
import gc
import itertools
import os
import pwd
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy import Engine, event

import garch_platform
from garch_platform.store.database import Database
from garch_platform.store.lake import Lake
from garch_platform.store.schema import METADATA
from garch_platform_tests.shared_demo import SharedDemo

POSTGRES_FOLDERS = (
    Path("/usr/lib/postgresql"),
    Path("/usr/local/pgsql"),
    Path("/opt/homebrew/opt/postgresql"),
)
NUMBERS = itertools.count()
BLAS_THREADS = "OPENBLAS_NUM_THREADS"
DEMO_TIMEOUT = 900
"""Seconds, the test's own time included; the demo runs beside other tests, on whatever machine."""
LONGEST = (
    "test_live_edge",
    "test_own_bars_and_a_scan_of_them",
    "test_questions",
    "test_services_start_answer_and_end",
)

DatabaseMaker = Callable[..., Database]


def postgres_folder() -> Path | None:
    """The folder that holds initdb and pg_ctl: on PATH, or the newest of Debian's versioned ones."""
    on_path = shutil.which("initdb")
    if on_path is not None:
        return Path(on_path).resolve().parent
    found = [path.parent for folder in POSTGRES_FOLDERS for path in folder.glob("**/bin/initdb")]
    return max(found, key=lambda path: [int(part) for part in path.parts if part.isdigit()], default=None)


def free_port() -> int:
    """A port of the loopback interface that nothing listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _as_server_owner(command: list[str]) -> list[str]:
    """PostgreSQL refuses to run as root: then its commands run as the user postgres."""
    return ["runuser", "-u", "postgres", "--", *command] if os.geteuid() == 0 else command


def _run(command: list[str], log: Path) -> None:
    """Run a server command; its output goes to a file, because the server keeps the handle open."""
    with log.open("a") as output:
        done = subprocess.run(_as_server_owner(command), stdout=output, stderr=output, cwd="/", check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n{log.read_text()}")


@pytest.fixture(scope="session")
def postgres_url() -> Iterator[str]:
    """SQLAlchemy URL of an empty PostgreSQL database on a server that lives as long as the session.

    Under pytest-xdist each worker has its own server. Skipped where the server binaries are absent.
    """
    binaries = postgres_folder()
    if binaries is None:
        pytest.skip("the PostgreSQL server binaries (initdb, pg_ctl) are not installed")
    if os.geteuid() == 0 and shutil.which("runuser") is None:
        pytest.skip("PostgreSQL refuses to run as root and runuser is not there to change the user")
    folder = Path(tempfile.mkdtemp(prefix="garch_postgres_"))
    log = Path(tempfile.mkstemp(prefix="garch_postgres_", suffix=".log")[1])
    try:
        if os.geteuid() == 0:
            owner = pwd.getpwnam("postgres")
            os.chown(folder, owner.pw_uid, owner.pw_gid)
        data = str(folder / "data")
        initialise = ["-D", data, "-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync"]
        icu = ["--locale-provider=icu", "--icu-locale=en-US"]
        try:
            _run([str(binaries / "initdb"), *initialise, *icu], log)
        except RuntimeError:
            _run([str(binaries / "initdb"), *initialise], log)
        control = str(binaries / "pg_ctl")
        port = free_port()
        options = f"-c fsync=off -c full_page_writes=off -c listen_addresses=127.0.0.1 -p {port} -k {folder}"
        _run([control, "-D", data, "-w", "-l", str(folder / "server.log"), "-o", options, "start"], log)
        try:
            yield f"postgresql+psycopg://postgres@127.0.0.1:{port}/postgres"
        finally:
            _run([control, "-D", data, "-m", "immediate", "-w", "stop"], log)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        log.unlink(missing_ok=True)


def _execute(postgres_url: str, statement: str) -> None:
    with psycopg.connect(_plain(postgres_url), autocommit=True) as connection:
        connection.execute(statement)


def _plain(postgres_url: str) -> str:
    return postgres_url.replace("+psycopg", "")


def _named(postgres_url: str, name: str) -> str:
    return postgres_url.rpartition("/")[0] + f"/{name}"


@pytest.fixture(scope="session")
def postgres_template(postgres_url: str) -> str:
    """Name of a migrated PostgreSQL database that new ones are copied from."""
    _execute(postgres_url, "CREATE DATABASE garch_template")
    database = Database(_named(postgres_url, "garch_template"))
    database.migrate()
    database.dispose()
    return "garch_template"


@pytest.fixture
def postgres_empty(postgres_url: str) -> Iterator[str]:
    """URL of a fresh PostgreSQL database without tables."""
    name = f"garch_empty_{next(NUMBERS)}"
    _execute(postgres_url, f"CREATE DATABASE {name}")
    yield _named(postgres_url, name)
    _execute(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated SQLite file that new databases are copied from."""
    path = tmp_path_factory.mktemp("sqlite") / "template.db"
    database = Database(f"sqlite:///{path}")
    database.migrate()
    with database.engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")  # type: ignore[union-attr]
    database.dispose()
    return path


COLUMNS = """
    SELECT md5(string_agg(table_name || column_name || data_type, ',' ORDER BY table_name, column_name))
    FROM information_schema.columns WHERE table_schema = 'public'
"""

OTHER_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""


@dataclass
class PostgresDatabases:
    """One migrated database that tests use in turn, emptied in between: 10 ms, where a copy takes 300."""

    server: str
    template: str
    name: str | None = None
    columns: object = None

    def fresh(self) -> str:
        """URL of a migrated database without rows; a new copy if a test has changed its tables."""
        if self.name is None or not self._emptied():
            self.name = f"garch_{next(NUMBERS)}"
            _execute(self.server, f"CREATE DATABASE {self.name} TEMPLATE {self.template}")
            with self._connect() as connection:
                self.columns = connection.execute(COLUMNS).fetchone()
        return _named(self.server, self.name)

    def _connect(self) -> psycopg.Connection[tuple[Any, ...]]:
        return psycopg.connect(_plain(_named(self.server, str(self.name))), autocommit=True)

    def _emptied(self) -> bool:
        with self._connect() as connection:
            connection.execute(OTHER_SESSIONS)
            if connection.execute(COLUMNS).fetchone() != self.columns:
                return False
            connection.execute(f"TRUNCATE {', '.join(METADATA.tables)} RESTART IDENTITY")
        return True


@pytest.fixture(scope="session")
def postgres_databases(postgres_url: str, postgres_template: str) -> PostgresDatabases:
    """Migrated databases on the session's server."""
    return PostgresDatabases(postgres_url, postgres_template)


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.postgres)])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URL of a fresh, migrated database, on SQLite and on PostgreSQL."""
    if request.param == "sqlite":
        path = tmp_path / "garch.db"
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        return f"sqlite:///{path}"
    databases: PostgresDatabases = request.getfixturevalue("postgres_databases")
    return databases.fresh()


@pytest.fixture
def open_database(database_url: str) -> Iterator[DatabaseMaker]:
    """Open the test's database once more: ``open_database(busy_timeout=0.2)``."""
    opened: list[Database] = []

    def open_again(**arguments: float) -> Database:
        opened.append(Database(database_url, **arguments))
        return opened[-1]

    yield open_again
    for database in opened:
        database.dispose()


@pytest.fixture
def database(open_database: DatabaseMaker) -> Database:
    """A fresh, migrated database, on SQLite and on PostgreSQL."""
    return open_database()


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """An empty lake."""
    return Lake(tmp_path / "lake", reproducibility_days=400, lock_timeout=20)


def shell_environment(**variables: str) -> dict[str, str]:
    """The environment of a new user's shell: none of the platform's variables, this Python's commands on PATH."""
    platform = ("GARCH_", "DAGSTER_", "PYTEST_", "MAKE", "COLUMNS", "FORCE_COLOR", BLAS_THREADS)
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(platform)}
    commands = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    return {**inherited, "PATH": commands, **variables}


@event.listens_for(Engine, "connect")
def _without_waiting_for_the_disk(connection: Any, _record: object) -> None:
    """No SQLite file of a test has to survive a power cut: ours and Dagster's commit without fsync."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous = OFF")


@pytest.fixture(scope="session", autouse=True)
def shared_demo(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, worker_id: str
) -> Iterator[SharedDemo]:
    """The demo; it begins at once if a test of this session needs it. All workers share the one folder."""
    base = tmp_path_factory.getbasetemp()
    root = (base if worker_id == "master" else base.parent) / "demo"
    demo = SharedDemo(root, shell_environment())
    if any("demo_root" in getattr(item, "fixturenames", ()) for item in request.session.items):
        demo.begin()
    yield demo
    demo.leave()


@pytest.fixture(scope="session")
def demo_root(shared_demo: SharedDemo) -> Path:
    """The folder that `garch demo` filled once for the whole session, with its output in ``demo.log``.

    Read it, or copy it; never run jobs in it.
    """
    return shared_demo.filled()


def pytest_configure(config: pytest.Config) -> None:
    """Workers that share the cores have one BLAS thread each: threads beyond the cores wait in a busy loop.

    The package is compiled before them: where bytecode is not written, each process would do it again.
    """
    if config.getoption("numprocesses", None):
        os.environ.setdefault(BLAS_THREADS, "1")
    if not hasattr(config, "workerinput"):
        compileall.compile_dir(Path(garch_platform.__file__).parent, quiet=2)


@pytest.hookimpl(tryfirst=True)
def pytest_collection() -> None:
    """What is imported stays: looking for garbage meanwhile takes a quarter of the time."""
    gc.disable()


def pytest_collection_finish() -> None:
    """From here on garbage is looked for among what the tests make."""
    gc.freeze()
    gc.set_threshold(10_000, 20, 50)
    gc.enable()


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Workers take tests from one another at the end, unless ``--dist`` asks for something else."""
    if config.getvalue("dist") != "load":
        return None
    from xdist.scheduler import WorkStealingScheduling

    return WorkStealingScheduling(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest tests come before the others of this folder: begun last, they leave the other workers idle.

    Whoever needs the demo has the time to wait for it.
    """
    for item in items:
        if "demo_root" in getattr(item, "fixturenames", ()) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(DEMO_TIMEOUT))
    longest = [item for item in items if getattr(item, "originalname", "") in LONGEST]
    others = [item for item in items if item not in longest]
    here = [place for place, item in enumerate(others) if item.path.parent == Path(__file__).parent]
    first = here[0] if here else len(others)
    items[:] = [*others[:first], *longest, *others[first:]]
