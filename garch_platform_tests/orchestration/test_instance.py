"""Dagster's instance boots from the committed templates, on SQLite and on a real PostgreSQL."""

from __future__ import annotations

import os
import traceback
from pathlib import Path

import dagster as dg
import pytest
import yaml
from sqlalchemy import create_engine, make_url, text

from garch_platform.errors import ConfigurationError, StoreError
from garch_platform.orchestration.instance import (
    POSTGRES_URL_VARIABLE,
    dagster_postgres_url,
    instance_template,
    prepare_dagster_home,
)

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (POSTGRES_URL_VARIABLE, "DAGSTER_HOME"):
        monkeypatch.setenv(name, "unset")
        monkeypatch.delenv(name)


@pytest.fixture
def dagster_url(postgres_empty: str) -> str:
    """A bare ``postgresql://`` URL of an empty database of Dagster's own."""
    return make_url(postgres_empty).set(drivername="postgresql").render_as_string(hide_password=False)


def run_and_read_back(home: Path) -> None:
    """Run an asset, open the instance again, and find the run, its event and a dynamic key."""

    @dg.asset
    def closes() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"rows": 20})

    with dg.DagsterInstance.from_config(str(home)) as instance:
        done = dg.materialize([closes], instance=instance)
        instance.add_dynamic_partitions("symbols", ["AAPL"])
    with dg.DagsterInstance.from_config(str(home)) as instance:
        run = instance.get_run_by_id(done.run_id)
        event = instance.get_latest_materialization_event(closes.key)
        assert run is not None
        assert run.status is dg.DagsterRunStatus.SUCCESS
        assert event is not None
        assert event.asset_materialization is not None
        assert event.asset_materialization.metadata["rows"].value == 20
        assert instance.get_dynamic_partitions("symbols") == ["AAPL"]


def test_sqlite_instance_keeps_runs_and_events(tmp_path: Path) -> None:
    home = prepare_dagster_home(tmp_path / "dagster")
    run_and_read_back(home)
    assert (home / "history").is_dir()


@pytest.mark.postgres
def test_postgres_instance_keeps_runs_and_events(tmp_path: Path, dagster_url: str) -> None:
    """The bare URL would die at the first event's NOTIFY, were it not normalised."""
    assert dagster_url.startswith("postgresql://")
    home = prepare_dagster_home(tmp_path / "dagster", postgres_url=dagster_url)
    run_and_read_back(home)
    assert not (home / "history" / "runs.db").exists()
    engine = create_engine(dagster_postgres_url(dagster_url))
    with engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM runs")).scalar_one() == 1
        assert connection.execute(text("SELECT count(*) FROM event_logs")).scalar_one() > 1
    engine.dispose()


def test_instance_takes_one_run_at_a_time_and_sends_nothing_home(tmp_path: Path) -> None:
    with dg.DagsterInstance.from_config(str(prepare_dagster_home(tmp_path))) as instance:
        queue = instance.get_concurrency_config().run_queue_config
        assert queue is not None
        assert queue.max_concurrent_runs == 1
        assert type(instance.run_coordinator).__name__ == "QueuedRunCoordinator"
        assert (instance.telemetry_enabled, instance.nux_enabled) == (False, False)
        assert (instance.run_monitoring_enabled, instance.run_retries_max_retries) == (True, 1)


def test_templates_differ_in_storage_only() -> None:
    embedded = yaml.safe_load((ROOT / "dagster.yaml").read_text("utf-8"))
    served = yaml.safe_load((ROOT / "docker" / "dagster.yaml").read_text("utf-8"))
    assert served.pop("storage") == {"postgres": {"postgres_url": {"env": POSTGRES_URL_VARIABLE}}}
    assert served == embedded


@pytest.mark.parametrize(
    ("url", "template"), [(None, "dagster.yaml"), ("postgresql://u:secret@db/dagster", "docker/dagster.yaml")]
)
def test_home_holds_the_committed_template(tmp_path: Path, url: str | None, template: str) -> None:
    home = prepare_dagster_home(tmp_path / "a" / "b", postgres_url=url)
    assert (home / "dagster.yaml").read_bytes() == (ROOT / template).read_bytes()
    assert os.environ.get(POSTGRES_URL_VARIABLE) == (
        url and url.replace("postgresql:", "postgresql+psycopg2:")
    )
    assert "secret" not in (home / "dagster.yaml").read_text("utf-8")


def test_preparing_again_changes_nothing(tmp_path: Path) -> None:
    home = prepare_dagster_home(tmp_path)
    before = (home / "dagster.yaml").stat()
    assert prepare_dagster_home(tmp_path) == home
    assert (home / "dagster.yaml").stat() == before
    assert [path.name for path in home.iterdir()] == ["dagster.yaml"]


def test_another_storage_replaces_the_file(tmp_path: Path) -> None:
    prepare_dagster_home(tmp_path)
    prepare_dagster_home(tmp_path, postgres_url="postgresql://db/dagster")
    assert (tmp_path / "dagster.yaml").read_bytes() == instance_template(postgres=True).read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["dagster.yaml"]


@pytest.mark.parametrize(
    ("url", "normalised"),
    [
        ("postgresql://u:p@db:5432/d", "postgresql+psycopg2://u:p@db:5432/d"),
        ("postgres://u:p@db/d", "postgresql+psycopg2://u:p@db/d"),
        ("postgresql+psycopg://u:p@db/d", "postgresql+psycopg2://u:p@db/d"),
        ("postgresql+psycopg2://u:p@db/d?sslmode=require", "postgresql+psycopg2://u:p@db/d?sslmode=require"),
        ("postgresql://u:p%40ss%2F@db/d", "postgresql+psycopg2://u:p%40ss%2F@db/d"),
        ("postgresql:///d?host=run&user=u", "postgresql+psycopg2:///d?host=run&user=u"),
    ],
)
def test_url_names_psycopg2_and_keeps_the_rest(url: str, normalised: str) -> None:
    assert dagster_postgres_url(url) == normalised
    assert dagster_postgres_url(normalised) == normalised


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("secret", "DAGSTER_POSTGRES_URL is not a database URL; write postgresql://"),
        ("postgresql://u:secret@db:port/d", "DAGSTER_POSTGRES_URL is not a database URL"),
        ("mysql://u:secret@db/d", "DAGSTER_POSTGRES_URL names a 'mysql' database"),
    ],
)
def test_other_url_is_refused_without_showing_its_password(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        dagster_postgres_url(url)
    assert "secret" not in "".join(traceback.format_exception(caught.value))


def test_template_is_found_where_the_config_folder_stands_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "etc" / "config"
    config.mkdir(parents=True)
    (config / "base.yaml").touch()
    monkeypatch.setenv("GARCH_CONFIG", str(config))
    assert instance_template(postgres=False) == ROOT / "dagster.yaml"
    (tmp_path / "etc" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    assert instance_template(postgres=False) == tmp_path / "etc" / "dagster.yaml"


def test_home_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        StoreError, match=r"DAGSTER_HOME .*file.dagster cannot be written \(Not a directory\)"
    ):
        prepare_dagster_home(tmp_path / "file" / "dagster")
