"""Nothing stamped a session uses a later bar: with the future scrambled, every earlier result keeps its bits."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from garch_platform.orchestration.jobs import DAILY_JOB, RANKING_JOB
from garch_platform.orchestration.launch import Launcher
from garch_platform_tests.orchestration import small_market

SEEN = small_market.DAYS[2]
FUTURE = small_market.DAYS[3:]


@pytest.fixture(scope="module")
def honest_and_scrambled(
    market_template: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Launcher, Launcher]:
    """The same market twice; in the second, every bar after `SEEN` has other prices.

    The first ran all sessions in one run, future bars at hand; the second ran a session at a time up to
    `SEEN`, before any later bar was stored.
    """
    bars = small_market.daily_bars()
    later = pl.col("date") > SEEN
    rng = np.random.default_rng(1)
    factors = pl.Series(np.exp(rng.normal(0.0, 0.05, len(bars))))
    prices = ["open", "high", "low", "close"]
    scrambled = bars.with_columns(pl.when(later).then(pl.col(prices) * factors).otherwise(pl.col(prices)))
    folder = tmp_path_factory.mktemp("look")
    honest = small_market.memory_launcher(small_market.copy_workspace(market_template, folder / "honest"))
    other = small_market.memory_launcher(small_market.create(folder / "scrambled", scrambled))
    planner, sectors = other.planner, other.workspace.settings.universe.sectors.active
    seen = (small_market.DAYS[0], SEEN)
    with small_market.blank_pictures():
        small_market.run(other, [*planner.history(), *planner.daily(*seen), *planner.ranking(*seen)])
        assert small_market.lake_rows(other.workspace, "bars")["session_date"].max() == SEEN
        names = [(DAILY_JOB, planner.symbol_keys()), (RANKING_JOB, sectors)]
        small_market.run(other, [small_market.range_run(job, keys, FUTURE) for job, keys in names])
    return honest, other


@pytest.mark.parametrize("table", ["bars", "features"])
def test_rows_of_the_lake(table: str, honest_and_scrambled: tuple[Launcher, Launcher]) -> None:
    past, future = _sides(
        [small_market.lake_rows(one.workspace, table) for one in honest_and_scrambled], "session_date"
    )
    assert past[0].equals(past[1])
    assert not future[0].equals(future[1])


@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("variance_stability_tracking", "test_date"),
        ("garch_models", "fit_date"),
        ("pair_rankings", "ranking_date"),
    ],
)
def test_results(table: str, column: str, honest_and_scrambled: tuple[Launcher, Launcher]) -> None:
    past, future = _sides(
        [one.workspace.database.content(table).drop("lake_version") for one in honest_and_scrambled], column
    )
    assert set(past[0][column]) == set(small_market.DAYS[:3])
    assert past[0].equals(past[1])
    assert set(future[0][column]) == set(FUTURE)
    assert not future[0].equals(future[1])


@pytest.mark.parametrize("day", small_market.DAYS[:2])
def test_a_session_run_late_gives_what_it_gave_in_time(
    day: date, honest_and_scrambled: tuple[Launcher, Launcher], tmp_path: Path
) -> None:
    _, in_time = honest_and_scrambled
    before = small_market.contents(in_time.workspace)
    small_market.run(in_time, [*in_time.planner.daily(day, day), *in_time.planner.ranking(day, day)])
    small_market.assert_same(
        {name: rows.drop("lake_version", strict=False) for name, rows in before.items()},
        small_market.contents(in_time.workspace, versions=False),
    )


def _sides(frames: list[pl.DataFrame], column: str) -> tuple[list[pl.DataFrame], list[pl.DataFrame]]:
    seen = pl.col(column) <= SEEN
    return [frame.filter(seen) for frame in frames], [frame.filter(~seen) for frame in frames]
