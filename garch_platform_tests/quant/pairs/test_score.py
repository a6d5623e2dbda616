"""The composite score: weights, components and the backtest."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from garch_platform.quant.pairs.score import (
    WEIGHTS,
    Backtest,
    backtest_spread,
    composite_score,
    constant_variance_bic,
    diagnostics_score,
    fit_score,
    trading_score,
    volatility_score,
)
from garch_platform.quant.timeseries.generator import simulate_garch
from garch_platform.quant.volatility.batch import fit_garch_batch

FROZEN = {"mean": 0.0, "std": 1.0, "hedge_ratio": 1.0, "entry_zscore": 2.0, "exit_zscore": 0.5}
share = st.floats(0.0, 1.0)


@given(share, share, share, share)
def test_the_composite_is_a_weighted_mean_in_which_higher_is_better(
    a: float, b: float, c: float, d: float
) -> None:
    score = composite_score(fit=a, volatility=b, trading=c, diagnostics=d)
    assert 0.0 <= score <= 1.0
    better = composite_score(fit=min(1.0, a + 0.1), volatility=b, trading=c, diagnostics=d)
    assert better >= score


def test_weights_are_40_30_20_10() -> None:
    assert dict(WEIGHTS) == {"fit": 0.4, "volatility": 0.3, "trading": 0.2, "diagnostics": 0.1}
    assert composite_score(fit=1.0, volatility=0.0, trading=0.0, diagnostics=0.0) == 0.4
    assert composite_score(fit=0.0, volatility=0.5, trading=1.0, diagnostics=0.0) == pytest.approx(0.35)


def test_fit_score_is_the_posterior_probability_of_the_better_bic() -> None:
    assert fit_score(bic_garch=10.0, bic_constant=10.0) == 0.5
    assert fit_score(bic_garch=10.0, bic_constant=12.0) == pytest.approx(1.0 / (1.0 + math.exp(-1.0)))
    assert fit_score(bic_garch=0.0, bic_constant=1e6) == 1.0
    assert fit_score(bic_garch=1e6, bic_constant=0.0) == 0.0


def test_bic_of_a_constant_variance_is_the_normal_likelihood() -> None:
    from scipy.stats import norm

    shocks = np.random.default_rng(0).standard_normal(300) + 0.2
    expected = 2.0 * math.log(300) - 2.0 * norm.logpdf(shocks, shocks.mean(), shocks.std()).sum()
    assert constant_variance_bic(np.append(shocks, np.nan)) == pytest.approx(expected, rel=1e-12)


def scores_of(shocks: np.ndarray, split: int) -> tuple[float, float, float]:
    formation = shocks[:split]
    fit = fit_garch_batch(formation[:, np.newaxis]).table.row(0, named=True)
    volatility = volatility_score(
        shocks[split:],
        **{name: fit[name] for name in ("mu", "omega", "alpha", "beta")},
        initial_variance=fit["forecast_variance"],
        constant_mean=formation.mean(),
        constant_variance=formation.var(),
    )
    fitted = fit_score(bic_garch=fit["bic"], bic_constant=constant_variance_bic(formation))
    return fitted, volatility, diagnostics_score(fit["ljung_box_pvalue"], fit["arch_lm_pvalue"])


def test_planted_garch_scores_high_and_independent_noise_low() -> None:
    rng = np.random.default_rng(7)
    garch = simulate_garch(rng.standard_normal(5000), omega=0.02, alpha=0.10, beta=0.88)
    high = scores_of(garch, 3000)
    noise = np.array([scores_of(rng.standard_normal(1200), 800) for _ in range(20)])
    assert high[0] > 0.99
    assert high[1] > 0.99
    assert high[2] == 1.0
    assert np.median(noise[:, 0]) < 0.05
    assert 0.1 < np.median(noise[:, 1]) < 0.9
    assert (noise[:, 1] > 0.95).mean() <= 0.2


def test_volatility_score_is_phi_of_the_diebold_mariano_statistic() -> None:
    shocks = np.array([0.5, -1.5, 0.2, 2.5, -0.1, 1.0])
    frozen = {"mu": 0.0, "omega": 0.5, "alpha": 0.2, "beta": 0.5, "initial_variance": 1.0}
    variance = [1.0]
    for shock in shocks[:-1]:
        variance.append(0.5 + 0.2 * shock**2 + 0.5 * variance[-1])
    constant = np.log(1.2) + shocks**2 / 1.2
    gains = constant - (np.log(variance) + shocks**2 / np.array(variance))
    expected = stats.norm.cdf(gains.mean() / (gains.std(ddof=1) / np.sqrt(6)))
    score = volatility_score(shocks, **frozen, constant_mean=0.0, constant_variance=1.2)
    assert score == pytest.approx(expected, rel=1e-12)


def test_volatility_score_at_its_ends_and_without_a_difference() -> None:
    calm = {
        "mu": 0.0,
        "omega": 1e-4,
        "alpha": 0.0,
        "beta": 0.0,
        "initial_variance": 1e-4,
        "constant_mean": 0.0,
    }
    shocks = 0.01 * np.random.default_rng(0).standard_normal(200)
    assert volatility_score(shocks, **calm, constant_variance=1.0) > 0.999
    assert volatility_score(100.0 * shocks, **calm, constant_variance=1.0) < 0.001
    assert volatility_score(shocks, **calm, constant_variance=1e-4) == 0.5
    assert volatility_score(np.full(5, np.nan), **calm, constant_variance=1.0) == 0.5


def test_diagnostics_count_the_tests_that_pass() -> None:
    assert diagnostics_score(0.5, 0.06) == 1.0
    assert diagnostics_score(0.5, 0.05) == 0.5
    assert diagnostics_score(None, 0.01) == 0.0


def test_backtest_by_hand() -> None:
    path = np.array([0.0, 2.5, 1.0, 0.4, 0.4, -2.0, -3.0, -0.4, 0.0])
    result = backtest_spread(path, **FROZEN, cost_bps=10.0)
    assert result.positions.tolist() == [0, -1, -1, 0, 0, 1, 1, 0]
    assert result.trades == 2
    expected = np.array([0.0, 1.5, 0.6, 0.0, 0.0, -1.0, 2.6, 0.0]) / 2.0
    expected[[1, 3, 5, 7]] -= 0.001
    np.testing.assert_allclose(result.returns, expected, rtol=1e-12, atol=1e-15)
    assert result.sharpe == pytest.approx(expected.mean() / expected.std(ddof=1))


def test_the_bar_that_decides_is_not_the_bar_that_earns() -> None:
    jump = np.array([0.0, 5.0, 5.0, 5.0])
    result = backtest_spread(jump, **FROZEN, cost_bps=0.0)
    np.testing.assert_array_equal(result.returns, 0.0)


def test_a_position_open_at_the_end_pays_for_its_closing() -> None:
    result = backtest_spread(np.array([3.0, 3.0, 3.0]), **FROZEN, cost_bps=10.0)
    np.testing.assert_allclose(result.returns, [-0.001, -0.001], rtol=1e-12)


def test_changing_a_later_bar_leaves_earlier_positions() -> None:
    rng = np.random.default_rng(3)
    path = 2.0 * rng.standard_normal(100)
    other = np.append(path[:60], 9.0 * rng.standard_normal(40))
    before, after = (backtest_spread(p, **FROZEN, cost_bps=5.0) for p in (path, other))
    np.testing.assert_array_equal(before.positions[:60], after.positions[:60])
    np.testing.assert_array_equal(before.returns[:59], after.returns[:59])


def test_costs_lower_the_result_by_what_is_traded() -> None:
    path = 2.0 * np.random.default_rng(3).standard_normal(200)
    free, dear = (backtest_spread(path, **FROZEN, cost_bps=cost) for cost in (0.0, 20.0))
    assert (free.returns - dear.returns).sum() == pytest.approx(0.002 * 2 * free.trades)


def test_no_trade_scores_zero_and_has_no_sharpe_ratio() -> None:
    result = backtest_spread(np.zeros(50), **FROZEN, cost_bps=5.0)
    assert math.isnan(result.sharpe)
    assert trading_score(result) == 0.0


def test_trading_score_is_the_normal_probability_of_the_t_statistic() -> None:
    returns = np.array([0.01, -0.005, 0.02, 0.0])
    result = Backtest(returns, np.ones(4, dtype=np.int64), 1)
    statistic = returns.mean() / (returns.std(ddof=1) / 2.0)
    assert trading_score(result) == pytest.approx(0.5 * (1.0 + math.erf(statistic / math.sqrt(2.0))))
    losing = Backtest(-returns, np.ones(4, dtype=np.int64), 1)
    assert trading_score(losing) == pytest.approx(1.0 - trading_score(result))
