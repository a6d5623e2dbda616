"""Launching: one process at a time, failures that stay with their run, and PostgreSQL as Dagster's storage."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import dagster as dg
import polars as pl
import pytest
from sqlalchemy import create_engine, make_url, text

from garch_platform.errors import GarchPlatformError
from garch_platform.orchestration.instance import POSTGRES_URL_VARIABLE, dagster_postgres_url
from garch_platform.orchestration.jobs import DAILY_JOB, RANKING_JOB
from garch_platform.orchestration.launch import Launcher
from garch_platform.orchestration.refresh import failed_symbols, refresh_plan
from garch_platform_tests.orchestration import small_market
from garch_platform_tests.orchestration.small_market import DAYS, SYMBOLS

HOLDER = """
import sys
from filelock import FileLock
with FileLock(sys.argv[1]):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_second_launch_in_this_process_is_refused(forgetful: Launcher) -> None:
    planned = forgetful.planner.ranking(DAYS[0], DAYS[1])
    first = forgetful.run(planned)
    assert next(first).success
    other = small_market.memory_launcher(forgetful.workspace.settings.workspace)
    with pytest.raises(GarchPlatformError, match=r"another process is running jobs in .*market; wait for it"):
        next(other.run(planned))
    assert other.instance.get_runs_count() == 0
    assert [one.success for one in first] == [True]
    assert next(other.run(planned)).success


@pytest.mark.process
def test_launch_beside_another_process_is_refused_until_it_ends(forgetful: Launcher) -> None:
    lock = forgetful.workspace.settings.workspace / "launch.lock"
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(GarchPlatformError, match="another process is running jobs"):
            next(forgetful.run(forgetful.planner.ranking(DAYS[0], DAYS[0])))
        holder.communicate()
    (outcome,) = forgetful.run(forgetful.planner.ranking(DAYS[0], DAYS[0]))
    assert outcome.success


def test_failed_run_is_reported_and_the_others_go_on(market: Launcher) -> None:
    """One session's batch is at fault: its ranking is left out, the next session and its ranking are run."""
    workspace = market.workspace
    before = small_market.contents(workspace, versions=False)
    for symbol in SYMBOLS[:3]:
        small_market.revise(workspace.settings.workspace, symbol, DAYS[3], -1.0)
    planner = market.planner
    planned = [*planner.daily(DAYS[3], DAYS[4]), *planner.ranking(DAYS[3], DAYS[4])]
    outcomes = list(market.run(planned))
    assert [(one.planned.job, one.planned.day, one.success) for one in outcomes] == [
        (DAILY_JOB, DAYS[3], False),
        (DAILY_JOB, DAYS[4], True),
        (RANKING_JOB, DAYS[3], False),
        (RANKING_JOB, DAYS[4], True),
    ]
    failed, _, left_out, _ = outcomes
    assert "raw_bars: batch_quality: 3 of 6 rows were rejected (non_positive_price 3)" in failed.message
    assert "max_rejected_share" in failed.message
    assert (left_out.run_id, left_out.message) == (
        "",
        f"left out, because {DAILY_JOB} {DAYS[3]}, 6 keys failed",
    )
    run = market.instance.get_run_by_id(failed.run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.FAILURE
    after = small_market.contents(workspace, versions=False)
    after.pop("rejections")
    before.pop("rejections")
    small_market.assert_same(before, after)


def test_runs_are_kept_in_the_workspace_with_their_tags(market: Launcher) -> None:
    """What the UI shows is what was launched: jobs, tags, success."""
    (outcome,) = market.run(market.planner.ranking(DAYS[2], DAYS[2]))
    again = small_market.launcher(market.workspace.settings.workspace)
    run = again.instance.get_run_by_id(outcome.run_id)
    assert run is not None
    assert (run.job_name, run.status) == (RANKING_JOB, dg.DagsterRunStatus.SUCCESS)
    assert outcome.planned.tags.items() <= run.tags.items()
    keys = again.instance.get_materialized_partitions(dg.AssetKey("pair_rankings"))
    assert keys == {f"{day}|{sector}" for day in DAYS for sector in ("technology", "all")}
    again.instance.dispose()


def test_symbols_without_a_usable_fit_are_those_to_retry(forgetful: Launcher) -> None:
    assert failed_symbols(forgetful, DAYS[-1]) == []
    database = forgetful.workspace.database
    fits = database.read_table("garch_models", fit_date=DAYS[-1]).drop("id")
    failed = pl.when(pl.col("symbol") == "CCC").then(pl.lit("failed")).otherwise("status")
    kept = fits.with_columns(status=failed).filter(pl.col("symbol") != "EEE")
    database.replace("garch_models", kept, where={"fit_date": [DAYS[-1]]})
    assert failed_symbols(forgetful, DAYS[-1]) == ["CCC", "EEE"]
    assert failed_symbols(forgetful, DAYS[-2]) == []


@pytest.mark.postgres
@pytest.mark.slow
def test_daily_job_with_dagster_on_postgresql(
    market_template: Path, tmp_path: Path, postgres_empty: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Runs, events and keys are in PostgreSQL; the platform's rows are those of the SQLite instance."""
    url = make_url(postgres_empty).set(drivername="postgresql").render_as_string(hide_password=False)
    monkeypatch.setenv(POSTGRES_URL_VARIABLE, url)
    opened = small_market.launcher(small_market.copy_workspace(market_template, tmp_path / "market"))
    before = small_market.contents(opened.workspace, versions=False)
    assert opened.planner.symbol_keys() == SYMBOLS
    assert len(refresh_plan(opened).runs) == 1 + 5 + 5  # this instance has seen nothing yet
    planner = opened.planner
    small_market.run(opened, [*planner.daily(DAYS[-1], DAYS[-1]), *planner.ranking(DAYS[-1], DAYS[-1])])
    small_market.assert_same(before, small_market.contents(opened.workspace, versions=False))
    done = opened.instance.get_materialized_partitions(dg.AssetKey("garch_models"))
    assert done == {f"{DAYS[-1]}|{symbol}" for symbol in SYMBOLS}
    opened.instance.dispose()
    engine = create_engine(dagster_postgres_url(url))
    with engine.connect() as connection:
        statuses = connection.execute(text("SELECT status FROM runs")).scalars().all()
        checks = connection.execute(text("SELECT count(*) FROM asset_check_executions")).scalar_one()
    engine.dispose()
    assert statuses == ["SUCCESS", "SUCCESS"]
    assert checks >= 8
