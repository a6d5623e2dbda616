"""Simulated markets hold the truth that they state."""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest

from garch_platform.errors import ConfigurationError
from garch_platform.quant.pairs.cointegration import engle_granger
from garch_platform.quant.pairs.spread import half_life
from garch_platform.quant.returns import log_returns
from garch_platform.quant.timeseries.generator import (
    MarketSpec,
    SimulatedMarket,
    simulate_garch,
    simulate_market,
)
from garch_platform.quant.volatility.batch import fit_garch_batch

SPEC = MarketSpec(
    n_symbols=10,
    n_pairs=3,
    bars_per_session=[390, 390, 210] * 5,
    half_lives=(10.0, 20.0, 30.0),
    breaking_pairs=1,
)
FIELDS = ("open", "high", "low", "close", "volume")


@cache
def market() -> SimulatedMarket:
    return simulate_market(SPEC, seed=1)


def test_shapes_and_sessions() -> None:
    bars = 5 * 990
    assert {getattr(market(), name).shape for name in FIELDS} == {(bars, 10)}
    assert np.bincount(market().session_index).tolist() == [390, 390, 210] * 5
    np.testing.assert_array_equal(np.exp(market().log_closes), np.exp(np.log(market().close)))


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    again, other = simulate_market(SPEC, seed=1), simulate_market(SPEC, seed=2)
    for name in FIELDS:
        np.testing.assert_array_equal(getattr(again, name), getattr(market(), name))
    assert again.truth.equals(market().truth)
    assert again.garch.equals(market().garch)
    assert not np.allclose(other.close, market().close, equal_nan=True)


def test_bars_keep_the_order_of_their_prices() -> None:
    present = np.isfinite(market().close)
    low, high = market().low[present], market().high[present]
    for name in ("open", "close"):
        price = getattr(market(), name)[present]
        assert ((low <= price) & (price <= high)).all()
    assert (low > 0.0).all()
    volume = market().volume[present]
    assert ((volume >= 1.0) & (volume == np.floor(volume))).all()


def test_a_bar_opens_where_the_last_closed_except_overnight() -> None:
    whole = simulate_market(MarketSpec(4, 1, (50,) * 20, (10.0,), 0, missing_share=0.0), seed=3)
    gap = np.log(whole.open[1:] / whole.close[:-1])
    overnight = np.diff(whole.session_index) > 0
    np.testing.assert_allclose(gap[~overnight], 0.0, atol=1e-12)
    assert gap[overnight].std() == pytest.approx(8e-3, rel=0.35)


def test_missing_bars_are_missing_in_every_field() -> None:
    absent = np.isnan(market().close)
    assert absent.mean() == pytest.approx(0.002, rel=0.3)
    for name in FIELDS:
        np.testing.assert_array_equal(np.isnan(getattr(market(), name)), absent)


def test_planted_spreads_have_their_hedge_ratio_and_half_life() -> None:
    closes = market().log_closes
    for row in market().truth.iter_rows(named=True):
        stop = row["breaks_at"] or len(closes)
        path = (closes[:, row["first"]] - row["hedge_ratio"] * closes[:, row["second"]])[:stop]
        assert half_life(path) == pytest.approx(row["half_life_bars"], rel=0.3)
        test = engle_granger(closes[:stop, row["first"]], closes[:stop, row["second"]], lags=1)
        assert test.pvalue < 1e-4
        assert test.hedge_ratio == pytest.approx(row["hedge_ratio"], rel=0.1)


def test_the_broken_pair_breaks_where_the_truth_says() -> None:
    truth = market().truth
    assert truth["breaks_at"].to_list() == [None, None, int(0.7 * 4950)]
    row = truth.row(2, named=True)
    closes = market().log_closes
    path = closes[:, row["first"]] - row["hedge_ratio"] * closes[:, row["second"]]
    before, after = path[: row["breaks_at"]], path[row["breaks_at"] :]
    assert np.nanstd(after) > 2.0 * np.nanstd(before)


def test_pairs_that_were_not_planted_are_not_cointegrated() -> None:
    pvalues = []
    for seed in range(3):
        closes = simulate_market(MarketSpec(10, 2, (390,) * 5, (10.0,), 0), seed=seed).log_closes
        planted = {(0, 1), (2, 3)}
        pvalues += [
            engle_granger(closes[:, i], closes[:, j], lags=1).pvalue
            for i in range(10)
            for j in range(i + 1, 10)
            if (i, j) not in planted
        ]
    assert np.mean(np.array(pvalues) < 0.05) < 0.2
    assert min(pvalues) > 1e-5


def test_symbols_carry_the_stated_garch() -> None:
    spec = MarketSpec(6, 1, (4000,), (20.0,), 0, missing_share=0.0)
    simulated = simulate_market(spec, seed=5)
    table = fit_garch_batch(log_returns(simulated.log_closes)).table
    own = ~simulated.garch["is_spread"].to_numpy()
    assert own.tolist() == [False] + [True] * 5
    for name in ("omega", "alpha", "beta"):
        error = (table[name] - simulated.garch[name]) / table[f"{name}_se"]
        assert np.abs(error.to_numpy()[own]).max() < 4.0, name


def test_symbols_share_the_market() -> None:
    returns = log_returns(market().log_closes, session_index=market().session_index)[:, 6:]
    correlation = np.corrcoef(returns[np.isfinite(returns).all(axis=1)].T)
    np.testing.assert_allclose(correlation[np.triu_indices(4, 1)], 0.3, atol=0.08)


def test_garch_recursion_by_hand() -> None:
    returns = simulate_garch(np.array([1.0, -2.0, 0.5]), omega=0.2, alpha=0.3, beta=0.5)
    first = 1.0
    second = 0.2 + 0.3 * 1.0 + 0.5 * 1.0
    third = 0.2 + 0.3 * 4.0 * second + 0.5 * second
    np.testing.assert_allclose(
        returns, [math.sqrt(first), -2.0 * math.sqrt(second), 0.5 * math.sqrt(third)], rtol=1e-14
    )


def test_a_market_without_pairs() -> None:
    plain = simulate_market(MarketSpec(3, 0, (20,), breaking_pairs=0), seed=0)
    assert plain.truth.is_empty()
    assert not plain.garch["is_spread"].any()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("n_pairs", 21),
        ("garch_beta", 0.95),
        ("missing_share", 1.0),
        ("bars_per_session", ()),
        ("breaking_pairs", 7),
    ],
)
def test_impossible_markets_are_refused(option: str, value: object) -> None:
    with pytest.raises(ConfigurationError, match=option):
        MarketSpec(**{option: value})  # type: ignore[arg-type]
