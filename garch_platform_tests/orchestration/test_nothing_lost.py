"""Stored bars stay when a source fails, and what was computed without a bar is found."""

from __future__ import annotations

from datetime import date

import polars as pl
import pytest

from garch_platform.errors import ConfigurationError
from garch_platform.orchestration.launch import Launcher
from garch_platform.workspace.ingest import KEPT
from garch_platform.workspace.revisions import stale_results
from garch_platform_tests.orchestration import small_market

DAYS = small_market.DAYS
LAST = DAYS[-1]


def reopened(opened: Launcher, **overrides: object) -> Launcher:
    """A launcher of the same folder with other settings, not yet prepared."""
    return small_market.MemoryLauncher(
        small_market.Workspace(small_market.load_settings(opened.workspace.settings.workspace, **overrides)),
        now=small_market.NOW,
    )


def kept(opened: Launcher) -> list[tuple[str, str]]:
    """Symbol and detail of the rejections that say that stored bars stay."""
    rows = opened.workspace.database.read_table("rejections", reason=[KEPT])
    return rows.select("symbol", "detail").unique().rows()


def test_one_symbol_run_without_its_file_keeps_the_stored_bars(forgetful: Launcher) -> None:
    before = small_market.lake_rows(forgetful.workspace, "bars")
    (forgetful.workspace.settings.files_path / "AAA.parquet").unlink()
    runs = [*forgetful.planner.history(["AAA"]), *forgetful.planner.daily(LAST, LAST, ["AAA"])]
    outcomes = small_market.run(forgetful, runs)
    assert small_market.lake_rows(forgetful.workspace, "bars").equals(before)
    ((symbol, detail),) = kept(forgetful)
    assert symbol == "AAA"
    assert "the source does not hold AAA any more; the stored bars stay" in detail
    assert all("AAA: the source does not hold AAA" in one.message for one in outcomes)


def test_symbol_of_which_every_row_is_faulty_keeps_the_stored_bars(forgetful: Launcher) -> None:
    before = small_market.lake_rows(forgetful.workspace, "bars")
    small_market.revise(forgetful.workspace.settings.workspace, "BBB", LAST, -1.0)
    small_market.run(forgetful, forgetful.planner.daily(LAST, LAST))
    assert small_market.lake_rows(forgetful.workspace, "bars").equals(before)
    assert [symbol for symbol, _ in kept(forgetful)] == ["BBB"]


def test_same_bars_in_a_second_file_are_no_fault_of_the_batch(forgetful: Launcher) -> None:
    folder = forgetful.workspace.settings.files_path
    three = pl.concat([small_market.read_inbox(folder.parent, name) for name in ("AAA", "BBB", "CCC")])
    three.filter(pl.col("date") == LAST).write_parquet(folder / "again.parquet")
    before = small_market.lake_rows(forgetful.workspace, "bars")
    small_market.run(forgetful, forgetful.planner.daily(LAST, LAST))
    assert small_market.lake_rows(forgetful.workspace, "bars").equals(before)
    reasons = forgetful.workspace.database.read_table("rejections")["reason"].to_list()
    assert reasons == ["duplicate"] * 3


def test_session_whose_features_come_late_leaves_right_rows_and_names_what_lacked_it(
    market_template: object, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = small_market.create(tmp_path_factory.mktemp("late") / "market", small_market.daily_bars())
    opened = small_market.memory_launcher(folder)
    small_market.run(opened, opened.planner.history())
    job = opened.location.definitions.resolve_job_def("daily_pair_identification_job")
    late, *others = DAYS[:3]
    bars_alone = job.execute_in_process(
        instance=opened.instance,
        tags=opened.planner.daily(late, late)[0].tags,
        asset_selection=[small_market.dg.AssetKey("raw_bars")],
    )
    assert bars_alone.success
    for day in [*others, late]:
        small_market.run(opened, opened.planner.daily(day, day))
    found = stale_results(opened.workspace).filter(pl.col("asset") == "stability")
    assert set(found["date"]) == set(others)
    small_market.run(opened, opened.stale_plan())
    assert stale_results(opened.workspace).is_empty()
    filled = small_market.memory_launcher(
        small_market.copy_workspace(market_template, folder.parent / "filled")  # type: ignore[arg-type]
    )
    until = pl.col("session_date") <= DAYS[2]
    right = small_market.lake_rows(filled.workspace, "features").filter(until)
    assert small_market.lake_rows(opened.workspace, "features").equals(right)


def test_every_turn_of_a_bar_that_goes_to_and_fro_is_recorded(forgetful: Launcher) -> None:
    folder = forgetful.workspace.settings.workspace
    for factor in (2.0, 0.5, 2.0):
        small_market.revise(folder, "CCC", LAST, factor)
        small_market.run(forgetful, forgetful.planner.daily(LAST, LAST, ["CCC"]))
    rows = forgetful.workspace.database.read_table("revisions").sort("id")
    assert rows["occurrence"].to_list() == [0, 0, 1]
    assert rows["old_hash"][0] == rows["new_hash"][1] == rows["old_hash"][2]


def test_start_that_was_moved_past_loaded_bars_is_refused_until_it_is_advanced(forgetful: Launcher) -> None:
    later = DAYS[3]
    moved = reopened(forgetful, trading_days={"start": later})
    with pytest.raises(ConfigurationError, match="run `garch advance-start`"):
        moved.prepare()
    before = small_market.lake_rows(forgetful.workspace, "bars")
    assert moved.workspace.advance_start() == small_market.SYMBOLS
    moved.prepare()
    small_market.run(moved, moved.planner.history())
    assert set(moved.workspace.symbols()["history_end"]) == {later}
    assert small_market.lake_rows(moved.workspace, "bars").equals(before)


def test_symbols_without_bars_follow_the_start(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = small_market.create(tmp_path_factory.mktemp("start") / "market", small_market.daily_bars())
    opened = small_market.memory_launcher(folder)
    moved = reopened(opened, trading_days={"start": DAYS[1]})
    moved.prepare()
    assert set(moved.workspace.symbols()["history_end"]) == {DAYS[1]}


def test_retired_symbol_has_no_run_from_its_day_on(forgetful: Launcher) -> None:
    forgetful.workspace.registry.retire("DDD", DAYS[2])
    forgetful.prepare()
    names: dict[date | None, set[str]] = {}
    for run in forgetful.planner.daily(DAYS[0], LAST):
        names.setdefault(run.day, set()).update(run.names)
    assert [day for day in DAYS if "DDD" in names[day]] == DAYS[:2]
    assert all({"CCC", "EEE"} <= chosen for chosen in names.values())
