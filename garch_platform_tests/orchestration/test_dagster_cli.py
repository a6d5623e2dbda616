"""The shell's ways to launch: Dagster's own commands and `garch materialize`, as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from garch_platform.orchestration.jobs import DAILY_JOB, RANKING_JOB
from garch_platform.orchestration.launch import Launcher
from garch_platform_tests.orchestration import small_market

pytestmark = pytest.mark.process

DAY = small_market.DAYS[-1]


def shell(opened: Launcher, *command: str) -> subprocess.CompletedProcess[str]:
    """Run ``python -m COMMAND`` on the workspace, as a shell with the two variables set would."""
    settings = opened.workspace.settings
    environment = os.environ | {
        "GARCH_WORKSPACE": str(settings.workspace),
        "DAGSTER_HOME": str(settings.dagster_home),
    }
    return subprocess.run(
        [sys.executable, "-m", *command],
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=Path(__file__).parents[2],
    )


def forget(opened: Launcher, symbols: list[str]) -> None:
    """Take the results of `DAY` away, so that only a run can bring them back."""
    for table, column in (("variance_stability_tracking", "test_date"), ("garch_models", "fit_date")):
        empty = opened.workspace.database.read_table(table).clear()
        opened.workspace.database.replace(table, empty, where={"symbol": symbols, column: [DAY]})


def test_dagster_job_execute_over_a_range_of_keys(market: Launcher) -> None:
    before = small_market.contents(market.workspace)
    forget(market, small_market.SYMBOLS)
    tags = market.planner.daily(DAY, DAY)[0].tags
    done = shell(
        market,
        *("dagster", "job", "execute", "-m", "garch_platform.definitions", "-j", DAILY_JOB),
        *("--tags", json.dumps(tags)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    small_market.assert_same(before, small_market.contents(market.workspace))


def test_dagster_asset_materialize_of_one_partition(market: Launcher) -> None:
    before = small_market.contents(market.workspace)
    forget(market, ["BBB"])
    done = shell(
        market,
        *("dagster", "asset", "materialize", "-m", "garch_platform.definitions"),
        *("--select", "stability,garch_models", "--partition", f"{DAY}|BBB"),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    small_market.assert_same(before, small_market.contents(market.workspace))


def test_garch_materialize_of_some_symbols(market: Launcher) -> None:
    before = small_market.contents(market.workspace)
    forget(market, ["AAA", "CCC"])
    done = shell(market, "garch_platform", "materialize", "--date", str(DAY), "--symbols", "AAA,CCC")
    assert done.returncode == 0, done.stderr[-2000:]
    small_market.assert_same(before, small_market.contents(market.workspace))
    jobs = {run.job_name for run in market.instance.get_runs(limit=2)}
    assert jobs == {DAILY_JOB, RANKING_JOB}


def test_an_unknown_partition_is_refused_by_dagster(market: Launcher) -> None:
    done = shell(
        market,
        *("dagster", "asset", "materialize", "-m", "garch_platform.definitions"),
        *("--select", "stability", "--partition", "2024-03-29|AAA"),
    )
    assert done.returncode != 0
    assert "2024-03-29|AAA" in done.stderr
