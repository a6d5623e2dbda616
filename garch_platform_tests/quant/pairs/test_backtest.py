"""Backtests of many spreads at once: by hand, without look-ahead, with costs; their statistics."""

from __future__ import annotations

import numpy as np
from scipy import stats

from garch_platform.quant.pairs.backtest import Backtest, backtest_spreads

FROZEN = {
    "mean": np.zeros(1),
    "std": np.ones(1),
    "hedge_ratio": np.ones(1),
    "entry_zscore": 2.0,
    "exit_zscore": 0.5,
}


def backtest(path: np.ndarray, *, cost_bps: float = 0.0) -> Backtest:
    return backtest_spreads(np.asarray(path, float).reshape(len(path), -1), **FROZEN, cost_bps=cost_bps)  # type: ignore[arg-type]


def test_by_hand() -> None:
    result = backtest(np.array([0.0, 2.5, 1.0, 0.4, 0.4, -2.0, -3.0, -0.4, 0.0]), cost_bps=10.0)
    assert result.positions[:, 0].tolist() == [0, -1, -1, 0, 0, 1, 1, 0]
    assert result.trades.tolist() == [2]
    expected = np.array([0.0, 1.5, 0.6, 0.0, 0.0, -1.0, 2.6, 0.0]) / 2.0
    expected[[1, 3, 5, 7]] -= 0.001
    np.testing.assert_allclose(result.returns[:, 0], expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(result.sharpe, expected.mean() / expected.std(ddof=1))


def test_columns_are_separate() -> None:
    paths = 2.0 * np.random.default_rng(1).standard_normal((200, 5))
    together = backtest_spreads(
        paths,
        mean=np.zeros(5),
        std=np.ones(5),
        hedge_ratio=np.ones(5),
        entry_zscore=2.0,
        exit_zscore=0.5,
        cost_bps=3.0,
    )
    for place in range(5):
        alone = backtest(paths[:, place], cost_bps=3.0)
        np.testing.assert_array_equal(together.returns[:, place], alone.returns[:, 0])


def test_the_bar_that_decides_is_not_the_bar_that_earns() -> None:
    np.testing.assert_array_equal(backtest(np.array([0.0, 5.0, 5.0, 5.0])).returns, 0.0)


def test_a_position_open_at_the_end_pays_for_its_closing() -> None:
    result = backtest(np.array([3.0, 3.0, 3.0]), cost_bps=10.0)
    np.testing.assert_allclose(result.returns[:, 0], [-0.001, -0.001], rtol=1e-12)


def test_changing_a_later_bar_leaves_earlier_positions() -> None:
    rng = np.random.default_rng(3)
    path = 2.0 * rng.standard_normal(100)
    other = np.append(path[:60], 9.0 * rng.standard_normal(40))
    before, after = (backtest(one, cost_bps=5.0) for one in (path, other))
    np.testing.assert_array_equal(before.positions[:60], after.positions[:60])
    np.testing.assert_array_equal(before.returns[:59], after.returns[:59])


def test_costs_lower_the_result_by_what_is_traded() -> None:
    path = 2.0 * np.random.default_rng(3).standard_normal(200)
    free, dear = (backtest(path, cost_bps=cost) for cost in (0.0, 20.0))
    np.testing.assert_allclose((free.returns - dear.returns).sum(), 0.002 * 2 * free.trades[0])


def test_an_absent_bar_keeps_the_position_and_the_next_bar_earns_the_whole_move() -> None:
    gap = backtest(np.array([0.0, 2.5, np.nan, np.nan, 0.4, 0.0]))
    assert gap.positions[:, 0].tolist() == [0, -1, -1, -1, 0]
    np.testing.assert_allclose(gap.returns[:, 0], [0.0, 0.0, np.nan, 1.05, 0.0], rtol=1e-12)


def test_no_trade_scores_zero_and_has_no_sharpe_ratio() -> None:
    result = backtest(np.zeros(50), cost_bps=5.0)
    assert np.isnan(result.sharpe).all()
    assert result.probabilistic_sharpe.tolist() == [0.0]


def test_probabilistic_sharpe_ratio_is_the_published_formula() -> None:
    returns = stats.skewnorm.rvs(4.0, size=300, random_state=2) - 0.7
    result = Backtest(returns[:, np.newaxis], np.ones((300, 1), dtype=np.int64), np.ones(1, dtype=np.int64))
    ratio = returns.mean() / returns.std(ddof=1)
    skewness, kurtosis = stats.skew(returns), stats.kurtosis(returns, fisher=False)
    deviation = np.sqrt((1 - skewness * ratio + (kurtosis - 1) / 4 * ratio**2) / 299)
    np.testing.assert_allclose(result.probabilistic_sharpe, stats.norm.cdf(ratio / deviation), rtol=1e-10)


def test_fewer_than_two_bars_hold_nothing() -> None:
    for bars in (0, 1):
        result = (
            backtest(np.zeros(bars))
            if bars
            else backtest_spreads(
                np.empty((0, 1)),
                **FROZEN,
                cost_bps=1.0,  # type: ignore[arg-type]
            )
        )
        assert result.returns.shape == (0, 1)
        assert result.trades.tolist() == [0]
