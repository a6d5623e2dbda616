"""The doctor names each problem of a machine or workspace with its remedy, and creates nothing itself."""

from __future__ import annotations

import shutil
import socket
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest
import yaml

from garch_platform.orchestration import doctor
from garch_platform.orchestration.doctor import Finding, diagnose
from garch_platform.orchestration.launch import LAUNCHED_IN, Launcher
from garch_platform.orchestration.tables import findings_table
from garch_platform.settings import load_settings
from garch_platform.workspace import Workspace
from garch_platform_tests.conftest import free_port
from garch_platform_tests.orchestration.small_market import NOW


@pytest.fixture(autouse=True)
def free_ui_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever else this machine serves, the doctor's port is free."""
    monkeypatch.setattr(doctor, "UI_PORT", free_port())


def found(workspace: Workspace, *, now: datetime = NOW) -> dict[str, Finding]:
    return {finding.check: finding for finding in diagnose(workspace, now=now)}


def changed(market: Launcher, **sections: object) -> Workspace:
    """The market's workspace with other settings."""
    folder = market.workspace.settings.workspace
    settings = yaml.safe_load((folder / "settings.yaml").read_text("utf-8"))
    (folder / "settings.yaml").write_text(yaml.safe_dump(settings | sections), "utf-8")
    return Workspace(load_settings(folder))


def test_filled_workspace_is_healthy(market: Launcher) -> None:
    findings = diagnose(market.workspace, now=NOW)
    assert {finding.level for finding in findings} == {"ok"}, findings
    assert [finding.check for finding in findings] == [
        "python",
        "workspace",
        "database",
        "lake bars",
        "lake features",
        "source",
        "secrets",
        "stream client",
        "symbols",
        "calendar",
        "partition keys",
        "freshness",
        "dagster storage",
        "runs",
        "port",
    ]
    assert found(market.workspace)["partition keys"].state.startswith("30 symbol x session keys")


def test_absent_workspace_has_a_remedy_for_each_problem_and_stays_absent(tmp_path: Path) -> None:
    findings = found(Workspace(load_settings(tmp_path / "absent")))
    problems = {name: finding for name, finding in findings.items() if finding.level != "ok"}
    assert set(problems) == {
        "workspace",
        "database",
        "lake bars",
        "lake features",
        "source",
        "symbols",
        "dagster storage",
    }
    assert all(finding.remedy for finding in problems.values())
    assert problems["workspace"].remedy == "run `garch init`"
    assert not (tmp_path / "absent").exists()


def test_database_without_tables_is_to_be_migrated(market: Launcher) -> None:
    market.workspace.database.dispose()
    folder = market.workspace.settings.workspace
    for path in folder.glob("garch.db*"):
        path.unlink()
    (folder / "garch.db").touch()
    finding = found(Workspace(load_settings(folder)))["database"]
    assert (finding.level, finding.state) == ("error", "sqlite, revision None")
    assert "garch init" in finding.remedy


def test_empty_inbox_is_noticed(market: Launcher, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    finding = found(changed(market, files={"path": str(tmp_path / "empty")}))["source"]
    assert (finding.level, finding.state) == ("warning", f"no files in {tmp_path / 'empty'}")


def test_more_keys_than_advised_is_noticed(market: Launcher) -> None:
    window = {"start": "2024-03-22", "end": "2024-03-28", "max_keys": 29}
    finding = found(changed(market, trading_days=window))["partition keys"]
    assert (finding.level, finding.state) == ("warning", "30 symbol x session keys (advised limit 29)")
    assert "trading_days.start" in finding.remedy


def test_bars_that_lag_behind_are_noticed(market: Launcher) -> None:
    late = changed(market, trading_days={"start": "2024-03-22", "end": None})
    assert found(late)["freshness"].level == "ok"
    finding = found(late, now=datetime(2024, 4, 3, 22, tzinfo=UTC))["freshness"]
    assert finding.state == "newest bars 2024-03-28, 3 sessions behind 2024-04-03"
    assert (finding.level, finding.remedy) == ("warning", "run `garch refresh`")


def test_killed_run_is_named_with_the_command_that_ends_it(market: Launcher) -> None:
    run = market.instance.create_run_for_job(
        market.location.definitions.resolve_job_def("history_job"),
        status=dg.DagsterRunStatus.STARTED,
        tags={LAUNCHED_IN: str(market.workspace.settings.workspace)},
    )
    finding = found(market.workspace)["runs"]
    assert finding.level == "warning"
    assert finding.state.endswith(f"their process was killed: history_job ({run.run_id[:8]})")
    assert "garch refresh" in finding.remedy
    market.prepare()
    assert found(market.workspace)["runs"].level == "ok"
    ended = market.instance.get_run_by_id(run.run_id)
    assert ended is not None
    assert ended.status is dg.DagsterRunStatus.FAILURE


def test_silent_postgresql_of_dagster_is_named_without_its_password(
    market: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = free_port()
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", f"postgresql://garch:secret@127.0.0.1:{port}/dagster")
    finding = found(market.workspace)["dagster storage"]
    assert (finding.level, finding.state) == (
        "error",
        f"postgresql+psycopg2://garch:***@127.0.0.1:{port}/dagster does not answer",
    )
    assert "DAGSTER_POSTGRES_URL" in finding.remedy


def test_url_of_another_database_is_refused(market: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", "mysql://garch@127.0.0.1/dagster")
    finding = found(market.workspace)["ConfigurationError"]
    assert finding.level == "error"
    assert finding.state.startswith("DAGSTER_POSTGRES_URL names a 'mysql' database; Dagster's storage takes")


@pytest.mark.postgres
def test_answering_postgresql_is_fine(
    market: Launcher, postgres_empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    market.instance.dispose()
    monkeypatch.setenv("DAGSTER_POSTGRES_URL", postgres_empty)
    finding = found(market.workspace)["dagster storage"]
    assert (finding.level, finding.state) == ("ok", "PostgreSQL")


def test_full_disk_is_noticed(market: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _folder: SimpleNamespace(free=20_000_000))
    finding = found(market.workspace)["workspace"]
    assert finding.level == "warning"
    assert finding.state.endswith("0.0 GB free")
    assert "free some space" in finding.remedy


def test_taken_port_is_noticed(market: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        monkeypatch.setattr(doctor, "UI_PORT", port)
        finding = found(market.workspace)["port"]
    assert (finding.level, finding.state) == ("warning", f"{port} is taken")
    assert "garch ui --port" in finding.remedy


def test_table_shows_the_remedy_below_the_problem() -> None:
    table = findings_table(
        [Finding("port", "warning", "3000 is [taken]", "use another"), Finding("a", "ok", "b")]
    )
    assert list(table.columns[2].cells) == ["3000 is \\[taken]\n[bold]→[/] use another", "b"]
    assert list(table.columns[1].cells) == ["[yellow]warning[/]", "[green]ok[/]"]
