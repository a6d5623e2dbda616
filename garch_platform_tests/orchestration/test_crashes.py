"""A run that is killed, a store that is full or locked: the old rows stay, and the next run completes the rest."""

from __future__ import annotations

import errno
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from filelock import FileLock

from garch_platform.errors import GarchPlatformError, StoreBusy, StoreFull
from garch_platform.orchestration.doctor import diagnose
from garch_platform.orchestration.launch import Launcher
from garch_platform.store import lake as lake_module
from garch_platform.store.database import Database
from garch_platform_tests.orchestration import last_session
from garch_platform_tests.orchestration.killed import PLACES
from garch_platform_tests.orchestration.last_session import (
    LAST,
    NOW,
    SYMBOLS,
    Garch,
    Rows,
    folder_of,
    run_day,
)
from garch_platform_tests.orchestration.small_market import assert_same

ROOT = Path(__file__).resolve().parents[2]
STEPS = ["bars", "features", "variance_stability_tracking", "garch_models", "pair_rankings"]
DATES = dict(
    zip(STEPS, ["session_date", "feature_date", "test_date", "fit_date", "ranking_date"], strict=True)
)

STORED = {
    "after the bars": 1,
    "inside the verdicts": 2,
    "inside the rankings": 4,
}
"""How many of the `STEPS` have stored their rows when the process dies there."""


def rows_of_the_day(rows: Rows) -> dict[str, int]:
    return {table: len(rows[table].filter(pl.col(DATES[table]) == LAST)) for table in STEPS}


def killed(opened: Launcher, place: str) -> None:
    """`garch materialize` of the last session in a process that dies at ``place``."""
    command = [sys.executable, "-m", "garch_platform_tests.orchestration.killed", place]
    arguments = ["--workspace", str(folder_of(opened)), "materialize", "--date", str(LAST)]
    done = subprocess.run([*command, *arguments], cwd=ROOT, capture_output=True, check=False, timeout=240)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()


@pytest.mark.process
def test_killed_runs_lose_and_double_nothing(eve: Launcher, undisturbed: Rows, garch: Garch) -> None:
    """Three times in a row, each time somewhere else; a process that is started again takes up the work."""
    eve_rows, complete = rows_of_the_day(last_session.contents(eve)), rows_of_the_day(undisturbed)
    assert list(STORED) == list(PLACES)
    assert set(eve_rows.values()) == {0}
    reached = 0
    for place, stored in STORED.items():
        killed(eve, place)
        reached = max(reached, stored)
        expected = {table: complete[table] if step < reached else 0 for step, table in enumerate(STEPS)}
        assert rows_of_the_day(last_session.contents(eve)) == expected, place

    (unfinished,) = eve.interrupted()
    assert (unfinished.job_name, unfinished.status) == ("ranking_job", dg.DagsterRunStatus.STARTED)
    finding = next(one for one in diagnose(eve.workspace, now=NOW) if one.check == "runs")
    assert finding.level == "warning"
    assert finding.state.startswith("1 still marked as started, though their process was killed: ranking_job")
    assert "run `garch refresh`" in finding.remedy

    assert garch(eve, "refresh").startswith("1 runs to do, 4 are there already")
    assert_same(last_session.contents(eve), undisturbed)
    last_session.assert_nothing_doubled(undisturbed)
    failed = eve.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    assert len(failed) == len(STORED)
    assert eve.interrupted() == []
    finding = next(one for one in diagnose(eve.workspace, now=NOW) if one.check == "runs")
    assert finding.level == "ok"


def test_run_of_a_living_process_is_not_called_interrupted(eve: Launcher) -> None:
    looks: list[int] = []

    def write(*arguments: Any, **options: Any) -> Any:
        watcher = Launcher(eve.workspace, now=NOW)
        looks.append(len(watcher.interrupted()))
        watcher.instance.dispose()
        return replace(*arguments, **options)

    replace = eve.workspace.lake.replace
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(eve.workspace.lake, "replace", write)
        assert [one.success for one in eve.run(eve.planner.history(["AAA"]))] == [True]
    assert looks == [0, 0]


def test_launch_lock_is_free_when_the_runs_are_over(quick_eve: Launcher) -> None:
    """Also while the generator of outcomes is still held by somebody."""
    runs = quick_eve.run([])
    assert list(runs) == []
    with FileLock(folder_of(quick_eve) / "launch.lock", timeout=0) as lock:
        assert lock.is_locked
        with pytest.raises(GarchPlatformError, match="another process is running jobs in"):
            list(quick_eve.run([]))


def test_full_disk_under_the_lake(
    quick_eve: Launcher, undisturbed: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = last_session.contents(quick_eve)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(lake_module, "write_deltalake", full)
        daily, ranking = run_day(quick_eve)
    assert daily.message == (
        f"StoreFull: writing bars in {folder_of(quick_eve)}/lake: no space is left; "
        "the rows are as before, free some and run again"
    )
    assert (daily.success, ranking.run_id) == (False, "")
    assert quick_eve.instance.get_runs()[0].status is dg.DagsterRunStatus.FAILURE
    assert_same(last_session.contents(quick_eve), before)
    assert all(one.success for one in run_day(quick_eve))
    assert_same(last_session.contents(quick_eve), undisturbed)


def test_full_disk_under_the_database(quick_eve: Launcher, undisturbed: Rows) -> None:
    """SQLite itself refuses: its file may not grow any more."""
    before = last_session.contents(quick_eve)
    database = quick_eve.workspace.database
    database.dispose()
    limited = Database(database.url)
    with limited.engine.connect() as connection:
        driver: Any = connection.connection.driver_connection
        pages = driver.execute("PRAGMA page_count").fetchone()[0]
    last_session.limit_pages(limited, pages)
    quick_eve.workspace.__dict__["database"] = limited
    daily, _ = run_day(quick_eve)
    assert daily.message.startswith("StoreFull: replacing rows of ")
    assert "database or disk is full" in daily.message
    assert "nothing was written, free some" in daily.message
    limited.dispose()

    quick_eve.workspace.__dict__["database"] = database
    after = last_session.contents(quick_eve)
    for table in ("variance_stability_tracking", "garch_models", "pair_rankings"):
        assert after[table].filter(pl.col(DATES[table]) < LAST).equals(before[table])
    assert all(one.success for one in run_day(quick_eve))
    assert_same(last_session.contents(quick_eve), undisturbed)


def test_locked_database(quick_eve: Launcher, undisturbed: Rows) -> None:
    before = last_session.contents(quick_eve)
    database = quick_eve.workspace.database
    hasty = Database(database.url, busy_timeout=0.1)
    quick_eve.workspace.__dict__["database"] = hasty
    holder = sqlite3.connect(folder_of(quick_eve) / "garch.db", isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    with pytest.raises(StoreBusy, match=r"stayed locked .*another run is writing, try again when it ends"):
        quick_eve.prepare()
    daily, ranking = run_day(quick_eve)
    assert daily.message.startswith("StoreBusy: replacing rows of rejections: sqlite:///")
    assert daily.message.endswith("another run is writing, try again when it ends")
    assert ranking.run_id == ""
    holder.execute("ROLLBACK")
    holder.close()
    assert_same(last_session.contents(quick_eve), before)
    assert all(one.success for one in run_day(quick_eve))
    assert_same(last_session.contents(quick_eve), undisturbed)
    hasty.dispose()


def test_history_that_could_not_be_written_holds_its_sessions_back(
    quick_eve: Launcher, undisturbed: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the past, features of a session would begin anew; the other symbols' sessions go on."""

    def full(*_: Any, **__: Any) -> None:
        raise StoreFull("no space is left")

    planner = quick_eve.planner
    with monkeypatch.context() as patch:
        runs = quick_eve.run([*planner.history(["AAA"]), *planner.daily(LAST, LAST, ["AAA"])])
        patch.setattr(quick_eve.workspace.lake, "replace", full)
        history, session = runs
    assert history.message == "StoreFull: no space is left"
    assert session.message == "left out, because history_job AAA failed"
    others = [symbol for symbol in SYMBOLS if symbol != "AAA"]
    again = [
        *planner.daily(LAST, LAST, others),
        *planner.history(["AAA"]),
        *planner.daily(LAST, LAST, ["AAA"]),
    ]
    assert [one.message for one in quick_eve.run(again)] == ["", "", ""]
    rows = last_session.contents(quick_eve)
    assert_same(last_session.of_daily_job(rows), last_session.of_daily_job(undisturbed))
