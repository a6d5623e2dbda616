"""Revised, late and removed bars: what is recorded, what is stale, and that running it leaves nothing stale."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from garch_platform.orchestration.jobs import DAILY_JOB, HISTORY_JOB, RANKING_JOB
from garch_platform.orchestration.launch import Launcher
from garch_platform.workspace.revisions import ABSENT, stale_results
from garch_platform_tests.orchestration import small_market as market_of
from garch_platform_tests.orchestration.small_market import DAYS, SECTORS, SESSIONS

MONTH_OLD = date(2024, 2, 23)
BEFORE_EVERY_WINDOW = SESSIONS[3]  # only the expanding state remembers it

Change = Callable[[Path], object]


def folder_of(launcher: Launcher) -> Path:
    return launcher.workspace.settings.workspace


def revisions(launcher: Launcher) -> list[tuple[str, date, str]]:
    rows = launcher.workspace.database.read_table("revisions").sort("id")
    return list(rows.select("symbol", "session_date", "asset").iter_rows())


def stale(launcher: Launcher) -> set[tuple[str, str, date]]:
    return set(stale_results(launcher.workspace).select("asset", "name", "date").iter_rows())


def per_day(assets: list[str], name: str, days: list[date]) -> set[tuple[str, str, date]]:
    return {(asset, name, day) for asset in assets for day in days}


def ranked(symbol: str, days: list[date]) -> set[tuple[str, str, date]]:
    sectors = {"all", SECTORS[symbol]} & {"all", "technology"}
    return {("pair_rankings", sector, day) for sector in sectors for day in days}


ESTIMATES = ["features", "stability", "garch_models"]


def revise_yesterday(folder: Path) -> None:
    market_of.revise(folder, "BBB", DAYS[-1], 1.01)


def revise_second_day(folder: Path) -> None:
    market_of.revise(folder, "EEE", DAYS[1], 0.98)


def revise_month_old(folder: Path) -> None:
    market_of.revise(folder, "CCC", MONTH_OLD, 1.02)


def revise_before_every_window(folder: Path) -> None:
    market_of.revise(folder, "AAA", BEFORE_EVERY_WINDOW, 0.99)


def remove_third_day(folder: Path) -> None:
    market_of.drop_bar(folder, "DDD", DAYS[2])


def test_nothing_is_stale_without_a_revision(forgetful: Launcher) -> None:
    assert stale(forgetful) == set()
    assert stale_results(forgetful.workspace, list(SECTORS)).is_empty()
    assert forgetful.stale_plan() == []


def test_running_a_session_again_without_a_change_records_nothing(forgetful: Launcher) -> None:
    market_of.run(forgetful, forgetful.planner.daily(DAYS[-1], DAYS[-1]))
    assert revisions(forgetful) == []


def test_revised_bar_of_yesterday_makes_its_ranking_stale(forgetful: Launcher) -> None:
    """The day's run brings features, verdict and fit with it; the ranking is another job's."""
    revise_yesterday(folder_of(forgetful))
    market_of.run(forgetful, forgetful.planner.daily(DAYS[-1], DAYS[-1], ["BBB"]))
    assert revisions(forgetful) == [("BBB", DAYS[-1], "raw_bars")]
    assert stale(forgetful) == ranked("BBB", [DAYS[-1]])
    assert {run.job for run in forgetful.stale_plan()} == {RANKING_JOB}


@pytest.mark.parametrize(
    ("change", "symbol", "day"),
    [(revise_yesterday, "BBB", DAYS[-1]), (revise_second_day, "EEE", DAYS[1])],
)
def test_bars_ingested_alone_make_every_later_result_of_the_symbol_stale(
    forgetful: Launcher, change: Change, symbol: str, day: date
) -> None:
    change(folder_of(forgetful))
    job = forgetful.location.definitions.resolve_job_def(DAILY_JOB)
    (planned,) = forgetful.planner.daily(day, day, [symbol])
    done = job.execute_in_process(
        instance=forgetful.instance, tags=planned.tags, asset_selection=[dg.AssetKey("raw_bars")]
    )
    assert done.success
    later = [one for one in DAYS if one >= day]
    assert stale(forgetful) == per_day(ESTIMATES, symbol, later) | ranked(symbol, later)


def test_revised_day_inside_the_window(forgetful: Launcher) -> None:
    revise_second_day(folder_of(forgetful))
    market_of.run(forgetful, forgetful.planner.daily(DAYS[1], DAYS[1], ["EEE"]))
    assert revisions(forgetful) == [("EEE", DAYS[1], "raw_bars")]
    assert stale(forgetful) == per_day(ESTIMATES, "EEE", DAYS[2:]) | ranked("EEE", DAYS[1:])
    plan = forgetful.stale_plan()
    assert [(run.day, run.names) for run in plan if run.job == DAILY_JOB] == [
        (day, ("EEE",)) for day in DAYS[2:]
    ]


def test_month_old_bar_of_the_bulk_past(forgetful: Launcher) -> None:
    revise_month_old(folder_of(forgetful))
    market_of.run(forgetful, forgetful.planner.history(["CCC"]))
    assert revisions(forgetful) == [("CCC", MONTH_OLD, "bar_history")]
    assert stale(forgetful) == per_day(ESTIMATES, "CCC", DAYS) | ranked("CCC", DAYS)


def test_bulk_past_ingested_without_its_features(forgetful: Launcher) -> None:
    """A run that was killed after the bars: the plan begins with the history job of the symbol."""
    revise_month_old(folder_of(forgetful))
    (planned,) = forgetful.planner.history(["CCC"])
    job = forgetful.location.definitions.resolve_job_def(HISTORY_JOB)
    assert job.execute_in_process(
        instance=forgetful.instance, tags=planned.tags, asset_selection=[dg.AssetKey("bar_history")]
    ).success
    assert stale(forgetful) == (
        {("feature_history", "CCC", MONTH_OLD)} | per_day(ESTIMATES, "CCC", DAYS) | ranked("CCC", DAYS)
    )
    plan = forgetful.stale_plan()
    assert [(run.job, run.names) for run in plan[:2]] == [(HISTORY_JOB, ("CCC",)), (DAILY_JOB, ("CCC",))]
    assert [run.day for run in plan if run.job == RANKING_JOB] == DAYS
    market_of.run(forgetful, plan[:1])
    assert stale(forgetful) == per_day(ESTIMATES, "CCC", DAYS) | ranked("CCC", DAYS)


def test_bar_before_every_window_touches_features_alone(forgetful: Launcher) -> None:
    """The z-score's expanding state remembers it; no formation window holds it."""
    revise_before_every_window(folder_of(forgetful))
    market_of.run(forgetful, forgetful.planner.history(["AAA"]))
    assert revisions(forgetful) == [("AAA", BEFORE_EVERY_WINDOW, "bar_history")]
    assert stale(forgetful) == per_day(["features"], "AAA", DAYS)
    assert {run.job for run in forgetful.stale_plan()} >= {DAILY_JOB}


def test_removed_bar(forgetful: Launcher) -> None:
    remove_third_day(folder_of(forgetful))
    market_of.run(forgetful, forgetful.planner.daily(DAYS[2], DAYS[2], ["DDD"]))
    (row,) = forgetful.workspace.database.read_table("revisions").iter_rows(named=True)
    assert (row["symbol"], row["session_date"], row["new_hash"]) == ("DDD", DAYS[2], ABSENT)
    assert stale(forgetful) == per_day(ESTIMATES, "DDD", DAYS[3:]) | ranked("DDD", DAYS[2:])


@pytest.mark.parametrize("day", [DAYS[-2], DAYS[-1]], ids=["earlier session", "last session"])
def test_bar_that_arrives_late(forgetful: Launcher, day: date) -> None:
    """It was missing when the session ran; afterwards the rows are those of a market that never lacked it."""
    complete = market_of.contents(forgetful.workspace, versions=False)
    bar = market_of.drop_bar(folder_of(forgetful), "FFF", day)
    market_of.run(
        forgetful, forgetful.planner.daily(day, DAYS[-1], ["FFF"]) + forgetful.planner.ranking(day, DAYS[-1])
    )
    before = len(revisions(forgetful))
    assert ("FFF", day) not in set(
        market_of.lake_rows(forgetful.workspace, "bars").select("symbol", "session_date").iter_rows()
    )

    market_of.write_inbox(
        folder_of(forgetful), pl.concat([market_of.read_inbox(folder_of(forgetful), "FFF"), bar])
    )
    market_of.run(forgetful, forgetful.planner.daily(day, day, ["FFF"]))
    later = [one for one in DAYS if one > day]
    noticed = ["raw_bars", "features"] if later else ["raw_bars"]
    assert revisions(forgetful)[before:] == [("FFF", day, asset) for asset in noticed]
    assert stale(forgetful) == per_day(ESTIMATES, "FFF", later) | ranked("FFF", [day, *later])
    market_of.run(forgetful, forgetful.stale_plan())
    assert stale(forgetful) == set()
    market_of.assert_same(complete, market_of.contents(forgetful.workspace, versions=False))


@pytest.mark.slow
def test_running_what_is_stale_gives_the_rows_of_a_workspace_built_from_scratch(
    forgetful: Launcher, tmp_path: Path
) -> None:
    """Revisions of the bulk past and of the window, ingested out of order."""
    changes = [revise_second_day, revise_month_old, remove_third_day]
    scratch = market_of.create(tmp_path / "scratch", market_of.daily_bars())
    for change in changes:
        change(folder_of(forgetful))
        change(scratch)
    planner = forgetful.planner
    ingested = [
        *planner.daily(DAYS[2], DAYS[2], ["DDD"]),
        *planner.history(["CCC"]),
        *planner.daily(DAYS[1], DAYS[1], ["EEE"]),
    ]
    market_of.run(forgetful, ingested)
    market_of.run(forgetful, forgetful.stale_plan())
    assert stale(forgetful) == set()
    assert forgetful.stale_plan() == []
    anew = market_of.memory_launcher(scratch)
    market_of.fill(anew)
    market_of.assert_same(
        market_of.contents(forgetful.workspace, versions=False),
        market_of.contents(anew.workspace, versions=False),
    )
