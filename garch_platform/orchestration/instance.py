"""Dagster's own instance: where runs, events, schedules and sensor cursors are kept.

Two templates beside the config folder are the single truth: ``dagster.yaml`` (SQLite in DAGSTER_HOME)
and ``docker/dagster.yaml`` (PostgreSQL). A workspace gets a copy of one of them. The PostgreSQL URL holds
a password, so it stays in the environment and is never written to the copy.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from garch_platform.errors import ConfigurationError, StoreError
from garch_platform.settings import config_folder

__all__ = ["POSTGRES_URL_VARIABLE", "dagster_postgres_url", "instance_template", "prepare_dagster_home"]

POSTGRES_URL_VARIABLE: Final = "DAGSTER_POSTGRES_URL"
"""The environment variable that names the PostgreSQL of Dagster's own storage."""

POSTGRES_SCHEMES: Final = ("postgres", "postgresql")


def dagster_postgres_url(url: str) -> str:
    """Return ``url`` with the driver that Dagster's event log needs, psycopg 2.

    SQLAlchemy 2.1 reads a bare ``postgresql://`` as psycopg 3, whose server-side parameters break the
    ``NOTIFY`` statement of dagster-postgres at the first event.

    Raises:
        ConfigurationError: ``url`` is not the URL of a PostgreSQL database.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        raise ConfigurationError(
            f"{POSTGRES_URL_VARIABLE} is not a database URL; "
            "write postgresql://user:password@host:port/database (special characters percent-encoded)"
        ) from None
    scheme = parsed.drivername.partition("+")[0]
    if scheme not in POSTGRES_SCHEMES:
        raise ConfigurationError(
            f"{POSTGRES_URL_VARIABLE} names a {scheme!r} database; "
            "Dagster's storage takes postgresql://…, or leave the variable unset for SQLite"
        )
    return parsed.set(drivername="postgresql+psycopg2").render_as_string(hide_password=False)


def instance_template(*, postgres: bool) -> Path:
    """The committed ``dagster.yaml`` for SQLite or for PostgreSQL.

    It stands beside the config folder, or beside the package where GARCH_CONFIG points elsewhere.

    Raises:
        ConfigurationError: neither place has the file.
    """
    name = Path("docker", "dagster.yaml") if postgres else Path("dagster.yaml")
    places = [config_folder().resolve().parent, Path(__file__).resolve().parents[2]]
    for place in places:
        if (place / name).is_file():
            return place / name
    raise ConfigurationError(
        f"no {name} in {' or '.join(str(place) for place in dict.fromkeys(places))}; "
        "put the project's copy beside the config folder"
    )


def prepare_dagster_home(home: Path, *, postgres_url: str | None = None) -> Path:
    """Create DAGSTER_HOME with its ``dagster.yaml`` and return its absolute path.

    Doing it again changes nothing; another choice of storage replaces the file. The file refers to
    ``DAGSTER_POSTGRES_URL``, which is set, with the right driver, for this process and those it starts.

    Args:
        home: the folder; created with its parents.
        postgres_url: a PostgreSQL database of Dagster's own; None keeps SQLite files in ``home``.

    Raises:
        ConfigurationError: the URL is not a PostgreSQL one, or a template is absent.
        StoreError: the folder cannot be written.
    """
    home = home.expanduser().absolute()
    template = instance_template(postgres=postgres_url is not None).read_bytes()
    if postgres_url is not None:
        os.environ[POSTGRES_URL_VARIABLE] = dagster_postgres_url(postgres_url)
    target = home / "dagster.yaml"
    try:
        home.mkdir(parents=True, exist_ok=True)
        if not target.is_file() or target.read_bytes() != template:
            fresh = home / f".dagster.yaml.{os.getpid()}"
            fresh.write_bytes(template)
            fresh.replace(target)
    except OSError as error:
        raise StoreError(
            f"DAGSTER_HOME {home} cannot be written ({error.strerror}); check the folder's owner and space, "
            "or choose another workspace (GARCH_WORKSPACE)"
        ) from error
    return home
