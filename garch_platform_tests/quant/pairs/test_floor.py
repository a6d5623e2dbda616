"""The floor: what the wild bootstrap keeps and kills, and that it measures the false passes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from garch_platform.quant.pairs.confirmation import BOOTSTRAP_DRAWS, bootstrap_draws, strictest_threshold
from garch_platform.quant.pairs.floor import FLOOR_SCHEMA, selection_floor, wild_market
from garch_platform.quant.pairs.panel import PairPanel
from garch_platform.quant.pairs.power import detectable_half_life, planted_pairs, with_detectable_half_life
from garch_platform.quant.pairs.rules import HonestGates, SelectionRules
from garch_platform.quant.pairs.selection import select_pairs

RULES = SelectionRules()


def walks(symbols: int, bars: int, *, seed: int, correlation: float = 0.8) -> np.ndarray:
    """(T, N) random walks with one common factor and no cointegration."""
    rng = np.random.default_rng(seed)
    market = rng.standard_normal((bars, 1))
    own = rng.standard_normal((bars, symbols))
    return 4.0 + 0.01 * np.cumsum(np.sqrt(correlation) * market + np.sqrt(1 - correlation) * own, axis=0)


def panel(prices: np.ndarray) -> PairPanel:
    columns = {f"S{k:02d}": prices[:, k] for k in range(prices.shape[1])}
    return PairPanel.read(
        pl.DataFrame({"timestamp": np.arange(len(prices)), **columns}).with_columns(
            pl.selectors.float().fill_nan(None)
        ),
        formation_share=0.7,
    )


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_wild_market_keeps_moves_gaps_and_correlation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    prices = walks(4, 60, seed=seed % 1000)
    prices[rng.random(prices.shape) < 0.2] = np.nan
    signs = rng.choice([-1.0, 1.0], 60)
    turned = wild_market(prices, signs)
    np.testing.assert_array_equal(np.isnan(turned), np.isnan(prices))
    for before, after in zip(prices.T, turned.T, strict=True):
        rows = np.flatnonzero(np.isfinite(before))
        if len(rows) < 2:
            continue
        moves, wild = np.diff(before[rows]), np.diff(after[rows])
        assert after[rows[0]] == pytest.approx(before[rows[0]])
        np.testing.assert_allclose(
            np.abs(wild - moves.mean()), np.abs(moves - moves.mean()), rtol=1e-9, atol=1e-12
        )


def test_with_every_sign_positive_the_market_is_itself() -> None:
    prices = walks(3, 50, seed=1)
    np.testing.assert_allclose(wild_market(prices, np.ones(50)), prices, rtol=1e-12)


def test_cross_correlation_stays_and_reversion_goes() -> None:
    rng = np.random.default_rng(0)
    y, x = planted_pairs(2_000, 1, half_life=5.0, rng=rng)
    turned = wild_market(np.hstack([y, x]), rng.choice([-1.0, 1.0], 2_000))
    before, after = (np.corrcoef(np.diff(p, axis=0).T)[0, 1] for p in (np.hstack([y, x]), turned))
    assert after == pytest.approx(before, abs=0.02)
    spread, wild = y - x, turned[:, :1] - turned[:, 1:]
    assert np.var(wild) > 10 * np.var(spread)


def test_the_floor_is_that_of_the_same_selection_on_such_markets() -> None:
    """Ranking wild markets in full gives the floor's counts."""
    base = panel(walks(12, 400, seed=3))
    floor = selection_floor(base, rules=RULES, draws=4, seed=9)
    for draw, child in enumerate(np.random.SeedSequence(9).spawn(4)):
        signs = np.random.default_rng(child).choice([-1.0, 1.0], 400)
        market = base.with_prices(wild_market(base.log_prices, signs))
        ledger = select_pairs(market, rules=RULES, bars_per_year=252.0).ledger
        counts = dict(ledger.select("profile", "ranked").iter_rows())
        assert {profile: values[draw] for profile, values in floor.counts.items()} == counts


def test_the_floor_does_not_depend_on_workers_and_depends_on_the_seed() -> None:
    base = panel(walks(14, 300, seed=5, correlation=0.9))
    rules = replace(RULES, classic=replace(RULES.classic, min_score=0.0), min_coverage=0.5)
    floors = [
        selection_floor(base, rules=rules, min_observations=100, draws=6, seed=seed, workers=workers)
        for seed, workers in ((1, 1), (1, 3), (2, 1))
    ]
    np.testing.assert_array_equal(floors[0].counts["classic"], floors[1].counts["classic"])
    assert dict(floors[0].summary.schema) == FLOOR_SCHEMA
    assert floors[0].counts["classic"].sum() > 0
    assert not np.array_equal(floors[0].counts["classic"], floors[2].counts["classic"])


def test_the_classic_floor_is_high_and_the_honest_one_low() -> None:
    """On correlated walks the documents' gates pass pairs by chance; two stages hardly any."""
    loose = replace(RULES, classic=replace(RULES.classic, min_score=0.0))
    floor = selection_floor(panel(walks(24, 500, seed=8, correlation=0.8)), rules=loose, draws=12, seed=0)
    assert np.median(floor.counts["classic"]) >= 5
    assert (floor.counts["honest"] > 0).mean() <= 0.25


@pytest.mark.parametrize("shape", [(0, 0), (300, 0), (300, 1), (300, 2)])
def test_markets_without_pairs_or_moves_pass_nothing(shape: tuple[int, int]) -> None:
    base = panel(np.zeros(shape))
    floor = selection_floor(base, rules=RULES, draws=2, seed=1)
    assert floor.summary["floor_any"].to_list() == [0.0, 0.0]


def test_no_draws_no_floor() -> None:
    summary = selection_floor(panel(walks(3, 200, seed=1)), rules=RULES, draws=0, seed=0).summary
    assert summary["floor_draws"].to_list() == [0, 0]
    assert summary["floor_median"].null_count() == 2


def test_one_stage_floor_tests_every_pair() -> None:
    rules = replace(RULES, honest=HonestGates(false_discovery="by_all"))
    base = panel(walks(8, 300, seed=2))
    floor = selection_floor(base, rules=rules, draws=2, seed=4)
    signs = np.random.default_rng(np.random.SeedSequence(4).spawn(2)[0]).choice([-1.0, 1.0], 300)
    market = base.with_prices(wild_market(base.log_prices, signs))
    ledger = select_pairs(market, rules=rules, bars_per_year=252.0).ledger
    assert floor.counts["honest"][0] == ledger.filter(pl.col("profile") == "honest")["ranked"][0]


def test_planted_pairs_have_the_correlation_and_half_life_asked_for() -> None:
    y, x = planted_pairs(4_000, 40, half_life=12.0, rng=np.random.default_rng(0))
    returns = [np.diff(leg, axis=0) for leg in (y, x)]
    correlation = [np.corrcoef(a, b)[0, 1] for a, b in zip(returns[0].T, returns[1].T, strict=True)]
    assert np.mean(correlation) == pytest.approx(0.9, abs=0.01)
    spread = y - x
    phi = [(s[1:] @ s[:-1]) / (s[:-1] @ s[:-1]) for s in spread.T]
    assert np.mean(np.log(2) / -np.log(phi)) == pytest.approx(12.0, rel=0.05)


def test_the_detectable_half_life_has_the_power_it_claims() -> None:
    rules = replace(RULES, honest=HonestGates())
    half_life = detectable_half_life(
        formation_bars=700, confirmation_bars=300, gates=rules.honest, survivors=1, lags=1
    )
    assert 8.0 < half_life < 30.0
    y, x = planted_pairs(1_000, 120, half_life=half_life, rng=np.random.default_rng(77))
    found = [
        select_pairs(
            panel(np.column_stack([y[:, k], x[:, k]])), rules=rules, bars_per_year=252.0
        ).selected.height
        for k in range(120)
    ]
    assert np.mean(found) == pytest.approx(0.8, abs=0.12)


def test_more_survivors_and_fewer_bars_find_shorter_half_lives_only() -> None:
    def reach(formation: int, survivors: int, method: str = "bh") -> float:
        gates = HonestGates(false_discovery=method)  # type: ignore[arg-type]
        return detectable_half_life(
            formation_bars=formation,
            confirmation_bars=formation // 2,
            gates=gates,
            survivors=survivors,
            lags=1,
        )

    assert reach(600, 1) > reach(600, 30) > reach(600, 30, "by")
    assert reach(1200, 5) > 1.5 * reach(600, 5)
    assert np.isnan(reach(600, 1, "by_all"))
    assert np.isnan(reach(20, 1))


def test_a_family_too_large_for_a_single_pair_has_no_reach() -> None:
    def reach(survivors: int) -> float:
        return detectable_half_life(
            formation_bars=700,
            confirmation_bars=300,
            gates=HonestGates(),
            survivors=survivors,
            lags=1,
            draws=50,
        )

    assert reach(2_000) > 1.0
    assert np.isnan(reach(20_000))
    assert bootstrap_draws(500, HonestGates()) == BOOTSTRAP_DRAWS < bootstrap_draws(600, HonestGates())
    assert bootstrap_draws(600, HonestGates()) * strictest_threshold(600, HonestGates()) >= 1.0


def test_the_ledger_tells_reach_and_windows_of_the_honest_profile() -> None:
    base = panel(walks(4, 500, seed=1))
    ledger = with_detectable_half_life(
        select_pairs(base, rules=RULES, bars_per_year=252.0).ledger, base, rules=RULES
    )
    rows = {row["profile"]: row for row in ledger.iter_rows(named=True)}
    assert rows["honest"]["detectable_half_life"] > 1.0
    assert rows["classic"]["detectable_half_life"] is None
    assert (rows["honest"]["formation_bars"], rows["honest"]["confirmation_bars"]) == (350, 150)
