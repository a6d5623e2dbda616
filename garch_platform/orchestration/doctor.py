"""``garch doctor``: what is wrong with this machine or workspace, each problem with its remedy."""

from __future__ import annotations

import os
import shutil
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Literal

from sqlalchemy import create_engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from garch_platform.errors import GarchPlatformError
from garch_platform.orchestration.instance import POSTGRES_URL_VARIABLE, dagster_postgres_url
from garch_platform.orchestration.jobs import HOURLY_JOB, MAINTENANCE_JOB
from garch_platform.orchestration.launch import Launcher
from garch_platform.settings import load_secrets
from garch_platform.stream.status import read_status
from garch_platform.workspace import Workspace

__all__ = ["Finding", "diagnose"]

UI_PORT = 3000
CONNECT_SECONDS = 5
MINIMUM_FREE_BYTES = 1_000_000_000
SESSIONS_BEHIND = 1


@dataclass(frozen=True)
class Finding:
    """One check: its level, what was seen, and what to do about it."""

    check: str
    level: Literal["ok", "warning", "error"]
    state: str
    remedy: str = ""


def diagnose(workspace: Workspace, *, now: datetime | None = None) -> list[Finding]:
    """Run every check; one that cannot run is itself a finding."""
    moment = now or datetime.now(UTC)
    checks: list[Callable[[], Iterator[Finding]]] = [
        _python,
        lambda: _folder(workspace),
        lambda: _database(workspace),
        lambda: _lake(workspace),
        lambda: _source(workspace),
        lambda: _secrets(workspace),
        lambda: _live(workspace),
        lambda: _symbols(workspace),
        lambda: _calendar(workspace, moment),
        lambda: _keys(workspace, moment),
        lambda: _freshness(workspace, moment),
        lambda: _dagster(workspace),
        _port,
    ]
    findings: list[Finding] = []
    for check in checks:
        try:
            findings += check()
        except GarchPlatformError as error:
            findings.append(Finding(type(error).__name__, "error", str(error)))
    return findings


def _python() -> Iterator[Finding]:
    version = ".".join(map(str, sys.version_info[:3]))
    fine = sys.version_info >= (3, 11)
    yield Finding(
        "python", "ok" if fine else "error", version, "" if fine else "install Python 3.11 or newer"
    )


def _folder(workspace: Workspace) -> Iterator[Finding]:
    folder = workspace.settings.workspace
    if not folder.is_dir():
        yield Finding("workspace", "error", f"{folder} does not exist", "run `garch init`")
        return
    free = shutil.disk_usage(folder).free
    fine = free > MINIMUM_FREE_BYTES
    yield Finding(
        "workspace",
        "ok" if fine else "warning",
        f"{folder}, {free / 1e9:.1f} GB free",
        "" if fine else "free some space: a write that does not fit is refused",
    )


def _database(workspace: Workspace) -> Iterator[Finding]:
    database = workspace.database
    if (
        not workspace.settings.storage.database_url
        and not (workspace.settings.workspace / "garch.db").is_file()
    ):
        yield Finding("database", "error", "no database yet", "run `garch init`")
        return
    current = database.is_current()
    yield Finding(
        "database",
        "ok" if current else "error",
        f"{database.engine.dialect.name}, revision {database.current_revision()}",
        "" if current else "run `garch init`: it migrates the database to the newest revision",
    )


def _lake(workspace: Workspace) -> Iterator[Finding]:
    for table in ("bars", "features"):
        version = workspace.lake.version(table)
        yield Finding(
            f"lake {table}",
            "ok" if version is not None else "warning",
            f"version {version}" if version is not None else "empty",
            "" if version is not None else "run `garch refresh`",
        )


def _source(workspace: Workspace) -> Iterator[Finding]:
    kind = workspace.settings.universe.source
    if kind != "files":
        yield Finding("source", "ok", kind)
        return
    path: Path = workspace.settings.files_path
    present = path.is_file() or (path.is_dir() and any(path.iterdir()))
    yield Finding(
        "source",
        "ok" if present else "warning",
        f"files in {path}" if present else f"no files in {path}",
        "" if present else "put Parquet or CSV bars there, or set files.path",
    )


def _secrets(workspace: Workspace) -> Iterator[Finding]:
    settings, secrets = workspace.settings, load_secrets()
    users = [
        name
        for name, needed in (
            ("universe.source", settings.universe.source == "alpaca"),
            ("websocket.mode", settings.websocket.mode == "alpaca"),
        )
        if needed
    ]
    missing = secrets.missing()
    if users and missing:
        yield Finding(
            "secrets",
            "error",
            f"{', '.join(missing)} not set, and {' and '.join(users)} is alpaca",
            "set them in the environment or in .env; they are never read from YAML",
        )
    elif missing:
        text = (
            f"{', '.join(missing)} not set: {HOURLY_JOB} and {MAINTENANCE_JOB} need them, nothing else here"
        )
        yield Finding("secrets", "ok", text)
    else:
        yield Finding("secrets", "ok", "Alpaca's are set")
    recycler = settings.websocket.recycler
    if not recycler.is_loopback and secrets.recycler_is_default:
        yield Finding(
            "recycler secrets",
            "error",
            f"{recycler.server_url} can be reached from elsewhere with the key that everybody knows",
            "set GARCH_RECYCLER_KEY and GARCH_RECYCLER_SECRET, or listen on 127.0.0.1",
        )


def _live(workspace: Workspace) -> Iterator[Finding]:
    status = read_status(workspace.settings.workspace)
    if status is None:
        yield Finding("stream client", "ok", "has not run in this workspace")
        return
    waiting = status.spool_files
    state = f"{'running' if status.is_running else 'stopped'}, {waiting} batches in the spool"
    remedy = "they are written when the client runs again: `garch stream`" if waiting else ""
    yield Finding("stream client", "warning" if waiting and not status.is_running else "ok", state, remedy)


def _symbols(workspace: Workspace) -> Iterator[Finding]:
    count = len(workspace.registry.entries()) if workspace.settings.registry_path.is_file() else 0
    yield Finding(
        "symbols",
        "ok" if count else "warning",
        f"{count} registered",
        "" if count else "run `garch symbols add SYMBOL --sector technology`",
    )


def _calendar(workspace: Workspace, now: datetime) -> Iterator[Finding]:
    last = workspace.calendar.last_closed(now)
    yield Finding("calendar", "ok", f"{workspace.calendar.name}, last closed session {last}")


def _keys(workspace: Workspace, now: datetime) -> Iterator[Finding]:
    window = workspace.settings.trading_days
    last = min(window.end or now.date(), now.date())
    if last < window.start or not workspace.settings.registry_path.is_file():
        return
    count = len(workspace.registry.entries()) * len(workspace.calendar.sessions(window.start, last))
    fine = count <= window.max_keys
    yield Finding(
        "partition keys",
        "ok" if fine else "warning",
        f"{count:,} symbol x session keys (advised limit {window.max_keys:,})",
        ""
        if fine
        else "move trading_days.start on, then `garch advance-start`: earlier sessions become bulk past",
    )


def _freshness(workspace: Workspace, now: datetime) -> Iterator[Finding]:
    coverage = workspace.lake.coverage("bars", workspace.settings.timeframe.name)
    if coverage.is_empty():
        return
    window = workspace.settings.trading_days
    closed = workspace.calendar.last_closed(now)
    wanted = min(window.end, closed) if window.end else closed
    newest: date = max(coverage["last_session"])
    behind = len(workspace.calendar.sessions(newest, wanted)) - 1 if newest < wanted else 0
    fine = behind <= SESSIONS_BEHIND
    yield Finding(
        "freshness",
        "ok" if fine else "warning",
        f"newest bars {newest}, {behind} sessions behind {wanted}",
        "" if fine else "run `garch refresh`",
    )


def _dagster(workspace: Workspace) -> Iterator[Finding]:
    url = os.environ.get(POSTGRES_URL_VARIABLE)
    if url and not _answers(dagster_postgres_url(url)):
        shown = make_url(dagster_postgres_url(url)).render_as_string(hide_password=True)
        yield Finding(
            "dagster storage",
            "error",
            f"{shown} does not answer",
            f"start that PostgreSQL, correct {POSTGRES_URL_VARIABLE}, or unset it to keep SQLite files",
        )
        return
    home = workspace.settings.dagster_home
    if not (home / "dagster.yaml").is_file():
        yield Finding("dagster storage", "error", f"no dagster.yaml in {home}", "run `garch init`")
        return
    yield Finding("dagster storage", "ok", "PostgreSQL" if url else f"SQLite in {home}")
    yield from _runs(workspace)


def _answers(url: str) -> bool:
    engine = create_engine(url, connect_args={"connect_timeout": CONNECT_SECONDS})
    try:
        with engine.connect():
            return True
    except SQLAlchemyError:
        return False
    finally:
        engine.dispose()


def _runs(workspace: Workspace) -> Iterator[Finding]:
    killed = Launcher(workspace).interrupted()
    jobs = ", ".join(f"{run.job_name} ({run.run_id[:8]})" for run in killed)
    yield Finding(
        "runs",
        "warning" if killed else "ok",
        f"{len(killed)} still marked as started, though their process was killed: {jobs}"
        if killed
        else "none was left unfinished",
        "run `garch refresh`: it marks them as failed and runs what is missing" if killed else "",
    )


def _port() -> Iterator[Finding]:
    with socket.socket() as probe:
        taken = probe.connect_ex(("127.0.0.1", UI_PORT)) == 0
    yield Finding(
        "port",
        "warning" if taken else "ok",
        f"{UI_PORT} is {'taken' if taken else 'free'}",
        "another program serves there (perhaps `garch ui`); use `garch ui --port N`" if taken else "",
    )
