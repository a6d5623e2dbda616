"""History, daily and ranking jobs over a small market: rows, metadata, checks, and doing it all again."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import polars as pl
import pytest

from garch_platform.orchestration.jobs import DAILY_JOB, HISTORY_JOB, RANKING_JOB
from garch_platform.orchestration.launch import Launcher
from garch_platform.orchestration.refresh import refresh_plan
from garch_platform_tests.orchestration import small_market as market_of
from garch_platform_tests.orchestration.small_market import DAYS, SESSIONS, SYMBOLS

PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def one_day(market_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """A filled workspace whose third day has run once more on its own. Only read it."""
    folder = tmp_path_factory.mktemp("day") / "market"
    opened = market_of.launcher(market_of.copy_workspace(market_template, folder))
    planner = opened.planner
    market_of.run(opened, planner.daily(DAYS[2], DAYS[2]) + planner.ranking(DAYS[2], DAYS[2]))
    yield opened
    opened.instance.dispose()
    opened.workspace.database.dispose()


def materialization(launcher: Launcher, asset: str, key: str) -> dg.AssetMaterialization:
    """The latest materialisation of one partition key."""
    wanted = dg.AssetRecordsFilter(asset_key=dg.AssetKey(asset), asset_partitions=[key])
    (record,) = launcher.instance.fetch_materializations(wanted, limit=1).records
    assert record.asset_materialization is not None
    return record.asset_materialization


def test_refresh_fills_every_store(market: Launcher) -> None:
    workspace = market.workspace
    bars, features = (market_of.lake_rows(workspace, table) for table in ("bars", "features"))
    assert len(bars) == len(features) == len(SYMBOLS) * len(SESSIONS)
    assert bars.select("symbol", "timestamp").equals(features.select("symbol", "timestamp"))
    assert set(bars["session_date"]) == set(SESSIONS)
    assert set(bars["data_source"]) == {"file"}
    keys = {
        "variance_stability_tracking": ("test_date", 6 * 5),
        "garch_models": ("fit_date", 6 * 5 * 2),
        "pair_rankings": ("ranking_date", (6 + 15) * 5),
        "scan_ledger": ("ranking_date", 2 * 2 * 5),
    }
    for table, (column, count) in keys.items():
        rows = workspace.database.read_table(table)
        assert len(rows) == count
        assert sorted(set(rows[column])) == DAYS
    assert workspace.database.read_table("rejections").is_empty()
    assert workspace.database.read_table("revisions").is_empty()
    fits = workspace.database.read_table("garch_models")
    assert set(fits["status"]) == {"weak"}  # 300 returns are fewer than weak_observations
    assert (fits.group_by("symbol", "fit_date").agg(pl.col("is_selected").sum())["is_selected"] == 1).all()


def test_the_planted_pair_is_ranked_first(market: Launcher) -> None:
    rankings = market.workspace.database.read_table("pair_rankings", sector="all", ranking_date=DAYS[-1])
    best = rankings.sort("coint_pvalue").row(0, named=True)
    assert (best["symbol_1"], best["symbol_2"]) == ("AAA", "BBB")
    assert best["coint_pvalue"] < 1e-3 < rankings["coint_pvalue"].sort()[1]
    assert rankings["honest_rank"].count() == 1
    assert (best["confirmation_end"], best["out_of_sample_start"]) == tuple(SESSIONS[-51:-49])
    formed = SESSIONS.index(best["formation_end"]) - SESSIONS.index(best["formation_start"]) + 1
    assert formed == round(0.7 * 360)
    assert SESSIONS.index(best["confirmation_start"]) == SESSIONS.index(best["formation_end"]) + 1
    assert best["honest_rank"] == best["rank"] == 1
    assert best["confirmation_qvalue"] < 0.05


@pytest.mark.parametrize(
    ("asset", "key", "shown"),
    [
        ("bar_history", "AAA", {"dagster/row_count": 6 * 415, "rejected": 0, "revised": 0}),
        ("raw_bars", f"{DAYS[2]}|AAA", {"dagster/row_count": 6, "candidates": 6, "rejected": 0}),
        ("features", f"{DAYS[2]}|FFF", {"dagster/row_count": 6, "rebuilt_from_bars": "none"}),
        ("stability", f"{DAYS[2]}|FFF", {"dagster/row_count": 6}),
        ("garch_models", f"{DAYS[2]}|FFF", {"dagster/row_count": 12, "failed": 0}),
        ("pair_rankings", f"{DAYS[2]}|all", {"dagster/row_count": 21}),
        ("scan_ledger", f"{DAYS[2]}|all", {"dagster/row_count": 4}),
    ],
)
def test_event_says_how_many_rows(
    one_day: Launcher, asset: str, key: str, shown: dict[str, int | str]
) -> None:
    metadata = materialization(one_day, asset, key).metadata
    assert {name: metadata[name].value for name in shown} == shown


@pytest.mark.parametrize(
    ("asset", "name", "chart"),
    [
        ("feature_history", None, "rolling_volatility"),
        ("features", "CCC", "rolling_volatility"),
        ("stability", "CCC", "verdicts"),
        ("garch_models", "CCC", "persistence"),
        ("pair_rankings", "technology", "best_spread"),
    ],
)
def test_event_shows_a_plot_and_the_lake_version_read(
    one_day: Launcher, asset: str, name: str | None, chart: str
) -> None:
    metadata = materialization(one_day, asset, "CCC" if name is None else f"{DAYS[2]}|{name}").metadata
    text = str(metadata[chart].value)
    picture = base64.b64decode(text.partition("base64,")[2].rstrip(")"))
    assert picture.startswith(PNG)
    assert 1_000 < len(picture) < 100_000
    stored = one_day.workspace.lake.version(
        "bars" if asset in ("features", "feature_history") else "features"
    )
    assert metadata["lake_version_read"].value == (1 if asset == "feature_history" else stored)


def test_history_event_names_the_lake_version_written(one_day: Launcher) -> None:
    written = materialization(one_day, "raw_bars", f"{DAYS[2]}|AAA").metadata["lake_version_written"].value
    assert written == one_day.workspace.lake.version("bars")


def test_estimates_name_the_lake_version_and_the_window(market: Launcher) -> None:
    last = market.workspace.lake.version("features")
    fits = market.workspace.database.read_table("garch_models", fit_date=DAYS[-1])
    assert set(fits["lake_version"]) == {last}
    assert set(fits["window_start"]) == {SESSIONS[-300]}
    assert fits["input_hash"].n_unique() == len(SYMBOLS)
    earlier = market.workspace.lake.scan("features", version=last - 1).collect()  # type: ignore[operator]
    assert max(earlier["session_date"]) < DAYS[0]


def test_every_check_of_the_day_was_evaluated_and_passed(market: Launcher) -> None:
    keys = market.location.definitions.resolve_asset_graph().asset_check_keys
    records = market.instance.event_log_storage.get_latest_asset_check_execution_by_key(list(keys))
    states = {key.to_user_string(): str(record.status.value) for key, record in records.items()}
    assert states == {key.to_user_string(): "SUCCEEDED" for key in keys}
    assert len(states) >= 9


def test_second_refresh_has_nothing_to_do(market: Launcher) -> None:
    plan = refresh_plan(market)
    assert (plan.runs, plan.present) == ([], 1 + 5 + 5)


@pytest.mark.slow
def test_doing_it_all_again_leaves_the_same_rows_and_lake_versions(forgetful: Launcher) -> None:
    """History after daily, then daily after history: each owns its side of `history_end`.

    The template's days came from one run over their range, these come from one run a day.
    """
    workspace = forgetful.workspace
    before, versions = market_of.contents(workspace, versions=False), _versions(forgetful)
    plan = refresh_plan(forgetful, DAYS[-2], DAYS[-1], again=True)
    assert [run.job for run in plan.runs] == [HISTORY_JOB, *[DAILY_JOB] * 2, *[RANKING_JOB] * 2]
    for step in plan.runs:
        market_of.run(forgetful, [step])
        market_of.assert_same(before, market_of.contents(workspace, versions=False))
    assert _versions(forgetful) == versions
    assert workspace.database.read_table("revisions").is_empty()


def _versions(launcher: Launcher) -> tuple[int | None, ...]:
    return tuple(launcher.workspace.lake.version(table) for table in ("bars", "features"))


def test_a_symbol_added_later_is_one_history_run_and_its_own_days(market: Launcher) -> None:
    workspace = market.workspace
    bars = market_of.daily_bars(symbols=["GGG", "HHH"], seed=99).filter(pl.col("symbol") == "GGG")
    market_of.write_inbox(workspace.settings.workspace, bars)
    workspace.registry.add("GGG", sector="healthcare")
    assert market.prepare() == (["GGG"], [])
    before = market_of.contents(workspace, versions=False)

    plan = refresh_plan(market)
    assert [(run.job, run.names) for run in plan.runs if run.job != RANKING_JOB] == [
        (HISTORY_JOB, ("GGG",)),
        *[(DAILY_JOB, ("GGG",))] * 5,
    ]
    assert [run.day for run in plan.runs if run.job == RANKING_JOB] == DAYS
    market_of.refresh(market, start=DAYS[-1])

    after = market_of.contents(workspace, versions=False)
    for table, column in (("bars", "session_date"), ("garch_models", "fit_date")):
        added = after[table].join(before[table], on=before[table].columns, how="anti", nulls_equal=True)
        assert set(added["symbol"]) == {"GGG"}
        assert max(added[column]) == DAYS[-1]
        assert len(after[table]) == len(before[table]) + len(added)
    history = after["bars"].filter(pl.col("symbol") == "GGG", pl.col("session_date") < DAYS[0])
    assert len(history) == len(SESSIONS) - 5
    ranked = after["pair_rankings"].filter(pl.col("ranking_date") == DAYS[-1], pl.col("sector") == "all")
    assert len(ranked) == 7 * 6 / 2
    assert [run.day for run in refresh_plan(market).runs if run.job == DAILY_JOB] == DAYS[:-1]


def test_a_retired_symbol_keeps_its_rows_and_past_rankings(market: Launcher) -> None:
    workspace = market.workspace
    before = market_of.contents(workspace, versions=False)
    workspace.registry.remove("DDD")
    assert market.prepare() == ([], ["DDD"])
    assert market.planner.symbol_keys() == ["AAA", "BBB", "CCC", "EEE", "FFF"]
    market_of.assert_same(before, market_of.contents(workspace, versions=False))
    row = workspace.database.read_table("symbols", symbol="DDD").row(0, named=True)
    assert (row["is_active"], row["retired_at"]) == (False, market_of.NOW)

    market_of.run(
        market, market.planner.daily(DAYS[-1], DAYS[-1]) + market.planner.ranking(DAYS[-1], DAYS[-1])
    )
    market_of.assert_same(before, market_of.contents(workspace, versions=False))
    assert refresh_plan(market).runs == []


def test_a_symbol_retired_on_a_day_is_ranked_until_then(forgetful: Launcher) -> None:
    forgetful.workspace.registry.retire("DDD", DAYS[-1])
    forgetful.prepare()
    for day, pairs in ((DAYS[-2], 6 + 15), (DAYS[-1], 3 + 10)):
        market_of.run(forgetful, forgetful.planner.ranking(day, day))
        assert len(forgetful.workspace.database.read_table("pair_rankings", ranking_date=day)) == pairs


def test_a_sector_without_symbols_is_an_empty_ranking(forgetful: Launcher) -> None:
    for symbol in ("AAA", "BBB", "CCC", "DDD"):
        forgetful.workspace.registry.retire(symbol, DAYS[0])
    forgetful.prepare()
    market_of.run(forgetful, forgetful.planner.ranking(DAYS[-1], DAYS[-1], ["technology"]))
    rows = forgetful.workspace.database.read_table("pair_rankings", ranking_date=DAYS[-1])
    assert dict(rows.group_by("sector").len().iter_rows()) == {"all": 15}


@pytest.mark.postgres
@pytest.mark.slow
def test_postgresql_holds_the_same_rows_as_sqlite(
    forgetful: Launcher, postgres_empty: str, tmp_path: Path
) -> None:
    """The same two sessions from the same lake: the tables are equal to the bit."""
    wanted = market_of.contents(forgetful.workspace, versions=False)
    folder = forgetful.workspace.settings.workspace
    served = market_of.memory_launcher(folder, storage={"database_url": postgres_empty})
    market_of.run(
        served, served.planner.daily(DAYS[-2], DAYS[-1]) + served.planner.ranking(DAYS[-2], DAYS[-1])
    )
    found = market_of.contents(served.workspace, versions=False)
    served.workspace.database.dispose()
    columns = {
        "variance_stability_tracking": "test_date",
        "garch_models": "fit_date",
        "pair_rankings": "ranking_date",
    }
    for table, column in columns.items():
        expected = wanted[table].filter(pl.col(column) >= DAYS[-2])
        market_of.assert_same({table: expected}, {table: found[table]})
    market_of.assert_same({"bars": wanted["bars"]}, {"bars": found["bars"]})
