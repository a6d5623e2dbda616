"""A simulated market through the real jobs: the planted pairs stand out from all the others."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import polars as pl
import pytest
import yaml

from garch_platform.errors import ConfigurationError
from garch_platform.orchestration.launch import Launcher
from garch_platform.settings import load_settings
from garch_platform.sources import SimulatedSource
from garch_platform.workspace import Workspace
from garch_platform.workspace.demo import found_against_planted
from garch_platform_tests.orchestration import small_market
from garch_platform_tests.orchestration.small_market import CALENDAR

LAST = date(2024, 3, 28)
SETTINGS = {
    "demo": True,
    "universe": {
        "source": "simulated",
        "timeframe": "1Min",
        "sectors": {"active": ["all"], "available": ["technology", "healthcare", "financial"]},
    },
    "trading_days": {"start": LAST, "end": LAST},
    "formation": {"timeframe": "5Min", "sessions": 14, "out_of_sample_sessions": 6},
    "garch": {"sessions": 20, "distributions": ["normal"]},
    "simulated": {"symbols": 10, "sessions": 20, "last_session": LAST, "pairs": 3, "seed": 6},
}
"""Three pairs of half-lives 20, 30 and 45 minutes among ten symbols; the last breaks after session 14."""


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """The simulated market, taken to the ranking of its last session."""
    folder = tmp_path_factory.mktemp("simulated")
    (folder / "settings.yaml").write_text(yaml.safe_dump(SETTINGS), "utf-8")
    workspace = Workspace(load_settings(folder))
    workspace.registry.write_new(workspace.source.symbols().select("symbol", "name", "sector", "asset_class"))
    opened = small_market.memory_launcher(folder)
    small_market.fill_day(opened, LAST)
    yield opened
    opened.workspace.database.dispose()


@pytest.fixture
def rankings(ranked: Launcher) -> pl.DataFrame:
    return ranked.workspace.database.read_table("pair_rankings")


@pytest.fixture
def planted(ranked: Launcher, rankings: pl.DataFrame) -> pl.Series:
    """Which rows of the rankings are planted pairs."""
    source = ranked.workspace.source
    assert isinstance(source, SimulatedSource)
    pairs = set(source.truth().select("symbol_1", "symbol_2").iter_rows())
    return pl.Series([pair in pairs for pair in rankings.select("symbol_1", "symbol_2").iter_rows()])


def test_all_pairs_were_tested_on_simulated_rows(ranked: Launcher, rankings: pl.DataFrame) -> None:
    assert len(rankings) == 45
    bars = small_market.lake_rows(ranked.workspace, "bars")
    assert set(bars["data_source"]) == {"simulated"}
    assert 0.99 < len(bars) / (10 * 20 * 390) < 1.0  # some bars are missing, by design
    assert set(rankings["confirmation_end"]) == {CALENDAR.window_start(LAST, 7)}


def test_planted_pairs_have_far_smaller_p_values_than_all_others(
    rankings: pl.DataFrame, planted: pl.Series
) -> None:
    inside, outside = rankings.filter(planted), rankings.filter(~planted)
    assert len(inside) == 3
    assert max(inside["coint_pvalue"]) < 1e-5
    assert min(outside["coint_pvalue"]) > 0.05
    assert min(inside["price_correlation"]) > 0.9


def test_hedge_ratios_and_half_lives_are_those_that_were_planted(ranked: Launcher) -> None:
    found = found_against_planted(ranked.workspace)
    assert found["half_life_bars"].to_list() == [20.0, 30.0, 45.0]
    assert found["half_life_found"].to_list() == pytest.approx([20.0, 30.0, 45.0], rel=0.35)
    rows = ranked.workspace.database.read_table("pair_rankings")
    ratios = found.join(rows, on=["symbol_1", "symbol_2"], suffix="_found").select(
        "hedge_ratio",
        found=pl.when(pl.col("symbol_y") == pl.col("symbol_1"))
        .then("hedge_ratio_found")
        .otherwise(1 / pl.col("hedge_ratio_found")),
    )
    assert ratios["found"].to_list() == pytest.approx(ratios["hedge_ratio"].to_list(), rel=0.05)


def test_found_against_planted_shows_the_pair_that_broke(ranked: Launcher) -> None:
    """It is cointegrated on the bars of both stages and breaks at the start of the third window."""
    found = found_against_planted(ranked.workspace)
    holding, broken = found.filter(pl.col("breaks_at").is_null()), found.drop_nulls("breaks_at")
    assert (len(holding), len(broken)) == (2, 1)
    assert broken["half_life_bars"].to_list() == [45.0]
    first_unseen, _ = CALENDAR.bounds(CALENDAR.window_start(LAST, 6))
    assert abs((broken["breaks_at"][0] - first_unseen).total_seconds()) < 3600
    assert holding["honest_rank"].null_count() == 0
    assert set(holding["honest_reason"]) == {None}


def test_the_honest_profile_selects_planted_pairs_alone(rankings: pl.DataFrame, planted: pl.Series) -> None:
    assert rankings.filter(planted)["honest_rank"].null_count() <= 1
    assert rankings.filter(~planted)["honest_rank"].null_count() == 42


def test_only_a_simulated_market_has_a_known_truth(forgetful: Launcher) -> None:
    with pytest.raises(ConfigurationError, match=r"only a simulated market has a known truth; .*'file'"):
        found_against_planted(forgetful.workspace)
