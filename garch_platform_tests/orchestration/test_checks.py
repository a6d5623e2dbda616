"""Asset checks: each passes on good rows, and on planted faults fails and shows exactly the rows at fault.

A check runs alone, on what is stored, as the UI's "execute checks" does.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import polars as pl
import pytest
from deltalake import write_deltalake
from polars.testing import assert_frame_equal

from garch_platform.orchestration.assets import build_assets
from garch_platform.orchestration.checks import build_checks
from garch_platform.orchestration.io_managers import DatabaseIOManager, LakeIOManager
from garch_platform.orchestration.jobs import DAILY_JOB
from garch_platform.orchestration.launch import QUIET, Launcher
from garch_platform.orchestration.planner import RANGE_END, RANGE_START
from garch_platform.store.lake_partitions import with_period
from garch_platform.workspace.revisions import stale_results
from garch_platform_tests.orchestration import small_market as market_of
from garch_platform_tests.orchestration.small_market import CALENDAR, DAYS, SESSIONS, SYMBOLS

DAY = DAYS[-1]
CHECKS = [
    ("bar_history", "history_quality"),
    ("raw_bars", "batch_quality"),
    ("raw_bars", "bar_contract"),
    ("raw_bars", "duplicates"),
    ("raw_bars", "gaps"),
    ("raw_bars", "outliers"),
    ("features", "feature_keys"),
    ("features", "no_look_ahead"),
    ("garch_models", "fit_health"),
    ("pair_rankings", "no_self_pairs"),
    ("pair_rankings", "inputs_current"),
]


def check_run(
    launcher: Launcher, asset: str, check: str, first: str | None = None, last: str | None = None
) -> dg.ExecuteInProcessResult:
    """Execute one check over a range of keys, by default all of the last day."""
    names = {"pair_rankings": ("technology", "all")}.get(asset, (SYMBOLS[0], SYMBOLS[-1]))
    prefix = "" if asset == "bar_history" else f"{DAY}|"
    tags = {RANGE_START: first or f"{prefix}{names[0]}", RANGE_END: last or f"{prefix}{names[1]}"}
    workspace, partitions = launcher.workspace, launcher.location.partitions
    return dg.materialize(
        [*build_assets(partitions), *build_checks(partitions)],
        selection=dg.AssetSelection.checks(dg.AssetCheckKey(dg.AssetKey(asset), check)),
        instance=launcher.instance,
        resources={
            "workspace": workspace,
            "lake_io": LakeIOManager(workspace),
            "database_io": DatabaseIOManager(workspace),
        },
        tags=tags if check != "inputs_current" else {},
        run_config=QUIET,
        raise_on_error=False,
    )


def verdict(launcher: Launcher, asset: str, check: str, *keys: str) -> dg.AssetCheckEvaluation:
    """The check's evaluation of the whole run (those of single keys come before it)."""
    return check_run(launcher, asset, check, *keys).get_asset_check_evaluations()[-1]


def key_verdicts(done: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """Failed evaluations of single keys: partition to detail."""
    return {
        str(one.partition): one.metadata["detail"].value
        for one in done.get_asset_check_evaluations()
        if "detail" in one.metadata and not one.passed
    }


def bad_rows(evaluation: dg.AssetCheckEvaluation) -> list[dict[str, Any]]:
    table = evaluation.metadata["bad_rows"]
    assert isinstance(table, dg.TableMetadataValue)
    return [dict(record.data) for record in table.records]


def append(launcher: Launcher, table: str, rows: pl.DataFrame) -> None:
    """Put rows into the lake behind its back: its own writer refuses such faults."""
    url = f"{launcher.workspace.lake.url}/{table}"
    write_deltalake(url, with_period(rows, "1Day"), mode="append")


def rows_of(launcher: Launcher, table: str, symbol: str, day: date) -> pl.DataFrame:
    rows = market_of.lake_rows(launcher.workspace, table)
    return rows.filter(pl.col("symbol") == symbol, pl.col("session_date") == day)


def put(launcher: Launcher, table: str, rows: pl.DataFrame) -> None:
    """Replace the stored rows of these symbols and sessions."""
    launcher.workspace.lake.replace(
        table,
        rows,
        timeframe="1Day",
        symbols=rows["symbol"].unique().to_list(),
        start=rows["session_date"].min(),  # type: ignore[arg-type]
        end=rows["session_date"].max(),  # type: ignore[arg-type]
    )


@pytest.fixture(scope="module")
def good(market_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """A filled workspace without faults. Only read it."""
    folder = tmp_path_factory.mktemp("good") / "market"
    opened = market_of.memory_launcher(market_of.copy_workspace(market_template, folder))
    yield opened
    opened.instance.dispose()
    opened.workspace.database.dispose()


def test_the_list_of_checks_is_complete(good: Launcher) -> None:
    keys = good.location.definitions.resolve_asset_graph().asset_check_keys
    assert {(key.asset_key.to_user_string(), key.name) for key in keys} == set(CHECKS)


@pytest.mark.parametrize(("asset", "check"), CHECKS)
def test_good_rows_pass(good: Launcher, asset: str, check: str) -> None:
    done = check_run(good, asset, check)
    (evaluation,) = done.get_asset_check_evaluations()
    assert evaluation.passed
    assert evaluation.metadata["bad_row_count"].value == 0
    assert "bad_rows" not in evaluation.metadata


def test_stored_duplicates_are_shown(forgetful: Launcher) -> None:
    append(forgetful, "bars", rows_of(forgetful, "bars", "CCC", DAY))
    evaluation = verdict(forgetful, "raw_bars", "duplicates")
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    rows = bad_rows(evaluation)
    assert [row["symbol"] for row in rows] == ["CCC", "CCC"]
    assert verdict(forgetful, "raw_bars", "duplicates", f"{DAY}|AAA", f"{DAY}|BBB").passed


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"high": 1.0}, "ohlc_order"),
        ({"close": -3.0}, "non_positive_price"),
    ],
)
def test_stored_bar_that_breaks_the_contract_is_shown(
    forgetful: Launcher, change: dict[str, float], reason: str
) -> None:
    row = rows_of(forgetful, "bars", "BBB", DAY)
    put(forgetful, "bars", row.with_columns(pl.lit(value).alias(name) for name, value in change.items()))
    evaluation = verdict(forgetful, "raw_bars", "bar_contract")
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.ERROR)
    (shown,) = bad_rows(evaluation)
    assert (shown["symbol"], shown["reason"]) == ("BBB", reason)
    assert verdict(forgetful, "raw_bars", "bar_contract", f"{DAY}|CCC", f"{DAY}|FFF").passed


def test_symbol_without_a_bar_is_named_and_its_key_warned(forgetful: Launcher) -> None:
    market_of.drop_bar(forgetful.workspace.settings.workspace, "BBB", DAY)
    market_of.run(forgetful, forgetful.planner.daily(DAY, DAY))
    done = check_run(forgetful, "raw_bars", "gaps")
    evaluation = done.get_asset_check_evaluations()[-1]
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert evaluation.metadata["symbols_without_bars"].value == "BBB"
    assert key_verdicts(done) == {f"{DAY}|BBB": "no bar in this session"}


def test_missing_bars_inside_a_session_are_counted(tmp_path: Path) -> None:
    """26 bars of 15 minutes a session; three of AAA and the first of BBB are taken out."""
    days = CALENDAR.sessions(date(2024, 3, 25), DAY)
    bars = market_of.intraday_bars(days, ["AAA", "BBB"])
    opening = CALENDAR.bounds(DAY)[0]
    of_day = bars.filter(pl.col("timestamp") >= opening)["timestamp"].unique().sort()
    gone = {"AAA": of_day[5:8].to_list(), "BBB": [of_day[0]]}
    kept = [
        bars.filter(pl.col("symbol") == name, ~pl.col("timestamp").is_in(stamps))
        for name, stamps in gone.items()
    ]
    folder = market_of.create(
        tmp_path / "minutes",
        pl.concat(kept),
        settings=market_of.settings_with(
            universe={"timeframe": "15Min"}, trading_days={"start": DAYS[2], "end": DAY}
        ),
        symbols={"AAA": "technology", "BBB": "technology"},
    )
    opened = market_of.memory_launcher(folder)
    market_of.run(opened, [*opened.planner.history(), *opened.planner.daily(DAY, DAY)])
    evaluation = verdict(opened, "raw_bars", "gaps", f"{DAY}|AAA", f"{DAY}|BBB")
    assert not evaluation.passed
    assert evaluation.metadata["missing_bars"].value == 4
    assert evaluation.metadata["symbols_without_bars"].value == "none"
    assert [(row["symbol"], row["missing"]) for row in bad_rows(evaluation)] == [("AAA", 3), ("BBB", 1)]


@pytest.mark.parametrize(
    ("factor", "kind", "suggested"), [(0.5, "large_move", None), (1.6, "large_move", None)]
)
def test_move_since_the_session_before_is_shown(
    forgetful: Launcher, factor: float, kind: str, suggested: float | None
) -> None:
    folder = forgetful.workspace.settings.workspace
    market_of.revise(folder, "DDD", DAY, factor)
    market_of.run(forgetful, forgetful.planner.daily(DAY, DAY, ["DDD"]))
    evaluation = verdict(forgetful, "raw_bars", "outliers")
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    (row,) = bad_rows(evaluation)
    assert (row["symbol"], row["kind"], row["suggested_factor"]) == ("DDD", kind, suggested)


def test_unadjusted_split_inside_a_range_is_told_with_its_factor(forgetful: Launcher) -> None:
    """From the third day on, prices are a seventh of what they were."""
    folder = forgetful.workspace.settings.workspace
    for day in DAYS[2:]:
        market_of.revise(folder, "EEE", day, 1 / 7)
    market_of.run(forgetful, forgetful.planner.daily(DAYS[2], DAY, ["EEE"]))
    evaluation = verdict(forgetful, "raw_bars", "outliers", f"{DAYS[0]}|AAA", f"{DAY}|FFF")
    (row,) = bad_rows(evaluation)
    assert (row["symbol"], row["kind"], row["suggested_factor"]) == ("EEE", "unadjusted_split", 7.0)
    assert row["timestamp"].startswith(str(DAYS[2]))


def test_declared_split_of_raw_prices_changes_no_feature(forgetful: Launcher) -> None:
    """From the last day on, prices are a seventh of what they were, and a split of 7 for 1 says so."""
    folder = forgetful.workspace.settings.workspace
    columns = ["log_close", "log_return", "z_score", "rolling_std", "ma_short", "rsi", "return_sum"]
    before = rows_of(forgetful, "features", "EEE", DAY).select(columns)
    for name in SYMBOLS:
        of_name = (pl.col("date") == DAY) & (name == "EEE")
        rows = market_of.read_inbox(folder, name).with_columns(split=pl.when(of_name).then(7.0))
        market_of.write_inbox(folder, rows)
    market_of.revise(folder, "EEE", DAY, 1 / 7)
    (outcome,) = market_of.run(forgetful, forgetful.planner.daily(DAY, DAY, ["EEE"]))
    assert outcome.message == ""
    after = rows_of(forgetful, "features", "EEE", DAY)
    assert after["split_adjustment"].to_list() == [7.0]
    assert_frame_equal(after.select(columns), before, rel_tol=1e-12)
    stale = stale_results(forgetful.workspace, ["EEE"])
    assert stale.filter(pl.col("asset") == "features").is_empty()


def test_stored_feature_that_the_bars_do_not_give_is_shown(forgetful: Launcher) -> None:
    """One unit in the last place of one z-score."""
    row = rows_of(forgetful, "features", "BBB", DAYS[2])
    above = row["z_score"][0] * (1 + 2**-52)
    put(forgetful, "features", row.with_columns(z_score=pl.lit(above)))
    evaluation = verdict(forgetful, "features", "no_look_ahead", f"{DAYS[2]}|AAA", f"{DAYS[2]}|FFF")
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    (shown,) = bad_rows(evaluation)
    assert (shown["symbol"], shown["session_date"], shown["z_score"]) == ("BBB", str(DAYS[2]), above)
    assert verdict(forgetful, "features", "no_look_ahead").passed


def test_feature_computed_with_the_next_bar_is_shown(forgetful: Launcher) -> None:
    """The classic leak: a rolling mean that is one bar ahead."""
    here, ahead = (rows_of(forgetful, "features", "AAA", day) for day in DAYS[2:4])
    put(forgetful, "features", here.with_columns(rolling_mean=pl.lit(ahead["rolling_mean"][0])))
    evaluation = verdict(forgetful, "features", "no_look_ahead", f"{DAYS[2]}|AAA", f"{DAYS[2]}|FFF")
    assert [row["symbol"] for row in bad_rows(evaluation)] == ["AAA"]


def test_missing_feature_row_fails_the_look_ahead_check(forgetful: Launcher) -> None:
    gone = rows_of(forgetful, "features", "AAA", DAY)
    forgetful.workspace.lake.replace(
        "features", gone.clear(), timeframe="1Day", symbols=["AAA"], start=DAY, end=DAY
    )
    assert not verdict(forgetful, "features", "no_look_ahead").passed


def test_doubled_and_unknown_feature_keys_are_shown(forgetful: Launcher) -> None:
    row = rows_of(forgetful, "features", "FFF", DAY)
    append(forgetful, "features", row)
    doubled = verdict(forgetful, "features", "feature_keys")
    assert (doubled.passed, doubled.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert [one["symbol"] for one in bad_rows(doubled)] == ["FFF", "FFF"]

    append(forgetful, "features", row.with_columns(symbol=pl.lit("GHOST")))
    forgetful.instance.add_dynamic_partitions("symbols", ["GHOST"])
    unknown = verdict(forgetful, "features", "feature_keys", f"{DAY}|GHOST", f"{DAY}|GHOST")
    assert not unknown.passed
    assert unknown.metadata["unknown_symbols"].value == "GHOST"


def test_fits_with_problems_are_shared_and_keys_without_a_usable_one_named(forgetful: Launcher) -> None:
    database = forgetful.workspace.database
    fits = database.read_table("garch_models", fit_date=DAY).drop("id")
    failed = pl.col("symbol") == "CCC"
    spoiled = fits.with_columns(
        status=pl.when(failed).then(pl.lit("failed")).otherwise("status"),
        reason=pl.when(failed).then(pl.lit("no maximum was found")).otherwise("reason"),
        is_selected=pl.when(failed).then(False).otherwise("is_selected"),
        at_boundary=pl.when(pl.col("symbol") == "DDD").then(True).otherwise("at_boundary"),
    )
    database.replace("garch_models", spoiled, where={"fit_date": [DAY]})
    done = check_run(forgetful, "garch_models", "fit_health")
    evaluation = done.get_asset_check_evaluations()[-1]
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert evaluation.metadata["problem_share"].value == pytest.approx(3 / 12)
    assert sorted(row["symbol"] for row in bad_rows(evaluation)) == ["CCC", "CCC", "DDD"]
    assert key_verdicts(done) == {f"{DAY}|CCC": "failed: no maximum was found"}


@pytest.mark.parametrize(
    ("fault", "fails"),
    [
        ({"return_correlation": 0.999999}, True),
        ({"coint_pvalue": 0.0}, True),
        ({"return_correlation": -0.999995}, True),
        ({"return_correlation": 0.9999}, False),
    ],
    ids=["proxy", "p-value zero", "inverse proxy", "close but two series"],
)
def test_pair_of_one_series_under_two_names_is_shown_if_it_passed(
    forgetful: Launcher, fault: dict[str, float], fails: bool
) -> None:
    database = forgetful.workspace.database
    ranked = database.read_table("pair_rankings", ranking_date=DAY).drop("id")
    pair = (pl.col("symbol_1") == "CCC") & (pl.col("symbol_2") == "DDD")
    for passed in (False, True):
        changes = {"passed": passed, **fault}
        changed = [pl.when(pair).then(value).otherwise(name).alias(name) for name, value in changes.items()]
        database.replace("pair_rankings", ranked.with_columns(changed), where={"ranking_date": [DAY]})
        evaluation = verdict(forgetful, "pair_rankings", "no_self_pairs")
        assert evaluation.passed is not (passed and fails)
    if fails:
        assert evaluation.severity is dg.AssetCheckSeverity.ERROR
        assert {(row["symbol_1"], row["symbol_2"], row["sector"]) for row in bad_rows(evaluation)} == {
            ("CCC", "DDD", "technology"),
            ("CCC", "DDD", "all"),
        }


def test_proxy_in_the_source_is_rejected_by_the_ranking_itself(tmp_path: Path) -> None:
    """CCC is AAA times ten: the pair must not pass, so the check has nothing to show."""
    bars = market_of.daily_bars(symbols=["AAA", "BBB"])
    prices = ["open", "high", "low", "close"]
    twin = bars.filter(pl.col("symbol") == "AAA").with_columns(
        pl.lit("CCC").alias("symbol"), pl.col(prices) * 10
    )
    symbols = dict.fromkeys(["AAA", "BBB", "CCC"], "technology")
    folder = market_of.create(tmp_path / "twins", pl.concat([bars, twin]), symbols=symbols)
    opened = market_of.memory_launcher(folder)
    planner = opened.planner
    market_of.run(
        opened, [*planner.history(), *planner.daily(DAYS[0], DAYS[0]), *planner.ranking(DAYS[0], DAYS[0])]
    )
    rows = opened.workspace.database.read_table("pair_rankings", sector="all")
    by_pair = {(row["symbol_1"], row["symbol_2"]): row for row in rows.iter_rows(named=True)}
    assert by_pair["AAA", "CCC"]["return_correlation"] > 0.99999
    assert not by_pair["AAA", "CCC"]["passed"]
    day = DAYS[0]
    assert verdict(opened, "pair_rankings", "no_self_pairs", f"{day}|technology", f"{day}|all").passed


def test_result_on_revised_bars_is_shown(forgetful: Launcher) -> None:
    market_of.revise(forgetful.workspace.settings.workspace, "BBB", DAY, 1.01)
    market_of.run(forgetful, forgetful.planner.daily(DAY, DAY, ["BBB"]))
    evaluation = verdict(forgetful, "pair_rankings", "inputs_current")
    assert (evaluation.passed, evaluation.severity) == (False, dg.AssetCheckSeverity.WARN)
    assert {(row["asset"], row["name"], row["date"]) for row in bad_rows(evaluation)} == {
        ("pair_rankings", sector, str(DAY)) for sector in ("all", "technology")
    }


def test_fault_of_the_batch_blocks_all_that_follows(forgetful: Launcher) -> None:
    """Half of the symbols come with negative prices: nothing downstream runs, and the rows are shown."""
    workspace = forgetful.workspace
    before = market_of.contents(workspace)
    for symbol in SYMBOLS[:3]:
        market_of.revise(workspace.settings.workspace, symbol, DAY, -1.0)
    (planned,) = forgetful.planner.daily(DAY, DAY)
    done = forgetful.location.definitions.resolve_job_def(DAILY_JOB).execute_in_process(
        instance=forgetful.instance, tags=planned.tags, run_config=QUIET, raise_on_error=False
    )
    assert not done.success
    assert done.asset_materializations_for_node("features") == []
    assert not any(event.step_key == "garch_models" for event in done.get_step_success_events())
    (quality,) = [one for one in done.get_asset_check_evaluations() if one.check_name == "batch_quality"]
    assert (quality.passed, quality.severity) == (False, dg.AssetCheckSeverity.ERROR)
    assert sorted(row["symbol"] for row in bad_rows(quality)) == SYMBOLS[:3]
    after = market_of.contents(workspace)
    rejected = after.pop("rejections")
    before.pop("rejections")
    market_of.assert_same(before, after)
    assert set(rejected.filter(pl.col("reason") == "non_positive_price")["symbol"]) == set(SYMBOLS[:3])


def test_fault_of_a_whole_past_blocks_its_features(forgetful: Launcher) -> None:
    folder = forgetful.workspace.settings.workspace
    rows = market_of.read_inbox(folder, "AAA")
    spoiled = pl.when(pl.col("date") < SESSIONS[200]).then(-pl.col("close")).otherwise(pl.col("close"))
    market_of.write_inbox(folder, rows.with_columns(close=spoiled))
    (outcome,) = forgetful.run(forgetful.planner.history(["AAA"]))
    assert not outcome.success
    evaluation = verdict(forgetful, "bar_history", "history_quality", "AAA", "AAA")
    assert not evaluation.passed
    assert evaluation.metadata["bad_row_count"].value == 200
    assert len(bad_rows(evaluation)) == 20
    assert verdict(forgetful, "bar_history", "history_quality", "BBB", "FFF").passed
